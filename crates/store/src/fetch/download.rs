//! Packages on this machine, whole and verified.

use super::apt::{Package, Tools};
use super::resolve::Plan;
use crate::cache::Cache;
use crate::disk;
use crate::error::StoreError;
use crate::files;
use crate::progress::{Progress, Stage};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How often the growth of a file is looked at.
const POLL: Duration = Duration::from_millis(200);

/// A package file that nobody else can take away: a link in the caller's own scratch folder.
#[derive(Debug, Clone)]
pub(crate) struct Deb {
    pub path: PathBuf,
    pub size: u64,
}

/// The packages of a plan that are not in the cache's downloads by name and size.
pub(crate) fn to_download<'a>(cache: &Cache, plan: &'a Plan) -> Vec<&'a Package> {
    let there = |package: &Package| {
        fs::metadata(cache.downloads().join(&package.file)).is_ok_and(|file| file.len() == package.size)
    };
    plan.packages().filter(|package| !there(package)).collect()
}

/// Brings every package of the plan into `folder`, from the cache's downloads or from the archive. Each one
/// that is complete is kept in the downloads until [`forget`], so that a fetch that dies loses at most one.
pub(crate) fn obtain(
    cache: &Cache,
    tools: &Tools,
    plan: &Plan,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    let mut missing = Vec::new();
    let all: u64 = plan.packages().map(|package| package.size).sum();
    let mut verified = 0;
    for package in plan.packages() {
        progress(Progress::at(Stage::Verify, verified, all));
        if !take_kept(cache, package, folder)? {
            missing.push(package);
        }
        verified += package.size;
    }
    let total: u64 = missing.iter().map(|package| package.size).sum();
    let mut done = 0;
    for package in missing {
        let stage = Stage::Download { package: package.name.clone() };
        let file = download(tools, package, folder, &mut |bytes| {
            progress(Progress::at(stage.clone(), done + bytes, total));
        })?;
        keep(cache, package, &file, folder)?;
        done += package.size;
    }
    Ok(())
}

/// Where [`obtain`] put a package.
pub(crate) fn deb(folder: &Path, package: &Package) -> Deb {
    Deb { path: folder.join(&package.file), size: package.size }
}

/// Removes the packages of a kernel that is published from the downloads.
pub(crate) fn forget(cache: &Cache, plan: &Plan) {
    for package in plan.packages() {
        // Somebody else may have removed it; and a file too many does no harm.
        let _ = fs::remove_file(cache.downloads().join(&package.file));
    }
}

/// Takes a package from the downloads if it is there and whole. One that is not is removed.
fn take_kept(cache: &Cache, package: &Package, folder: &Path) -> Result<bool, StoreError> {
    let kept = cache.downloads().join(&package.file);
    let own = folder.join(&package.file);
    // Linked first and verified then: a fetch of another kernel with the same source may end and remove
    // the file from the downloads at any time.
    if fs::hard_link(&kept, &own).is_err() {
        return Ok(false);
    }
    if sha256(&own)? == package.sha256 {
        return Ok(true);
    }
    let _ = fs::remove_file(&kept);
    fs::remove_file(&own).map_err(StoreError::io("remove", &own))?;
    Ok(false)
}

/// Downloads a package into a folder of its own below `folder` and verifies it. `written` hears of the
/// bytes that are there.
fn download(
    tools: &Tools,
    package: &Package,
    folder: &Path,
    written: &mut dyn FnMut(u64),
) -> Result<PathBuf, StoreError> {
    let partial = folder.join(format!("partial-{}", package.name));
    files::make_folder(&partial)?;
    let file = thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let partial = &partial;
        scope.spawn(move || sender.send(tools.download(package, partial)));
        loop {
            written(disk::length(partial));
            match receiver.recv_timeout(POLL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(StoreError::Fetch(format!(
                        "the download of {} gave no result",
                        package.name
                    )));
                }
            }
        }
    })?;
    let found = sha256(&file)?;
    if found == package.sha256 {
        return Ok(file);
    }
    Err(StoreError::Fetch(format!(
        "{}={} arrived damaged: its SHA-256 is {found}, the package lists have {}",
        package.name, package.version, package.sha256
    )))
}

/// Puts a verified package into the downloads and into `folder`.
fn keep(cache: &Cache, package: &Package, file: &Path, folder: &Path) -> Result<(), StoreError> {
    let own = folder.join(&package.file);
    files::rename(file, &own)?;
    let kept = cache.downloads().join(&package.file);
    match fs::hard_link(&own, &kept) {
        // Another fetch has just downloaded the same.
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::io("link", &kept)(error))
        }
        _ => Ok(()),
    }
}

/// The SHA-256 of a file in lower-case hexadecimal.
fn sha256(path: &Path) -> Result<String, StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("read", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = file.read(&mut buffer).map_err(StoreError::io("read", path))?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        hash.update(read);
    }
    Ok(hex::encode(hash.finalize()))
}
