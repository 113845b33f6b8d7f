//! What each unit includes and a fingerprint of its text, as the compiler said: kept for the next patch to a header.

use crate::database::from_root;
use crate::live_text;
use crate::prepare::Prepared;
use crate::target::Target;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Size and time of a file, by which an edit is seen.
type Stamp = (u64, i64, i64);

/// What is known of a unit.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    /// The numbers of the files.
    files: Vec<u32>,
    /// [`live_text::fingerprint`] of what the preprocessor makes of it.
    text: Option<String>,
}

/// The files that units include, and their texts. Only units that were asked about are in it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reads {
    /// What the tree was made from, and [`live_text::FORMAT`].
    fingerprint: String,
    files: Vec<(String, Stamp)>,
    /// By object.
    units: BTreeMap<String, Known>,
    /// Objects of which the compiler could not say it, because the kernel's build does not make what they include.
    broken: BTreeSet<String>,
    #[serde(skip)]
    numbers: HashMap<String, u32>,
    #[serde(skip)]
    place: (PathBuf, PathBuf),
    #[serde(skip)]
    is_changed: bool,
}

impl Reads {
    /// What is known of a kernel's units. Units that include a file which was edited since are not in it.
    pub fn of(prepared: &Prepared, target: &Target) -> Self {
        let fingerprint = format!("{} {}", live_text::FORMAT, prepared.fingerprint);
        let place = (target.derived.join("reads.json"), prepared.tree.clone());
        let mut reads = Self { fingerprint, place, ..Self::default() };
        reads.absorb_stored();
        reads
    }

    /// Takes what is stored of units that it does not know.
    fn absorb_stored(&mut self) {
        let (path, tree) = &self.place;
        let stored: Option<Self> = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(stored) = stored.filter(|stored| stored.fingerprint == self.fingerprint) else { return };
        let fresh = |(file, stamp): &(String, Stamp)| {
            (stamp_of(&tree.join(file)).as_ref() == Some(stamp)).then(|| (file.clone(), *stamp))
        };
        let files: Vec<Option<(String, Stamp)>> = stored.files.par_iter().map(fresh).collect();
        for (object, unit) in stored.units {
            if self.units.contains_key(&object) {
                continue;
            }
            let found = unit.files.iter().map(|number| files.get(*number as usize).cloned().flatten());
            if let Some(found) = found.collect::<Option<Vec<_>>>() {
                let files = found.into_iter().map(|(file, stamp)| self.number(file, stamp)).collect();
                self.units.insert(object, Known { files, text: unit.text });
            }
        }
        self.broken.extend(stored.broken);
    }

    fn number(&mut self, file: String, stamp: Stamp) -> u32 {
        *self.numbers.entry(file).or_insert_with_key(|file| {
            self.files.push((file.clone(), stamp));
            self.files.len() as u32 - 1
        })
    }

    /// The files that a unit includes, by path from the tree's root; `None` if it was not asked yet.
    pub fn get(&self, object: &str) -> Option<impl Iterator<Item = &str>> {
        let numbers = self.units.get(object)?.files.iter();
        Some(numbers.filter_map(|number| self.files.get(*number as usize)).map(|(file, _)| file.as_str()))
    }

    /// The fingerprint of a unit's text; `None` if it has none or was not asked yet.
    pub fn text(&self, object: &str) -> Option<&str> {
        self.units.get(object)?.text.as_deref()
    }

    /// Whether it was asked.
    pub fn knows(&self, object: &str) -> bool {
        self.units.contains_key(object) || self.broken.contains(object)
    }

    /// Whether the compiler could not say.
    pub fn is_broken(&self, object: &str) -> bool {
        self.broken.contains(object)
    }

    /// The compiler could not say.
    pub fn insert_broken(&mut self, object: &str) {
        self.is_changed |= self.broken.insert(object.to_owned());
    }

    /// Takes what the compiler named, which may be by detours (`a/../b.h`).
    pub fn insert(&mut self, object: &str, files: &[String], text: Option<String>) {
        let number = |file: &String| {
            let path = if file.starts_with('/') { file.clone() } else { from_root("", file) };
            if let Some(number) = self.numbers.get(&path) {
                return *number;
            }
            let stamp = stamp_of(&self.place.1.join(&path)).unwrap_or_default();
            self.number(path, stamp)
        };
        let files = files.iter().map(number).collect();
        self.units.insert(object.to_owned(), Known { files, text });
        self.is_changed = true;
    }

    /// Keeps it, with what another process may have stored meanwhile. That is for speed alone, so a failure does not
    /// matter.
    pub fn write(&mut self) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        self.absorb_stored();
        let folder = self.place.0.parent().unwrap_or(Path::new("."));
        let Ok(bytes) = serde_json::to_vec(self) else { return };
        let written = tempfile::NamedTempFile::new_in(folder)
            .and_then(|file| fs::write(file.path(), bytes).map(|()| file));
        let _ = written.map(|file| file.persist(&self.place.0));
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.len(), found.mtime(), found.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(folder: &Path, fingerprint: &str) -> Reads {
        let place = (folder.join("reads.json"), folder.to_owned());
        let mut reads = Reads { fingerprint: fingerprint.to_owned(), place, ..Reads::default() };
        reads.absorb_stored();
        reads
    }

    fn insert(reads: &mut Reads, object: &str, files: &[&str]) {
        let files: Vec<String> = files.iter().map(|&file| file.to_owned()).collect();
        reads.insert(object, &files, Some(object.to_uppercase()));
    }

    #[test]
    fn what_two_learn_at_once_is_kept_until_a_file_is_edited() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["a.c", "b.c", "x.h"] {
            fs::write(folder.path().join(file), file).unwrap();
        }
        let (mut one, mut two) = (reads(folder.path(), "tree"), reads(folder.path(), "tree"));
        insert(&mut one, "a.o", &["a.c", "sub/../x.h"]);
        insert(&mut two, "b.o", &["b.c"]);
        two.insert_broken("c.o");
        one.write();
        two.write();
        let all = reads(folder.path(), "tree");
        assert_eq!(all.get("a.o").unwrap().collect::<Vec<_>>(), ["a.c", "x.h"]);
        assert_eq!((all.text("a.o"), all.text("b.o"), all.text("c.o")), (Some("A.O"), Some("B.O"), None));
        assert!(all.is_broken("c.o") && all.knows("c.o") && !all.knows("d.o"));

        fs::write(folder.path().join("x.h"), "longer").unwrap();
        let all = reads(folder.path(), "tree");
        assert!(!all.knows("a.o") && all.knows("b.o"));
        assert!(!reads(folder.path(), "other tree").knows("b.o"));
    }

    #[test]
    fn a_damaged_file_is_no_knowledge() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "{",
            "[]",
            r#"{"fingerprint":"","files":[],"units":{"a.o":{"files":[7],"text":null}},"broken":[]}"#,
        ] {
            fs::write(folder.path().join("reads.json"), text).unwrap();
            assert!(!reads(folder.path(), "").knows("a.o"), "{text}");
        }
    }
}
