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
        let path = target.derived.join("reads.json");
        let stored: Option<Self> = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let fingerprint = format!("{} {}", live_text::FORMAT, prepared.fingerprint);
        let mut reads = stored.filter(|reads| reads.fingerprint == fingerprint).unwrap_or_default();
        reads.fingerprint = fingerprint;
        reads.place = (path, prepared.tree.clone());
        let tree = &prepared.tree;
        let fresh: Vec<bool> = reads
            .files
            .par_iter()
            .map(|(file, stamp)| stamp_of(&tree.join(file)).as_ref() == Some(stamp))
            .collect();
        let is_fresh = |number: &u32| fresh.get(*number as usize).copied().unwrap_or(false);
        if !fresh.iter().all(|fresh| *fresh) {
            reads.units.retain(|_, unit| unit.files.iter().all(is_fresh));
            reads.compact();
        }
        reads.numbers = reads.files.iter().map(|(file, _)| file.clone()).zip(0..).collect();
        reads
    }

    /// Leaves out the files that no unit includes, whose stamps may be old.
    fn compact(&mut self) {
        let old = std::mem::take(&mut self.files);
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        for unit in self.units.values_mut() {
            for number in &mut unit.files {
                let next = self.files.len() as u32;
                let Some(file) = old.get(*number as usize) else { continue };
                *number = *numbers.entry(*number).or_insert_with(|| {
                    self.files.push(file.clone());
                    next
                });
            }
        }
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
        let tree = self.place.1.clone();
        let mut number = |file: &String| {
            let path = if file.starts_with('/') { file.clone() } else { from_root("", file) };
            if let Some(number) = self.numbers.get(&path) {
                return *number;
            }
            let number = self.files.len() as u32;
            self.files.push((path.clone(), stamp_of(&tree.join(&path)).unwrap_or_default()));
            self.numbers.insert(path, number);
            number
        };
        let files = files.iter().map(&mut number).collect();
        self.units.insert(object.to_owned(), Known { files, text });
        self.is_changed = true;
    }

    /// Keeps it. That is for speed alone, so a failure does not matter; of two at once the later one stays.
    pub fn write(&self) {
        let folder = self.place.0.parent().unwrap_or(Path::new("."));
        let Ok(bytes) = serde_json::to_vec(self) else { return };
        if self.is_changed {
            let written = tempfile::NamedTempFile::new_in(folder)
                .and_then(|file| fs::write(file.path(), bytes).map(|()| file));
            let _ = written.map(|file| file.persist(&self.place.0));
        }
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.len(), found.mtime(), found.mtime_nsec()))
}
