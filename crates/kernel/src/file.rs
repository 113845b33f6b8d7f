//! Files that somebody names: read whole or not at all, within a bound, and without waiting for what never comes.

use rustix::fs::{OFlags, fcntl_setfl};
use std::fs::{FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The largest module that is read, in bytes.
pub const LARGEST_MODULE: u64 = 256 << 20;

/// Reads a file of at most `most` bytes. A pipe, such as a shell makes of `<(...)`, is read to its end; one that nobody writes
/// to is empty.
///
/// # Errors
/// What the file system says; a folder; a device or a socket, which has no end; more than `most` bytes.
pub fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Without the flag the open waits until somebody opens a pipe to write (fifo(7)).
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let kind = file.metadata()?.file_type();
    if let Some(why) = unreadable(kind) {
        return Err(why);
    }
    if kind.is_fifo() {
        // It has a writer or none from here on: the one is waited for, the other is its end.
        fcntl_setfl(&file, OFlags::empty())?;
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

fn unreadable(kind: FileType) -> Option<io::Error> {
    if kind.is_dir() {
        Some(io::ErrorKind::IsADirectory.into())
    } else if kind.is_file() || kind.is_fifo() {
        None
    } else {
        Some(io::Error::other("it is a device, and no file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType as Kind, Mode, mknodat};
    use std::io::Write;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"four").unwrap();
        assert_eq!(read_file(file.path(), 4).unwrap(), b"four");
        assert_eq!(read_file(file.path(), 3).unwrap_err().to_string(), "it has more than 3 bytes");
    }

    #[test]
    fn what_has_no_end_is_not_begun() {
        let text = |path: &str| read_file(Path::new(path), 1 << 30).unwrap_err().to_string();
        assert_eq!(text("/dev/zero"), "it is a device, and no file");
        assert_eq!(text("/"), "is a directory");
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_is_empty_without_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, Kind::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(read_file(&path, 4).unwrap(), b"");
        let (reader, mut writer) = io::pipe().unwrap();
        let slow = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            writer.write_all(b"late").unwrap();
        });
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        assert_eq!(read_file(Path::new(&path), 4).unwrap(), b"late");
        slow.join().unwrap();
    }
}
