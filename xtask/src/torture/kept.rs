//! What an earlier run has done, so that one that was ended goes on.

use anyhow::{Context, Result};
use kmend_store::Kernel;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// The results of one kernel, a file for each guest.
pub(super) struct Kept {
    folder: PathBuf,
    /// Tells the kernel, the programs and what the guests run.
    key: blake3::Hasher,
}

impl Kept {
    /// The results beside this program. Another build of it, or another input, does everything anew.
    ///
    /// `of` is what is tortured, and `inputs` are the files that the guests run.
    pub(super) fn open(kernel: &Kernel, of: &str, inputs: impl IntoIterator<Item = PathBuf>) -> Result<Kept> {
        let program = std::env::current_exe().context("where is this program?")?;
        let folder = program.with_file_name("torture").join(of).join(&kernel.release);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut key = blake3::Hasher::new();
        for file in [PathBuf::from("/proc/self/exe")].into_iter().chain(inputs) {
            key.update(&fs::read(&file).with_context(|| file.display().to_string())?);
        }
        key.update(kernel.version.as_bytes());
        Ok(Kept { folder, key })
    }

    /// Removes all results.
    pub(super) fn forget(&self) -> Result<()> {
        fs::remove_dir_all(&self.folder)
            .and_then(|()| fs::create_dir_all(&self.folder))
            .with_context(|| self.folder.display().to_string())
    }

    /// What a guest has done. A damaged file is none.
    pub(super) fn find<T: DeserializeOwned>(&self, job: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.path(job)).ok()?).ok()
    }

    /// Keeps what a guest has done.
    pub(super) fn keep<T: Serialize>(&self, job: &str, done: &T) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&serde_json::to_vec(done)?)?;
        file.persist(self.path(job))?;
        Ok(())
    }

    fn path(&self, job: &str) -> PathBuf {
        let mut key = self.key.clone();
        key.update(job.as_bytes());
        self.folder.join(format!("{}.json", key.finalize().to_hex()))
    }
}
