//! How much room there is, and how much a folder takes.

use crate::error::StoreError;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes that this user may still write to the file system of `path`.
pub fn free(path: &Path) -> Result<u64, StoreError> {
    let answer = rustix::fs::statvfs(path)
        .map_err(|errno| StoreError::io("ask for the room in", path)(errno.into()))?;
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

/// Bytes on disk of a folder and all below it, links not followed. What cannot be read counts nothing: the
/// figure is for a person.
pub(crate) fn used(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    // st_blocks counts 512-byte units whatever the file system's block size: stat(2).
    let mut bytes = metadata.blocks().saturating_mul(512);
    if metadata.is_dir()
        && let Ok(entries) = fs::read_dir(path)
    {
        for entry in entries.flatten() {
            bytes = bytes.saturating_add(used(&entry.path()));
        }
    }
    bytes
}

/// Bytes of the files in a folder by their length; what a download has written so far.
pub(crate) fn length(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|m| m.len())
        .sum()
}
