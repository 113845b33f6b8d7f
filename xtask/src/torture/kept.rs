//! What an earlier run has done, so that one that was ended goes on.

use anyhow::{Context, Result};
use kmend_store::Kernel;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the guests run, below the workspace's folder.
const INPUTS: [&str; 5] = [
    "xtask/src/torture/guest.sh",
    "xtask/src/torture/kills.sh",
    "tests/torture/hog.c",
    "tests/torture/one.patch",
    "tests/torture/two.patch",
];

/// The results of one kernel, a file for each guest.
pub(super) struct Kept {
    folder: PathBuf,
    /// Tells the kernel, the programs and what the guests run.
    key: blake3::Hasher,
}

impl Kept {
    /// The results beside this program. Another build of it or of kmend does everything anew.
    pub(super) fn open(kernel: &Kernel, kmend: &Path) -> Result<Kept> {
        let program = std::env::current_exe().context("where is this program?")?;
        let folder = program.with_file_name("torture").join(&kernel.release);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut key = blake3::Hasher::new();
        let inputs = INPUTS.map(|input| crate::root().join(input));
        for file in
            [Path::new("/proc/self/exe"), kmend].into_iter().chain(inputs.iter().map(PathBuf::as_path))
        {
            key.update(&fs::read(file).with_context(|| file.display().to_string())?);
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
