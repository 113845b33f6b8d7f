//! Why the set of a boot could not be read or changed.

use kmend_live::LiveError;
use kmend_refusal::{Code, Coded};
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with what is installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The running system, or a module's file.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The right to do it is missing.
    #[error("{path} needs root", path = .0.display())]
    NotRoot(PathBuf),
    /// There is no space left.
    #[error("{path}: no space is left; nothing was changed", path = .0.display())]
    DiskFull(PathBuf),
    /// Another process holds the lock.
    #[error("{path} is held by another process", path = .0.display())]
    Locked(PathBuf),
    /// Someone else than its owner could have put it there.
    #[error("{path} {why}", path = path.display())]
    Unsafe {
        /// The folder or file.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// A file of kmend's own does not say what it should.
    #[error("{path}: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file of an installed module is not what was installed.
    #[error("{name}: {path} {why}", path = path.display())]
    ModuleDamaged {
        /// The livepatch.
        name: String,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The disk does not give back what was written.
    #[error("{path}: what the disk has is not what was written", path = .0.display())]
    CopyDiffers(PathBuf),
    /// A module that names no kernel, or none that can be a folder's name.
    #[error("{name} names no kernel that it is for: `{release}`")]
    NoRelease {
        /// The livepatch.
        name: String,
        /// What its `vermagic` says.
        release: String,
    },
    /// A patch for the consistency engine, and that would not be there at boot.
    #[error("{name} needs kmend's consistency engine, which is not installed for {release}")]
    NoEngine {
        /// The module.
        name: String,
        /// The kernel.
        release: String,
    },
    /// The engine and a patch of one kernel's set are of two builds.
    #[error("{name} is for the engine interface {built_for}, but that of {release} has {engine}")]
    EngineDiffers {
        /// The module.
        name: String,
        /// The id that it names.
        built_for: String,
        /// The kernel.
        release: String,
        /// The id of the engine in the set.
        engine: String,
    },
    /// The engine cannot be taken out of a set that needs it.
    #[error("these need kmend's consistency engine at boot: {}", .0.join(", "))]
    EngineNeeded(Vec<String>),
    /// Another module of this name is installed.
    #[error("{name} is installed for {release} with other contents")]
    OtherContents {
        /// The livepatch.
        name: String,
        /// The kernel.
        release: String,
    },
    /// All of it is installed.
    #[error("{0} is installed with these contents")]
    AlreadyInstalled(String),
    /// It is not in the set.
    #[error("{name} is not installed for {release}{}", others(.elsewhere))]
    NotInstalled {
        /// The livepatch.
        name: String,
        /// The kernel.
        release: String,
        /// The kernels that it is installed for.
        elsewhere: Vec<String>,
    },
    /// It is not held.
    #[error("{0} is not held")]
    NotHeld(String),
    /// It crashed the machine, or seems to have.
    #[error("{name}: {why}")]
    Held {
        /// The livepatch.
        name: String,
        /// Why it is held.
        why: String,
    },
    /// A load at boot could not be noted before.
    #[error("{name}: a crash could not be remembered: {why}")]
    NoCrashMemory {
        /// The livepatch.
        name: String,
        /// Why not.
        why: String,
    },
}

impl InstallError {
    /// An error at a path; a missing right and a full disk are told apart.
    pub(crate) fn at(path: &Path, errno: Errno) -> InstallError {
        match errno {
            Errno::ACCESS | Errno::PERM => InstallError::NotRoot(path.to_owned()),
            Errno::NOSPC | Errno::DQUOT => InstallError::DiskFull(path.to_owned()),
            errno => InstallError::Io { path: path.to_owned(), source: errno.into() },
        }
    }

    /// The same for an error of the standard library.
    pub(crate) fn io(path: &Path, source: io::Error) -> InstallError {
        match source.raw_os_error() {
            Some(errno) => InstallError::at(path, Errno::from_raw_os_error(errno)),
            None => InstallError::Io { path: path.to_owned(), source },
        }
    }
}

impl Coded for InstallError {
    fn code(&self) -> Code {
        match self {
            InstallError::Live(error) => error.code(),
            InstallError::Io { .. } | InstallError::CopyDiffers(_) => Code::Io,
            InstallError::NotRoot(_) => Code::NotRoot,
            InstallError::DiskFull(_) => Code::DiskFull,
            InstallError::Locked(_) => Code::InstalledLocked,
            InstallError::Unsafe { .. } => Code::InstalledUnsafe,
            InstallError::Damaged { .. } => Code::InstalledDamaged,
            InstallError::ModuleDamaged { .. } => Code::InstalledModuleDamaged,
            InstallError::NoRelease { .. } => Code::NotALivepatch,
            InstallError::NoEngine { .. } => Code::EngineNotInstalled,
            InstallError::EngineDiffers { .. } => Code::EngineDiffers,
            InstallError::EngineNeeded(_) => Code::EngineNeeded,
            InstallError::OtherContents { .. } => Code::OtherContents,
            InstallError::AlreadyInstalled(_) => Code::AlreadyInstalled,
            InstallError::NotInstalled { .. } => Code::NotInstalled,
            InstallError::NotHeld(_) => Code::NotHeld,
            InstallError::Held { .. } => Code::Held,
            InstallError::NoCrashMemory { .. } => Code::NoCrashMemory,
        }
    }
}

fn others(elsewhere: &[String]) -> String {
    if elsewhere.is_empty() { String::new() } else { format!(", but for {}", elsewhere.join(" and ")) }
}
