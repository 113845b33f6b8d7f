//! The guest's root file system: a cpio archive in memory.
//!
//! The format is "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst): each entry is a
//! header of thirteen 8-digit hexadecimal numbers after the magic `070701`, the name with its NUL, and the
//! contents; name and contents are padded to 4 bytes. `TRAILER!!!` ends it. All times are 0 and all owners
//! root, so that the same contents give the same bytes.

use crate::error::VmError;
use crate::program::{Program, read_program};
use std::collections::BTreeSet;
use std::path::Path;

/// File type bits of the mode (POSIX `st_mode`; include/uapi/linux/stat.h).
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Where shared libraries of programs go in the guest; its init sets `LD_LIBRARY_PATH` to it.
pub(crate) const LIBRARIES: &str = "kmend/lib";

/// A device node's numbers (Linux, Documentation/admin-guide/devices.txt).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// An initramfs under construction. Paths are in the guest, with or without the leading `/`; folders above a
/// path are made as needed.
#[derive(Debug, Default)]
pub struct Initramfs {
    archive: Vec<u8>,
    entries: u32,
    paths: BTreeSet<String>,
}

impl Initramfs {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether something is at a path.
    pub fn contains(&self, path: &str) -> bool {
        self.paths.contains(path.trim_matches('/'))
    }

