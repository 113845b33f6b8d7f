//! What an earlier run has done, so that one that was ended goes on.

use super::index::Fix;
use super::outcome::Record;
use anyhow::{Context, Result};
use kmend_store::Kernel;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The records of one kernel, a file for each fix.
pub(super) struct Kept {
    folder: PathBuf,
    /// Tells this program and the kernel.
    maker: String,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    record: Record,
}

impl Kept {
    /// The records beside this program. Another build of it does everything anew: it has other code.
    pub(super) fn open(kernel: &Kernel) -> Result<Self> {
        let program = std::env::current_exe().context("where is this program?")?;
        let bytes = fs::read("/proc/self/exe").context("cannot read this program")?;
        let folder = program.with_file_name("corpus").join(&kernel.release);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let maker = format!("{} {} {}", blake3::hash(&bytes).to_hex(), kernel.release, kernel.version);
        Ok(Kept { folder, maker })
    }

    /// Removes all records.
    pub(super) fn forget(&self) -> Result<()> {
        fs::remove_dir_all(&self.folder)
            .and_then(|()| fs::create_dir_all(&self.folder))
            .with_context(|| self.folder.display().to_string())
    }

    fn key(&self, patch: &[u8]) -> String {
        format!("{} {}", self.maker, blake3::hash(patch).to_hex())
    }

    /// What became of a fix. A damaged file is none.
    pub(super) fn find(&self, fix: &Fix, patch: &[u8]) -> Option<Record> {
        let bytes = fs::read(self.folder.join(format!("{}.json", fix.name()))).ok()?;
        let entry: Entry = serde_json::from_slice(&bytes).ok()?;
        (entry.key == self.key(patch)).then_some(entry.record)
    }

    /// Keeps what became of a fix.
    pub(super) fn keep(&self, fix: &Fix, patch: &[u8], record: &Record) -> Result<()> {
        let entry = Entry { key: self.key(patch), record: record.clone() };
        write_whole(&self.folder.join(format!("{}.json", fix.name())), &serde_json::to_vec_pretty(&entry)?)
    }

    /// Writes all records into one file and says where it is.
    pub(super) fn publish(&self, records: &[Record]) -> Result<PathBuf> {
        // A release has dots, and none begins an extension.
        let mut path = self.folder.clone().into_os_string();
        path.push(".json");
        let path = PathBuf::from(path);
        write_whole(&path, &serde_json::to_vec_pretty(records)?)?;
        Ok(path)
    }
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
    file.write_all(bytes)?;
    file.persist(path).with_context(|| path.display().to_string())?;
    Ok(())
}
