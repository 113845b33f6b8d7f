//! Folders for work in progress, on the cache's own file system.
//!
//! A scratch folder holds a file `.lock` that its maker keeps locked. A folder whose lock can be taken
//! belongs to nobody that lives, and is swept. Making a folder and looking for dead ones both happen under
//! one lock, so that a folder is never found between its making and its locking.

use crate::error::StoreError;
use crate::lock::Lock;
use std::fs;
use std::path::{Path, PathBuf};

const LOCK: &str = ".lock";

/// A folder for work in progress. Dropping it removes it with all that is left in it; if the process dies
/// first, the next one to ask the cache for a scratch folder does.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    _lock: Lock,
}

impl Scratch {
    /// Its path. The name `.lock` in it is taken.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a folder in `parent` and sweeps what dead processes left there.
    pub(crate) fn new(parent: &Path, guard: &Path) -> Result<Self, StoreError> {
        let held = Lock::wait(guard)?;
        let dead = dead(parent)?;
        let folder = tempfile::Builder::new()
            .prefix("kmend-")
            .tempdir_in(parent)
            .map_err(StoreError::io("make a folder in", parent))?;
        let lock = Lock::wait(&folder.path().join(LOCK))?;
        drop(held);
        // Removing a kernel tree takes seconds: not under the lock that others wait for. The folders' own
        // locks are still held here, so no other process sweeps them too.
        for (path, lock) in dead {
            // What cannot be removed (another user's, say) is in nobody's way.
            let _ = fs::remove_dir_all(&path);
            drop(lock);
        }
        Ok(Self { folder, _lock: lock })
    }
}

/// The scratch folders without a living owner, each with its lock.
fn dead(parent: &Path) -> Result<Vec<(PathBuf, Option<Lock>)>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent).map_err(StoreError::io("read", parent))? {
        let path = entry.map_err(StoreError::io("read", parent))?.path();
        let lock = path.join(LOCK);
        if !lock.exists() {
            found.push((path, None));
        } else if let Ok(Some(lock)) = Lock::try_now(&lock) {
            found.push((path, Some(lock)));
        }
    }
    Ok(found)
}
