//! Objects of original units, kept between builds.
//!
//! An entry's name tells the compiler, the command and the source's contents; the files that the source
//! includes are noted in it with size and time, so that an entry is not used after one of them was edited.

use crate::database::Unit;
use crate::error::{CompileError, io_error};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Changes with how the objects are made.
const FORMAT: &str = "kmend-original-5";

/// The two objects of an original unit.
#[derive(Debug, Clone)]
pub struct Original {
    /// As the kernel's build makes it.
    pub plain: Vec<u8>,
    /// With a section for every function and datum, and with debug information.
    pub sectioned: Vec<u8>,
    /// What the compiler read, from the tree's root.
    pub read: Vec<String>,
}

/// Where one unit's objects are kept.
#[derive(Debug)]
pub struct Entry {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Stamp(String, u64, i64, i64);

impl Stamp {
    fn of(tree: &Path, file: &str) -> Option<Self> {
        let found = fs::metadata(tree.join(file)).ok()?;
        Some(Self(file.to_owned(), found.len(), found.mtime(), found.mtime_nsec()))
    }

    fn still_holds(&self, tree: &Path) -> bool {
        Stamp::of(tree, &self.0).is_some_and(|now| (now.1, now.2, now.3) == (self.1, self.2, self.3))
    }
}

impl Entry {
    /// The entry of `unit`, whose source holds `source`.
    pub fn of(derived: &Path, unit: &Unit, compiler_line: &str, source: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        let words =
            [FORMAT, compiler_line, &unit.named].into_iter().chain(unit.arguments.iter().map(String::as_str));
        for word in words {
            hasher.update(&(word.len() as u64).to_le_bytes());
            hasher.update(word.as_bytes());
        }
        hasher.update(source);
        Self { folder: derived.join("originals").join(hasher.finalize().to_hex().as_str()) }
    }

    /// The objects, if they are there and nothing that the compiler read has changed since.
    pub fn read(&self, tree: &Path) -> Option<Original> {
        let stamps: Vec<Stamp> =
            serde_json::from_slice(&fs::read(self.folder.join("read.json")).ok()?).ok()?;
        if !stamps.iter().all(|stamp| stamp.still_holds(tree)) {
            return None;
        }
        Some(Original {
            plain: fs::read(self.folder.join("plain.o")).ok()?,
            sectioned: fs::read(self.folder.join("sectioned.o")).ok()?,
            read: stamps.into_iter().map(|stamp| stamp.0).collect(),
        })
    }

    /// Keeps the objects. They are written in `work`, a folder on the same file system that is swept after a killed
    /// run, and appear by one rename.
    pub fn write(&self, tree: &Path, original: &Original, work: &Path) -> Result<(), CompileError> {
        let parent = self.folder.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        let partial = tempfile::Builder::new()
            .prefix("original-")
            .tempdir_in(work)
            .map_err(io_error("create", work))?;
        let stamps: Option<Vec<Stamp>> = original.read.iter().map(|file| Stamp::of(tree, file)).collect();
        // A file that vanished since it was read: the tree is being edited, so nothing is kept.
        let Some(stamps) = stamps else { return Ok(()) };
        let stamps = serde_json::to_vec(&stamps).unwrap_or_default();
        for (name, bytes) in
            [("plain.o", &original.plain), ("sectioned.o", &original.sectioned), ("read.json", &stamps)]
        {
            let file = partial.path().join(name);
            fs::write(&file, bytes).map_err(io_error("write", &file))?;
        }
        // An entry whose included files changed is in the way; another process may be doing the same, and
        // whichever comes first serves both.
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::rename(partial.path(), &self.folder);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Owner;

    #[test]
    fn an_entry_holds_until_an_included_file_changes() {
        let scratch = tempfile::tempdir().unwrap();
        let unit = Unit {
            source: "a.c".into(),
            named: "a.c".into(),
            object: "a.o".into(),
            arguments: vec!["-O2".into()],
            owner: Owner::Vmlinux,
            shared_by: Vec::new(),
            objtool: None,
        };
        fs::write(scratch.path().join("a.h"), "1").unwrap();
        let entry = Entry::of(scratch.path(), &unit, "gcc 12", b"int a;");
        assert!(entry.read(scratch.path()).is_none());
        let original = Original { plain: b"p".to_vec(), sectioned: b"s".to_vec(), read: vec!["a.h".into()] };
        entry.write(scratch.path(), &original, scratch.path()).unwrap();
        let found = entry.read(scratch.path()).unwrap();
        assert_eq!(
            (found.plain, found.sectioned, found.read),
            (b"p".to_vec(), b"s".to_vec(), vec!["a.h".to_owned()])
        );
        for other in [
            Entry::of(scratch.path(), &unit, "gcc 13", b"int a;"),
            Entry::of(scratch.path(), &unit, "gcc 12", b""),
        ] {
            assert!(other.read(scratch.path()).is_none());
        }
        fs::write(scratch.path().join("a.h"), "22").unwrap();
        assert!(entry.read(scratch.path()).is_none());
        entry.write(scratch.path(), &original, scratch.path()).unwrap();
        assert!(entry.read(scratch.path()).is_some());
    }
}
