//! Reading and writing the small files around a kernel.

use crate::error::StoreError;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Configurations and makefile fragments are below 1 MiB; what is larger than this is none.
const LARGEST_TEXT: u64 = 16 << 20;

/// Reads a text file; bytes that are not UTF-8 are replaced.
pub(crate) fn read_text(path: &Path) -> Result<String, StoreError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_TEXT).read_to_end(&mut bytes))
        .map_err(StoreError::io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes a file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    fs::write(path, bytes).map_err(StoreError::io("write", path))
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(StoreError::io("make", path))
}

/// Renames within the cache.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io("rename into place", to))
}

/// The paths in a folder, sorted.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
        paths.push(entry.map_err(StoreError::io("read", folder))?.path());
    }
    paths.sort();
    Ok(paths)
}
