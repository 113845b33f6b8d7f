//! A system to look at: its files below a root, and its system calls.

use crate::error::LiveError;
use crate::modules::{ModuleCalls, RunningKernel};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files of sysfs and procfs are at most a page, but for stacks; more than this is not read, in bytes.
pub(crate) const LARGEST: u64 = 64 << 10;
/// Between two looks at sysfs.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
/// `MODULE_NAME_LEN` with its NUL on 64-bit (Linux, include/linux/moduleparam.h).
const NAME_LENGTH: usize = 56;

/// The system whose livepatches are looked at and changed.
pub struct System {
    root: PathBuf,
    pub(crate) calls: Box<dyn ModuleCalls>,
}

impl System {
    /// The running system.
    pub fn running() -> System {
        System::at(Path::new("/"))
    }

    /// The running kernel seen through another root, where /sys and /proc of it are mounted.
    pub fn at(root: &Path) -> System {
        System { root: root.to_owned(), calls: Box::new(RunningKernel) }
    }

    #[cfg(any(test, feature = "fake"))]
    pub(crate) fn with_calls(root: &Path, calls: Box<dyn ModuleCalls>) -> System {
        System { root: root.to_owned(), calls }
    }

    /// Below which everything is read.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the root.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// The folder of all livepatches.
    pub(crate) fn livepatches(&self) -> PathBuf {
        self.path("sys/kernel/livepatch")
    }

    /// The folder of one livepatch.
    pub(crate) fn livepatch(&self, name: &str) -> PathBuf {
        self.livepatches().join(name)
    }

    /// The folder of one module.
    pub(crate) fn module(&self, name: &str) -> PathBuf {
        self.path("sys/module").join(name)
    }

    /// `uname -r`.
    pub fn release(&self) -> Result<String, LiveError> {
        let path = self.path("proc/sys/kernel/osrelease");
        read(&path).map_err(|error| LiveError::at(&path, error))
    }

    /// How many hold a module; `None` if it is gone.
    pub(crate) fn references(&self, name: &str) -> Result<Option<u64>, LiveError> {
        let path = self.module(name).join("refcnt");
        match read_if_there(&path)? {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(count) => Ok(Some(count)),
                Err(_) => Err(LiveError::SysfsFormat { path, found: text }),
            },
        }
    }

    /// Looks until `condition` holds or the time is over, and says whether it holds.
    pub(crate) fn wait_until(
        &self,
        end: Duration,
        mut condition: impl FnMut(&System) -> Result<bool, LiveError>,
    ) -> Result<bool, LiveError> {
        let start = std::time::Instant::now();
        loop {
            if condition(self)? {
                return Ok(true);
            }
            let left = end.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            std::thread::sleep(LOOK.min(left));
        }
    }
}

/// Checks that a name names one module and nothing else below a folder.
pub fn check_name(name: &str) -> Result<(), LiveError> {
    let plain = |c: char| c.is_ascii_graphic() && c != '/';
    let fine = !name.is_empty() && name.len() < NAME_LENGTH && name != "." && name != "..";
    if fine && name.chars().all(plain) {
        Ok(())
    } else {
        Err(LiveError::Name(name.escape_debug().to_string()))
    }
}

/// A small file as text, without the white space at its end.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The same; `None` if the file is gone, or goes while it is read (sysfs says ENODEV then, procfs ESRCH).
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, LiveError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(LiveError::at(path, error)),
    }
}

/// A file that holds `0` or `1`; `None` if it is not there.
pub(crate) fn read_flag(path: &Path) -> Result<Option<bool>, LiveError> {
    match read_if_there(path)?.as_deref() {
        None => Ok(None),
        Some("0") => Ok(Some(false)),
        Some("1") => Ok(Some(true)),
        Some(found) => Err(LiveError::SysfsFormat { path: path.to_owned(), found: found.to_owned() }),
    }
}

/// The names of the folders in a folder, sorted; none if it is gone.
pub(crate) fn folders_in(path: &Path) -> Result<Vec<String>, LiveError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(LiveError::at(path, error)),
    };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [rustix::io::Errno::NODEV, rustix::io::Errno::SRCH, rustix::io::Errno::NOENT];
    error.raw_os_error().is_some_and(|errno| gone.iter().any(|known| known.raw_os_error() == errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_folder() {
        for name in ["livepatch_x", "a-b.c", &"x".repeat(55)] {
            check_name(name).unwrap();
        }
        for name in ["", ".", "..", "a/b", "../x", "a\nb", "a b", "é", &"x".repeat(56)] {
            assert!(matches!(check_name(name), Err(LiveError::Name(_))), "{name:?}");
        }
    }
}
