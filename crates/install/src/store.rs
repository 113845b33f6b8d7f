//! kmend's own folder, and who may write into it.

use crate::crash::Crash;
use crate::error::InstallError;
use crate::folder::{Folder, NEW};
use crate::manifest::{MANIFEST, Manifest, Module, check_release};
use kmend_live::System;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Above kmend's own folder, below the root.
const ABOVE: &str = "var/lib";
/// kmend's own folder.
const OWN: &str = "kmend";
/// The file to hold `flock` on.
const LOCK: &str = "lock";
/// Whoever holds it is at work for less: a load happens without it.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// What is installed, for all kernels.
pub struct Store {
    above: PathBuf,
}

impl Store {
    /// That of a system: `/var/lib/kmend` below its root.
    pub fn of(system: &System) -> Store {
        Store::at(system.root())
    }

    /// That below a root.
    pub fn at(root: &Path) -> Store {
        Store { above: root.join(ABOVE) }
    }

    /// Where it is, for messages.
    pub fn path(&self) -> PathBuf {
        self.above.join(OWN)
    }

    /// kmend's folder, to look; `None` if nothing was ever installed or noted.
    pub(crate) fn folder(&self) -> Result<Option<Folder>, InstallError> {
        match Folder::above(&self.above)? {
            None => Ok(None),
            Some(above) => above.folder(OWN),
        }
    }

    /// kmend's folder, to change something. Others wait. What a killed process left half written in it is removed; in the folder
    /// of a kernel the next change of its set does that.
    pub(crate) fn lock(&self) -> Result<Locked, InstallError> {
        std::fs::create_dir_all(&self.above).map_err(|error| InstallError::io(&self.above, error))?;
        let above = Folder::above(&self.above)?;
        let above = above.ok_or_else(|| InstallError::at(&self.above, rustix::io::Errno::NOENT))?;
        let folder = above.make_folder(OWN)?;
        let start = Instant::now();
        loop {
            if let Some(lock) = folder.try_lock(LOCK)? {
                // Whoever left it was killed: nobody else writes now.
                folder.remove(NEW)?;
                return Ok(Locked { folder, _lock: lock });
            }
            if start.elapsed() > LOCK_PATIENCE {
                return Err(InstallError::Locked(self.path().join(LOCK)));
            }
            std::thread::sleep(LOCK_LOOK);
        }
    }

    /// The same, when what the machine died of has been noted.
    pub(crate) fn lock_judged(&self, system: &System) -> Result<Locked, InstallError> {
        let locked = self.lock()?;
        if let Some(boot) = system.boot_id() {
            Crash::judge(&locked, &boot)?;
        }
        Ok(locked)
    }

    /// What is loaded when a kernel boots, in order.
    pub fn installed(&self, release: &str) -> Result<Vec<Module>, InstallError> {
        // What is no folder's name has no folder.
        let own = self.folder()?.filter(|_| check_release("", release).is_ok());
        let Some(own) = own else { return Ok(Vec::new()) };
        let Some(folder) = own.folder(release)? else { return Ok(Vec::new()) };
        Ok(Manifest::read(&folder)?.modules)
    }

    /// The kernels for which something is installed.
    pub fn releases(&self) -> Result<Vec<String>, InstallError> {
        self.folder()?.map_or(Ok(Vec::new()), |own| releases(&own))
    }

    /// The file of an installed livepatch.
    pub fn path_of(&self, release: &str, name: &str) -> Result<PathBuf, InstallError> {
        let modules = self.installed(release)?;
        let Some(module) = modules.iter().find(|module| module.name == name) else {
            return Err(self.not_installed(release, name));
        };
        Ok(self.path().join(release).join(module.file()))
    }

    /// The error that says that something is not installed, with the kernels that it is installed for.
    pub(crate) fn not_installed(&self, release: &str, name: &str) -> InstallError {
        let releases = self.releases().unwrap_or_default();
        let has = |release: &String| {
            self.installed(release).is_ok_and(|modules| modules.iter().any(|module| module.name == name))
        };
        let elsewhere = releases.into_iter().filter(|other| other != release && has(other)).collect();
        InstallError::NotInstalled { name: name.to_owned(), release: release.to_owned(), elsewhere }
    }
}

/// kmend's folder, while nobody else writes into it.
pub(crate) struct Locked {
    pub(crate) folder: Folder,
    _lock: File,
}

/// The folders of it that are kernels'.
pub(crate) fn releases(own: &Folder) -> Result<Vec<String>, InstallError> {
    let mut releases = Vec::new();
    for name in own.names()? {
        let is_release = check_release("", &name).is_ok()
            // A file is none of ours; whatever else is wrong is told when its kernel is asked for.
            && matches!(own.folder(&name), Ok(Some(folder)) if matches!(folder.file(MANIFEST), Ok(Some(_))));
        if is_release {
            releases.push(name);
        }
    }
    Ok(releases)
}

/// The time: UTC, as RFC 3339 has it.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
