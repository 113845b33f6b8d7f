//! Why the cache or a fetch fails.

use kmend_process::ProcessError;
use kmend_refusal::{Code, Coded};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A package and a version of it, as a refusal lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageVersion {
    /// The package's name.
    pub package: String,
    /// The source version it was built from; `None` where the package lists have no such package.
    pub version: Option<String>,
}

impl fmt::Display for PackageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{} {version}", self.package),
            None => write!(f, "{} is not in the package lists", self.package),
        }
    }
}

/// What can go wrong with the cache and the kernels in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The file system that holds the cache has no room, found before or while writing.
    #[error("{}", no_room(path, *needed, *free))]
    DiskFull {
        /// The cache.
        path: PathBuf,
        /// Bytes that the whole fetch needs.
        needed: u64,
        /// Bytes that were free when it was found.
        free: u64,
    },
    /// No folder for the cache can be told, or it is not usable for one.
    #[error("{0}")]
    Root(String),
    /// A release or a lock name that is no plain file name.
    #[error("`{0}` cannot be a kernel release: letters, digits and `.+-_~` make one, at most 64 of them")]
    Name(String),
    /// The cache has no kernel of this release.
    #[error("the cache has no kernel {release}; it has {}", if known.is_empty() { "none".into() } else { known.join(", ") })]
    Unknown {
        /// The release asked for.
        release: String,
        /// Those which are there.
        known: Vec<String>,
    },
    /// A kernel's folder is there, but not all of the kernel.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// The kernel's folder, or the file in it.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A `fetch` argument that names no kernel.
    #[error("`{spec}`: {why}")]
    Spec {
        /// The argument.
        spec: String,
        /// What is wrong with it.
        why: String,
    },
    /// The packages that make one kernel are not there in one version.
    #[error("the kernel's packages are not of one version: {}", join(packages))]
    VersionsDiffer {
        /// Each package with the newest version that the package lists have.
        packages: Vec<PackageVersion>,
    },
    /// Packages could not be looked up, downloaded or unpacked.
    #[error("{0}")]
    Fetch(String),
    /// The given files do not make one kernel.
    #[error("{0}")]
    Import(String),
}

impl StoreError {
    /// Turns an I/O error into one that says what was tried; for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }

    /// Whether the disk (or the user's share of it) was full, told by errno or by a program's words.
    ///
    /// The commands run with `LC_ALL=C`, so the words are `strerror`'s; apt has its own for the check that
    /// it does up front.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            StoreError::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            StoreError::Process(ProcessError::Failed { tail, .. }) => {
                ["No space left on device", "Disk quota exceeded", "You don't have enough free space"]
                    .iter()
                    .any(|words| tail.contains(words))
            }
            StoreError::DiskFull { .. } => true,
            _ => false,
        }
    }
}

impl Coded for StoreError {
    fn code(&self) -> Code {
        if self.is_disk_full() {
            return Code::DiskFull;
        }
        match self {
            StoreError::Io { .. } => Code::Io,
            StoreError::Process(error) => error.code(),
            StoreError::DiskFull { .. } => Code::DiskFull,
            StoreError::Root(_) | StoreError::Name(_) | StoreError::Spec { .. } => Code::Usage,
            StoreError::Unknown { .. } => Code::KernelUnknown,
            StoreError::Damaged { .. } => Code::CacheDamaged,
            StoreError::VersionsDiffer { .. } => Code::VersionsDiffer,
            StoreError::Fetch(_) => Code::FetchFailed,
            StoreError::Import(_) => Code::ImportRefused,
        }
    }
}

fn join(packages: &[PackageVersion]) -> String {
    packages.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn no_room(path: &Path, needed: u64, free: u64) -> String {
    // Room enough in bytes, and yet none: file systems run out of inodes too, and users out of their share.
    let other = if free < needed { "" } else { ", so its inodes or your quota have run out" };
    let (path, needed, free) = (path.display(), mib(needed), mib(free));
    format!("{path} has no room: the kernel needs about {needed} there and {free} is free{other}")
}

/// Bytes as whole MiB, rounded up.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(tail: &str) -> StoreError {
        StoreError::Process(ProcessError::Failed {
            line: "tar".into(),
            folder: ".".into(),
            status: "exit status: 2".into(),
            tail: tail.into(),
        })
    }

    #[test]
    fn a_full_disk_is_told_by_errno_and_by_words() {
        let enospc = StoreError::io("write", Path::new("x"))(io::Error::from_raw_os_error(28));
        assert_eq!(enospc.code(), Code::DiskFull);
        let quota = StoreError::io("write", Path::new("x"))(io::Error::from_raw_os_error(122));
        assert_eq!(quota.code(), Code::DiskFull);
        assert_eq!(failed("tar: x: Cannot write: No space left on device").code(), Code::DiskFull);
        assert_eq!(failed("E: You don't have enough free space in /c/.").code(), Code::DiskFull);
        assert_eq!(failed("tar: x: Cannot open: Permission denied").code(), Code::CommandFailed);
    }

    #[test]
    fn a_full_disk_names_what_is_needed_and_where() {
        let error = StoreError::DiskFull { path: "/c".into(), needed: 3 << 20, free: 1 };
        assert_eq!(error.to_string(), "/c has no room: the kernel needs about 3 MiB there and 1 MiB is free");
    }
}
