//! What an earlier run has done, so that one that was ended goes on.

use super::attempt::Aim;
use super::index::Fix;
use super::outcome::{Outcome, Record};
use anyhow::{Context, Result};
use kmend_store::Kernel;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The records of one kernel, a file for each fix.
pub(super) struct Kept {
    folder: PathBuf,
    /// Tells this program.
    program: String,
    /// Tells the kernel.
    kernel: String,
    /// Whether what another build of this program has proven counts.
    any_build: bool,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    program: String,
    kernel: String,
    patch: String,
    record: Record,
}

impl Kept {
    /// The records beside this program. Another build of it does everything anew: it has other code.
    pub(super) fn open(kernel: &Kernel, any_build: bool) -> Result<Self> {
        let program = std::env::current_exe().context("where is this program?")?;
        let bytes = fs::read("/proc/self/exe").context("cannot read this program")?;
        let folder = program.with_file_name("corpus").join(&kernel.release);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Kept {
            folder,
            program: blake3::hash(&bytes).to_hex().to_string(),
            kernel: format!("{} {}", kernel.release, kernel.version),
            any_build,
        })
    }

    /// Removes all records.
    pub(super) fn forget(&self) -> Result<()> {
        fs::remove_dir_all(&self.folder)
            .and_then(|()| fs::create_dir_all(&self.folder))
            .with_context(|| self.folder.display().to_string())
    }

    /// What became of a fix that was taken as far as this or further. A damaged file is none.
    pub(super) fn find(&self, fix: &Fix, patch: &[u8], aim: Aim) -> Option<Record> {
        let bytes = fs::read(self.folder.join(format!("{}.json", fix.name()))).ok()?;
        let entry: Entry = serde_json::from_slice(&bytes).ok()?;
        let is_same = entry.kernel == self.kernel && entry.patch == hash(patch);
        let is_proven = matches!(entry.record.outcome, Outcome::Proven { .. });
        let is_far_enough = aim == Aim::Module || entry.record.outcome != Outcome::Built;
        let counts = entry.program == self.program || (self.any_build && is_proven);
        (is_same && is_far_enough && counts).then_some(entry.record)
    }

    /// Keeps what became of a fix.
    pub(super) fn keep(&self, fix: &Fix, patch: &[u8], record: &Record) -> Result<()> {
        let entry = Entry {
            program: self.program.clone(),
            kernel: self.kernel.clone(),
            patch: hash(patch),
            record: record.clone(),
        };
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

fn hash(patch: &[u8]) -> String {
    blake3::hash(patch).to_hex().to_string()
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
    file.write_all(bytes)?;
    file.persist(path).with_context(|| path.display().to_string())?;
    Ok(())
}
