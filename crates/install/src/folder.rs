//! A folder that is open: whatever is done in it is done relative to its descriptor, so that nobody can put another folder
//! or a link in its place meanwhile.

use crate::error::InstallError;
use rustix::fs::{self, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A new file until it is whole. Who writes holds the lock, so one name is enough.
pub(crate) const NEW: &str = ".new";
/// Entries of a folder that are looked at.
const MOST_ENTRIES: usize = 100_000;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens a folder by its path, symbolic links and all: what lies above kmend's own folder is the administrator's. `None`
    /// if it is not there.
    pub(crate) fn above(path: &Path) -> Result<Option<Folder>, InstallError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Folder { fd, path: path.to_owned() })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(InstallError::at(path, errno)),
        }
    }

    /// Opens a folder in it; `None` if it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<Option<Folder>, InstallError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(InstallError::Unsafe { path, why: "is no folder, or a link to one" });
            }
            Err(errno) => return Err(InstallError::at(&path, errno)),
        };
        check_owner(&path, &stat(&path, &fd)?)?;
        Ok(Some(Folder { fd, path }))
    }

    /// Opens a folder in it, made if it is not there.
    pub(crate) fn make_folder(&self, name: &str) -> Result<Folder, InstallError> {
        let path = self.path.join(name);
        match fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => self.flush()?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(InstallError::at(&path, errno)),
        }
        self.folder(name)?.ok_or_else(|| InstallError::at(&path, Errno::NOENT))
    }

    /// Opens a file in it to be read; `None` if it is not there.
    pub(crate) fn file(&self, name: &str) -> Result<Option<File>, InstallError> {
        self.open(name, OFlags::RDONLY, false)
    }

    /// Takes the lock that a file of it stands for, if it is free.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<File>, InstallError> {
        let file = self.open(name, OFlags::RDWR | OFlags::CREATE, true)?;
        let file = file.ok_or_else(|| InstallError::at(&self.path.join(name), Errno::NOENT))?;
        match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
            Err(errno) => Err(InstallError::at(&self.path.join(name), errno)),
        }
    }

    /// Opens a file in it to write at its end, made if it is not there.
    pub(crate) fn append(&self, name: &str) -> Result<File, InstallError> {
        let file = self.open(name, OFlags::RDWR | OFlags::APPEND | OFlags::CREATE, false)?;
        file.ok_or_else(|| InstallError::at(&self.path.join(name), Errno::NOENT))
    }

    fn open(&self, name: &str, flags: OFlags, private: bool) -> Result<Option<File>, InstallError> {
        let path = self.path.join(name);
        // A pipe must not make anybody wait.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::from_raw_mode(if private { 0o600 } else { 0o644 });
        let fd = match fs::openat(&self.fd, name, flags, mode) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(InstallError::Unsafe { path, why: "is a symbolic link" }),
            Err(errno) => return Err(InstallError::at(&path, errno)),
        };
        let stat = stat(&path, &fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(InstallError::Unsafe { path, why: "is no regular file" });
        }
        check_owner(&path, &stat)?;
        Ok(Some(File::from(fd)))
    }

    /// Reads a file of at most `most` bytes; `None` if it is not there.
    pub(crate) fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, InstallError> {
        let Some(file) = self.file(name)? else { return Ok(None) };
        let path = self.path.join(name);
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(|error| InstallError::io(&path, error))?;
        if bytes.len() as u64 > most {
            return Err(InstallError::Damaged { path, why: format!("it has more than {most} bytes") });
        }
        Ok(Some(bytes))
    }

    /// Writes a file whole: it is flushed under another name, and renamed.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), InstallError> {
        self.put(name, |file| {
            file.write_all(bytes).map_err(|error| InstallError::io(&self.path.join(name), error))
        })
    }

    /// The same, with what `fill` writes, and checks.
    pub(crate) fn put(
        &self,
        name: &str,
        fill: impl FnOnce(&mut File) -> Result<(), InstallError>,
    ) -> Result<(), InstallError> {
        let path = self.path.join(name);
        let at = |errno| InstallError::at(&path, errno);
        self.remove(NEW)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, NEW, flags, Mode::from_raw_mode(0o644)).map_err(at)?;
        let mut file = File::from(fd);
        let put = fill(&mut file).and_then(|()| {
            fs::fsync(&file).map_err(at)?;
            fs::renameat(&self.fd, NEW, &self.fd, name).map_err(at)
        });
        if put.is_err() {
            // What is left of it is swept later, if it cannot be now.
            let _ = self.remove(NEW);
        }
        put?;
        self.flush()
    }

    /// Removes a file. One that is not there is no error, and neither is a folder, which stays.
    pub(crate) fn remove(&self, name: &str) -> Result<(), InstallError> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
            Err(errno) => Err(InstallError::at(&self.path.join(name), errno)),
        }
    }

    /// Renames a file in it.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), InstallError> {
        fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(|errno| InstallError::at(&self.path.join(to), errno))
    }

    /// Removes an empty folder; one that is not empty stays.
    pub(crate) fn remove_folder(&self, name: &str) -> Result<(), InstallError> {
        match fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => self.flush(),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(errno) => Err(InstallError::at(&self.path.join(name), errno)),
        }
    }

    /// Makes what was renamed and removed last.
    pub(crate) fn flush(&self) -> Result<(), InstallError> {
        fs::fsync(&self.fd).map_err(|errno| InstallError::at(&self.path, errno))
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>, InstallError> {
        let at = |errno| InstallError::at(&self.path, errno);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(at)?.take(MOST_ENTRIES) {
            let name = entry.map_err(at)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Where it was when it was opened, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn stat(path: &Path, fd: &OwnedFd) -> Result<Stat, InstallError> {
    fs::fstat(fd).map_err(|errno| InstallError::at(path, errno))
}

/// Whoever could write it could have any code loaded into the kernel.
fn check_owner(path: &Path, stat: &Stat) -> Result<(), InstallError> {
    let path = || path.to_owned();
    if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(InstallError::Unsafe { path: path(), why: "does not belong to root" });
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(InstallError::Unsafe { path: path(), why: "can be written by others than its owner" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn open(root: &Path) -> Folder {
        Folder::above(root).unwrap().unwrap()
    }

    fn is_unsafe<T: std::fmt::Debug>(result: Result<T, InstallError>) -> bool {
        matches!(result.unwrap_err(), InstallError::Unsafe { .. })
    }

    #[test]
    fn what_is_written_is_whole_and_read_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(root.path()).make_folder("x").unwrap();
        assert_eq!(folder.read("a", 10).unwrap(), None);
        folder.write("a", b"old").unwrap();
        folder.write("a", b"new").unwrap();
        assert_eq!(folder.read("a", 3).unwrap().unwrap(), b"new");
        assert!(matches!(folder.read("a", 2), Err(InstallError::Damaged { .. })));
        assert_eq!(folder.names().unwrap(), ["a"]);
    }

    #[test]
    fn a_write_that_fails_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(root.path());
        folder.write("a", b"old").unwrap();
        let full = |_: &mut File| Err(InstallError::at(Path::new("a"), Errno::NOSPC));
        assert!(matches!(folder.put("a", full), Err(InstallError::DiskFull(_))));
        assert_eq!(folder.read("a", 3).unwrap().unwrap(), b"old");
        assert_eq!(folder.names().unwrap(), ["a"]);
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(root.path());
        std::fs::create_dir(root.path().join("real")).unwrap();
        std::fs::write(root.path().join("file"), "x").unwrap();
        symlink("real", root.path().join("folder")).unwrap();
        symlink("file", root.path().join("link")).unwrap();
        assert!(is_unsafe(folder.folder("folder")));
        assert!(is_unsafe(folder.make_folder("folder")));
        assert!(is_unsafe(folder.folder("file")));
        assert!(is_unsafe(folder.file("link")));
        assert!(is_unsafe(folder.append("link")));
        folder.write("link", b"its own").unwrap();
        assert_eq!(std::fs::read(root.path().join("file")).unwrap(), b"x");
    }

    #[test]
    fn what_others_can_write_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(root.path());
        folder.make_folder("x").unwrap().write("a", b"").unwrap();
        let mode = |name: &str, mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(root.path().join(name), permissions).unwrap();
        };
        mode("x/a", 0o666);
        assert!(is_unsafe(folder.folder("x").unwrap().unwrap().file("a")));
        mode("x", 0o775);
        assert!(is_unsafe(folder.folder("x")));
    }

    #[test]
    fn a_pipe_is_no_file_and_makes_nobody_wait() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("pipe");
        fs::mknodat(fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(is_unsafe(open(root.path()).file("pipe")));
    }
}
