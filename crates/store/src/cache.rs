//! The cache's folders.

use crate::error::StoreError;
use crate::facts;
use crate::files;
use crate::kernel::Kernel;
use crate::lock::Lock;
use crate::scratch::Scratch;
use std::fs;
use std::path::{Path, PathBuf};

const KERNELS: &str = "kernels";
const DOWNLOADS: &str = "downloads";
const SCRATCH: &str = "scratch";
const LOCKS: &str = "locks";
const USERLANDS: &str = "userlands";
/// The lock under which scratch folders are made and swept. Not a release: those begin with no `.`.
const SCRATCH_LOCK: &str = ".scratch";

/// The Cache Directory Tagging Specification's file, which tells backup programs to leave the folder out.
const TAG: &str = "CACHEDIR.TAG";
const TAG_TEXT: &[u8] =
    b"Signature: 8a477f597d28d172789f06886806bc55\n# Kernels to build livepatches for, kept by kmend.\n";

/// The cache: kernels to build for, and what is derived from them.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's cache: `$KMEND_CACHE`, else `$XDG_CACHE_HOME/kmend`, else `~/.cache/kmend`. Made if it is
    /// not there.
    pub fn open() -> Result<Self, StoreError> {
        Self::at(Self::place()?)
    }

    /// Where the user's cache is or would be. Nothing is made.
    pub fn place() -> Result<PathBuf, StoreError> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // A relative $XDG_CACHE_HOME is to be ignored: XDG Base Directory Specification 0.8.
        let xdg = set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("kmend"));
        let root = set("KMEND_CACHE").or(xdg).or_else(|| set("HOME").map(|home| home.join(".cache/kmend")));
        let unset = "where to keep kernels? Neither KMEND_CACHE nor XDG_CACHE_HOME nor HOME is set";
        root.ok_or_else(|| StoreError::Root(unset.into()))
    }

    /// The cache in a folder, which is made if it is not there.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let given = root.into();
        files::make_folder(&given)?;
        let root = given.canonicalize().map_err(StoreError::io("open", &given))?;
        // The kernel's Makefile: "source directory cannot contain spaces or colons". The other characters
        // mean something to make or to the shell of its recipes.
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@%,=~".contains(&byte) || !byte.is_ascii();
        if !root.to_str().is_some_and(|path| path.bytes().all(plain)) {
            return Err(StoreError::Root(format!(
                "{} cannot hold kernels: a kernel does not build in a folder whose path has a space, a colon \
                 or a shell's special characters, or is not UTF-8; set KMEND_CACHE to another folder",
                root.display()
            )));
        }
        for name in [KERNELS, DOWNLOADS, SCRATCH, LOCKS] {
            files::make_folder(&root.join(name))?;
        }
        let tag = root.join(TAG);
        if !tag.exists() {
            files::write(&tag, TAG_TEXT)?;
        }
        Ok(Self { root })
    }

    /// The cache's folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The kernels that are there and complete, by release. Damaged ones are left out: see [`Cache::damaged`].
    pub fn kernels(&self) -> Result<Vec<Kernel>, StoreError> {
        Ok(self
            .releases()?
            .iter()
            .filter_map(|release| Kernel::load(&self.kernel_folder(release)).ok())
            .collect())
    }

    /// The releases whose folder is there without all of the kernel in it, each with what is wrong. They can
    /// be removed.
    pub fn damaged(&self) -> Result<Vec<(String, StoreError)>, StoreError> {
        let load =
            |release: String| Kernel::load(&self.kernel_folder(&release)).err().map(|why| (release, why));
        Ok(self.releases()?.into_iter().filter_map(load).collect())
    }

    /// One kernel.
    pub fn kernel(&self, release: &str) -> Result<Kernel, StoreError> {
        facts::check_release(release)?;
        let folder = self.kernel_folder(release);
        if !folder.exists() {
            let known = self.kernels()?.into_iter().map(|kernel| kernel.release).collect();
            return Err(StoreError::Unknown { release: release.into(), known });
        }
        Kernel::load(&folder)
    }

    /// Removes a kernel with all that was derived from it. It is gone at once: the folder is renamed away
    /// before it is deleted.
    pub fn remove(&self, release: &str) -> Result<(), StoreError> {
        facts::check_release(release)?;
        let _lock = self.lock(release)?;
        let folder = self.kernel_folder(release);
        if !folder.exists() {
            let known = self.kernels()?.into_iter().map(|kernel| kernel.release).collect();
            return Err(StoreError::Unknown { release: release.into(), known });
        }
        let scratch = self.scratch()?;
        files::rename(&folder, &scratch.path().join("removed"))
    }

    /// A folder for work in progress, on the same file system as the rest of the cache.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        Scratch::new(&self.root.join(SCRATCH), &self.root.join(LOCKS).join(SCRATCH_LOCK))
    }

    /// Waits for a lock between processes and takes it. A fetch, import or removal of a kernel holds the
    /// lock of its release's name; other names are free for other stages.
    pub fn lock(&self, name: &str) -> Result<Lock, StoreError> {
        Lock::wait(&self.lock_path(name)?)
    }

    /// Takes a lock between processes unless somebody else has it.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, StoreError> {
        Lock::try_now(&self.lock_path(name)?)
    }

    /// Puts a finished kernel in its place, in the stead of one that is there. The caller holds its lock.
    pub(crate) fn publish(&self, finished: &Path, release: &str) -> Result<Kernel, StoreError> {
        let folder = self.kernel_folder(release);
        if folder.exists() {
            let scratch = self.scratch()?;
            files::rename(&folder, &scratch.path().join("replaced"))?;
            files::rename(finished, &folder)?;
        } else {
            files::rename(finished, &folder)?;
        }
        Kernel::load(&folder)
    }

    /// Where a system for virtual machines is, by its name. The folder above it is made.
    pub fn userland(&self, name: &str) -> Result<PathBuf, StoreError> {
        facts::check_release(name)?;
        let folder = self.root.join(USERLANDS);
        files::make_folder(&folder)?;
        Ok(folder.join(name))
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        self.root.join(DOWNLOADS)
    }

    fn kernel_folder(&self, release: &str) -> PathBuf {
        self.root.join(KERNELS).join(release)
    }

    fn lock_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        facts::check_release(name)?;
        Ok(self.root.join(LOCKS).join(name))
    }

    /// The names of the kernels' folders, sorted.
    fn releases(&self) -> Result<Vec<String>, StoreError> {
        let folder = self.root.join(KERNELS);
        let mut releases = Vec::new();
        for entry in fs::read_dir(&folder).map_err(StoreError::io("read", &folder))? {
            let name = entry.map_err(StoreError::io("read", &folder))?.file_name();
            if let Ok(name) = name.into_string()
                && facts::check_release(&name).is_ok()
            {
                releases.push(name);
            }
        }
        releases.sort();
        Ok(releases)
    }
}
