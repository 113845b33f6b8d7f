//! Whom a machine trusts: a folder of certificates.

use crate::certificate::Certificate;
use crate::error::SignError;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a machine keeps the certificates that it trusts. If there is one, `kmend load` takes only what one of them signed.
pub const FOLDER: &str = "/etc/kmend/trusted";
/// What files of certificates end with.
const ENDINGS: [&str; 4] = ["pem", "der", "crt", "cer"];
/// Permissions to write for the group or for all.
const OTHERS_WRITE: u32 = 0o022;

/// Certificates that are trusted: at least one.
#[derive(Debug)]
pub struct Trust {
    certificates: Vec<Certificate>,
    /// The folder or file they are from.
    place: PathBuf,
}

impl Trust {
    /// All the certificates of a folder; `None` if it has none, or there is no such folder. One that cannot be read is an error,
    /// and so is a folder or a file that others can write to: that is not to weaken what is trusted silently.
    pub fn folder(path: &Path) -> Result<Option<Trust>, SignError> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SignError::io("read", path)(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let file = entry.map_err(SignError::io("read", path))?.path();
            let ending = file.extension().and_then(|ending| ending.to_str());
            if ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
                files.push(file);
            }
        }
        if files.is_empty() {
            return Ok(None);
        }
        files.sort();
        check_owner(path)?;
        let mut certificates = Vec::new();
        for file in &files {
            if !file.is_file() {
                return Err(SignError::UnsafeFolder { path: file.clone(), why: "it is no file".into() });
            }
            check_owner(file)?;
            certificates.extend(Certificate::all(file)?);
        }
        Ok(Some(Trust { certificates, place: path.to_owned() }))
    }

    /// The certificates of these files; `None` if there are no files.
    pub fn files(paths: &[PathBuf]) -> Result<Option<Trust>, SignError> {
        let Some(place) = paths.first().cloned() else { return Ok(None) };
        let mut certificates = Vec::new();
        for path in paths {
            certificates.extend(Certificate::all(path)?);
        }
        Ok(Some(Trust { certificates, place }))
    }

    /// These and those of another.
    #[must_use]
    pub fn and(mut self, other: Option<Trust>) -> Trust {
        self.certificates.extend(other.into_iter().flat_map(|other| other.certificates));
        self
    }

    /// The certificates.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The folder, or the first file, that they are from.
    pub fn place(&self) -> &Path {
        &self.place
    }
}

/// Only root, or who asks, may say what is trusted.
fn check_owner(path: &Path) -> Result<(), SignError> {
    let metadata = fs::metadata(path).map_err(SignError::io("read", path))?;
    let because = |why: &str| SignError::UnsafeFolder { path: path.into(), why: why.into() };
    if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(because("it belongs to another user, who could trust anybody"));
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        return Err(because("others can write to it, and could trust anybody"));
    }
    Ok(())
}
