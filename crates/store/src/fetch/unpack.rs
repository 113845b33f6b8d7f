//! Packages to folders.
//!
//! The kernel source is by far the largest part: one archive of 1.3 GB in 80,000 files. It is decoded on
//! all processors (Debian's archives are written by a parallel xz in blocks of 24 MiB) while the other
//! packages are unpacked beside it.

use super::apt::Tools;
use super::download::Deb;
use crate::error::StoreError;
use crate::files;
use crate::progress::{Progress, Stage};
use lzma_rust2::XzReaderMt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How often the progress is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How far two threads have come, and whether to go on.
#[derive(Default)]
struct Pace {
    bytes: AtomicU64,
    stop: AtomicBool,
}

/// Unpacks `parts` into `tree`, and the source in package `source` as the folder `source` in `tree`.
/// `work` is an empty folder on the same file system.
pub(crate) fn unpack(
    tools: &Tools,
    parts: &[Deb],
    source: &Deb,
    tree: &Path,
    work: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    // The source counts twice: its package is unpacked to an archive of about the same size.
    let total = parts.iter().map(|deb| deb.size).sum::<u64>() + 2 * source.size;
    let pace = Pace::default();
    thread::scope(|scope| {
        let parts = scope.spawn(|| watched(&pace, || unpack_parts(tools, parts, tree, &pace)));
        let source = scope.spawn(|| watched(&pace, || unpack_source(tools, source, tree, work, &pace)));
        while !(parts.is_finished() && source.is_finished()) {
            progress(Progress::at(Stage::Unpack, pace.bytes.load(Ordering::Relaxed), total));
            thread::sleep(POLL);
        }
        progress(Progress::at(Stage::Unpack, total, total));
        let ended = |result: thread::Result<Result<(), StoreError>>| {
            result.unwrap_or_else(|_| Err(StoreError::Fetch("a thread that unpacks has panicked".into())))
        };
        ended(parts.join()).and(ended(source.join()))
    })
}

/// Does one thread's work; when it fails, the other thread may as well stop.
fn watched(pace: &Pace, work: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
    let result = work();
    if result.is_err() {
        pace.stop.store(true, Ordering::Relaxed);
    }
    result
}

fn unpack_parts(tools: &Tools, parts: &[Deb], tree: &Path, pace: &Pace) -> Result<(), StoreError> {
    for deb in parts {
        if pace.stop.load(Ordering::Relaxed) {
            break;
        }
        tools.unpack(&deb.path, tree)?;
        pace.bytes.fetch_add(deb.size, Ordering::Relaxed);
    }
    Ok(())
}

fn unpack_source(tools: &Tools, deb: &Deb, tree: &Path, work: &Path, pace: &Pace) -> Result<(), StoreError> {
    let package = work.join("package");
    files::make_folder(&package)?;
    tools.unpack(&deb.path, &package)?;
    pace.bytes.fetch_add(deb.size, Ordering::Relaxed);
    let archive = archive(&package.join("usr/src"))?;
    let folder = work.join("tree");
    files::make_folder(&folder)?;
    unpack_archive(&archive, &folder, pace)?;
    fs::remove_dir_all(&package).map_err(StoreError::io("remove", &package))?;
    // The archive has one folder at its top, `linux-source-VERSION`.
    match files::entries(&folder)?.as_slice() {
        [only] if only.is_dir() => files::rename(only, &tree.join("source")),
        other => Err(StoreError::Fetch(format!(
            "{} holds {} entries at its top where one folder was expected",
            archive.display(),
            other.len()
        ))),
    }
}

/// The source's archive in the unpacked package.
fn archive(folder: &Path) -> Result<PathBuf, StoreError> {
    let is_archive = |path: &PathBuf| path.to_string_lossy().ends_with(".tar.xz");
    files::entries(folder)?
        .into_iter()
        .find(is_archive)
        .ok_or_else(|| StoreError::Fetch("the source package holds no usr/src/*.tar.xz".into()))
}

/// Unpacks a `.tar.xz`. Times are kept: make compares them.
fn unpack_archive(archive: &Path, folder: &Path, pace: &Pace) -> Result<(), StoreError> {
    let file = File::open(archive).map_err(StoreError::io("read", archive))?;
    let workers = thread::available_parallelism().map_or(1, usize::from).min(8);
    let counted = Counted { file, bytes: &pace.bytes };
    let decoded = XzReaderMt::new(counted, true, workers as u32).map_err(StoreError::io("read", archive))?;
    let mut tar = tar::Archive::new(BufReader::with_capacity(1 << 20, decoded));
    tar.set_preserve_mtime(true);
    for entry in tar.entries().map_err(StoreError::io("read", archive))? {
        if pace.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // What would land outside of the folder is passed over by `unpack_in`.
        entry.and_then(|mut entry| entry.unpack_in(folder)).map_err(StoreError::io("unpack", archive))?;
    }
    Ok(())
}

/// Counts what is read.
struct Counted<'a> {
    file: File,
    bytes: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}
