//! The kernel's own words about what was just done.

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// Records that are read at most, and lines that are kept.
const MOST_RECORDS: usize = 4096;
const MOST_LINES: usize = 40;
/// Records that are read of the whole log: more than the largest default buffer holds.
const MOST_RECORDS_OF_ALL: usize = 1 << 18;
/// The longest record (Linux, kernel/printk: `PRINTK_MESSAGE_MAX` is 2048; 8192 before 6.4), in bytes.
const LONGEST_RECORD: usize = 8192;

/// What a line must hold to be about a module, unless it holds the module's name.
const SUBJECTS: [&str; 7] =
    ["livepatch", "kmend_engine", "module", "Lockdown", "relocation", "Unknown symbol", "version magic"];

/// The kernel's log from a moment on. Without the right to read it, it is empty.
pub(crate) struct KernelLog {
    device: Option<OwnedFd>,
}

impl KernelLog {
    /// The log from now on. `path` is that of /dev/kmsg.
    pub(crate) fn from_now(path: &Path) -> KernelLog {
        let device = open(path).filter(|device| rustix::fs::seek(device, SeekFrom::End(0)).is_ok());
        KernelLog { device }
    }

    /// The lines since then that are about a module.
    pub(crate) fn about(&self, module: &str) -> Vec<String> {
        let Some(device) = &self.device else { return Vec::new() };
        let mut lines = Vec::new();
        read_records(device, MOST_RECORDS, |record| {
            lines.extend(message(record).filter(|line| is_about(line, module)));
        });
        lines.truncate(MOST_LINES);
        lines
    }
}

/// When each livepatch was enabled last, in seconds since the boot, as far as the kernel's log still has it (the line is of
/// `__klp_enable_patch`, Linux, kernel/livepatch/core.c). The log's clock stands still while the machine sleeps.
pub(crate) fn enabled_at(path: &Path) -> BTreeMap<String, f64> {
    let mut times = BTreeMap::new();
    if let Some(device) = open(path) {
        read_records(&device, MOST_RECORDS_OF_ALL, |record| times.extend(enabling(record)));
    }
    times
}

fn open(path: &Path) -> Option<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Reads the records that are there, so many at most.
fn read_records(device: &OwnedFd, most: usize, mut each: impl FnMut(&[u8])) {
    let mut record = vec![0; LONGEST_RECORD];
    for _ in 0..most {
        match rustix::io::read(device, &mut record) {
            // EPIPE: records were lost; the next read goes on behind them.
            Err(Errno::INTR | Errno::PIPE) => {}
            Ok(length @ 1..) => each(&record[..length]),
            Ok(0) | Err(_) => break,
        }
    }
}

/// The livepatch that a record says is being enabled, and when, in seconds.
fn enabling(record: &[u8]) -> Option<(String, f64)> {
    let text = String::from_utf8_lossy(record);
    let (head, _) = text.split_once(';')?;
    let microseconds: u64 = head.split(',').nth(2)?.parse().ok()?;
    let message = message(record)?;
    // The second is the engine's own (engine/change.c).
    let name = match message.strip_prefix("livepatch: enabling patch '") {
        Some(rest) => rest.strip_suffix('\'')?,
        None => message.strip_prefix("kmend_engine: '")?.strip_suffix("': enabled")?,
    };
    Some((name.to_owned(), Duration::from_micros(microseconds).as_secs_f64()))
}

/// The text of a record: `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT`, then lines that begin with a space
/// (Linux, Documentation/ABI/testing/dev-kmsg).
fn message(record: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(record);
    let (_, message) = text.split_once(';')?;
    message.lines().next().map(str::to_owned)
}

fn is_about(line: &str, module: &str) -> bool {
    line.contains(module) || SUBJECTS.iter().any(|subject| line.contains(subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_one_message() {
        let record = b"6,339,5140900,-;livepatch: enabling patch 'x'\n SUBSYSTEM=module\n";
        assert_eq!(message(record).unwrap(), "livepatch: enabling patch 'x'");
        assert_eq!(message(b"no record"), None);
    }

    #[test]
    fn the_moment_of_enabling_is_read() {
        assert_eq!(enabling(b"6,339,5140900,-;livepatch: enabling patch 'x'\n"), Some(("x".into(), 5.1409)));
        assert_eq!(enabling(b"5,9,1500000,-;kmend_engine: 'y': enabled\n"), Some(("y".into(), 1.5)));
        assert_eq!(enabling(b"6,339,5140900,-;livepatch: 'x': patching complete\n"), None);
        assert_eq!(enabling(b"6,339;livepatch: enabling patch 'x'\n"), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(enabled_at(file.path()).is_empty());
    }

    #[test]
    fn lines_about_other_things_are_left_out() {
        assert!(is_about("livepatch: symbol 'f' not found in symbol table", "fix"));
        assert!(is_about("fix: disagrees about version of symbol module_layout", "fix"));
        assert!(is_about("Lockdown: insmod: unsigned loading is restricted", "fix"));
        assert!(!is_about("eth0: link up", "fix"));
    }

    #[test]
    fn without_the_device_there_are_no_lines() {
        assert!(KernelLog::from_now(Path::new("/nonexistent")).about("x").is_empty());
    }
}