    /// Adds a folder; one that is there already stays.
    pub fn add_folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.paths.contains(path) {
            return;
        }
        self.add_parents(path);
        self.add_entry(path, DIRECTORY | 0o755, None, b"");
    }

    /// Adds a file with its permission bits.
    ///
    /// # Errors
    /// Something is at the path already, or the contents are more than the format can hold (4 GiB).
    pub fn add_file(&mut self, path: &str, permissions: u32, contents: &[u8]) -> Result<(), VmError> {
        if u32::try_from(contents.len()).is_err() {
            return Err(VmError::Scenario(format!("{path} is too large for an initramfs")));
        }
        self.add_new(path, REGULAR | (permissions & 0o7777), None, contents)
    }

    /// Adds a symbolic link.
    pub fn add_symlink(&mut self, path: &str, target: &str) -> Result<(), VmError> {
        self.add_new(path, SYMLINK | 0o777, None, target.as_bytes())
    }

    /// Adds a character device.
    pub fn add_device(&mut self, path: &str, permissions: u32, device: Device) -> Result<(), VmError> {
        self.add_new(path, CHARACTER_DEVICE | (permissions & 0o7777), Some(device), b"")
    }

    /// Adds a program of this machine, with its dynamic linker and the shared libraries that it needs.
    pub fn add_program(&mut self, path: &str, host: &Path) -> Result<(), VmError> {
        let Program { contents, interpreter, libraries } = read_program(host)?;
        self.add_file(path, 0o755, &contents)?;
        if let Some((guest, contents)) = interpreter
            && !self.contains(&guest)
        {
            self.add_file(&guest, 0o755, &contents)?;
        }
        for (name, contents) in libraries {
            let guest = format!("{LIBRARIES}/{name}");
            if !self.contains(&guest) {
                self.add_file(&guest, 0o755, &contents)?;
            }
        }
        Ok(())
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.write_header("TRAILER!!!", 0, None, 0);
        self.archive
    }

    fn add_new(
        &mut self,
        path: &str,
        mode: u32,
        device: Option<Device>,
        contents: &[u8],
    ) -> Result<(), VmError> {
        let path = path.trim_matches('/');
        if path.is_empty() || path.contains('\0') || self.paths.contains(path) {
            return Err(VmError::Scenario(format!("/{path} is in the guest already, or no path")));
        }
        self.add_parents(path);
        self.add_entry(path, mode, device, contents);
        Ok(())
    }

    fn add_parents(&mut self, path: &str) {
        for (slash, _) in path.match_indices('/') {
            let parent = &path[..slash];
            if !parent.is_empty() && !self.paths.contains(parent) {
                self.add_entry(parent, DIRECTORY | 0o755, None, b"");
            }
        }
    }

    fn add_entry(&mut self, path: &str, mode: u32, device: Option<Device>, contents: &[u8]) {
        self.paths.insert(path.to_owned());
        self.write_header(path, mode, device, contents.len() as u32);
        self.archive.extend_from_slice(contents);
        self.pad();
    }

    fn write_header(&mut self, path: &str, mode: u32, device: Option<Device>, size: u32) {
        self.entries += 1;
        let device = device.unwrap_or(Device { major: 0, minor: 0 });
        let name_size = path.len() as u32 + 1;
        // ino, mode, uid, gid, nlink, mtime, filesize, major, minor, rmajor, rminor, namesize, check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.major, device.minor, name_size, 0];
        self.archive.extend_from_slice(b"070701");
        for field in fields {
            self.archive.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.archive.extend_from_slice(path.as_bytes());
        self.archive.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn example() -> Vec<u8> {
        let mut initramfs = Initramfs::new();
        initramfs.add_folder("/proc/");
        initramfs.add_file("/init", 0o755, b"#!/bin/sh\n").unwrap();
        initramfs.add_file("a/deep/file", 0o644, b"odd").unwrap();
        initramfs.add_symlink("bin/sh", "busybox").unwrap();
        initramfs.add_device("dev/console", 0o600, Device { major: 5, minor: 1 }).unwrap();
        initramfs.finish()
    }

    fn number(archive: &[u8], header: usize, field: usize) -> usize {
        let at = header + 6 + 8 * field;
        usize::from_str_radix(std::str::from_utf8(&archive[at..at + 8]).unwrap(), 16).unwrap()
    }

    /// Name, mode, size and contents of every entry.
    fn read_back(archive: &[u8]) -> Vec<(String, usize, Vec<u8>)> {
        let (mut at, mut entries) = (0, Vec::new());
        loop {
            assert_eq!(&archive[at..at + 6], b"070701");
            let (mode, size, name_size) =
                (number(archive, at, 1), number(archive, at, 6), number(archive, at, 11));
            let name = String::from_utf8(archive[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
            assert_eq!(archive[at + 110 + name_size - 1], 0);
            let contents = (at + 110 + name_size).next_multiple_of(4);
            at = (contents + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(at, archive.len());
                return entries;
            }
            entries.push((name, mode, archive[contents..contents + size].to_vec()));
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let archive = example();
        let entries = read_back(&archive);
        let names: Vec<&str> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            ["proc", "init", "a", "a/deep", "a/deep/file", "bin", "bin/sh", "dev", "dev/console"]
        );
        assert_eq!(entries[0].1, 0o040_755);
        assert_eq!(entries[1], ("init".into(), 0o100_755, b"#!/bin/sh\n".to_vec()));
        assert_eq!(entries[4], ("a/deep/file".into(), 0o100_644, b"odd".to_vec()));
        assert_eq!(entries[6], ("bin/sh".into(), 0o120_777, b"busybox".to_vec()));
        assert_eq!(entries[8].1, 0o020_600);
        assert_eq!(archive, example(), "the same contents give the same bytes");
    }

    #[test]
    fn cpio_lists_it_where_there_is_a_cpio() {
        let child = Command::new("cpio").arg("-itv").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            return; // The format is checked by the test above too.
        };
        child.stdin.take().unwrap().write_all(&example()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 9, "{text}");
        assert!(lines[6].starts_with("lrwxrwxrwx") && lines[6].ends_with("bin/sh -> busybox"), "{text}");
        assert!(lines[8].starts_with("crw-------") && lines[8].contains("5,   1"), "{text}");
    }

    #[test]
    fn a_path_is_taken_once() {
        let mut initramfs = Initramfs::new();
        initramfs.add_file("etc/file", 0o644, b"").unwrap();
        assert!(initramfs.add_file("/etc/file", 0o644, b"").is_err());
        assert!(initramfs.contains("/etc"));
        assert!(initramfs.add_symlink("", "x").is_err());
    }
}
