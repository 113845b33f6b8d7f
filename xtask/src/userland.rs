//! A real Debian system for guests: made once from Debian's packages, written to by nobody, and the ground for as many
//! disks as there are trials.

use crate::{narrate, packages};
use anyhow::{Context, Result, bail};
use kmend_process::Command;
use kmend_store::Cache;
use std::fs;
use std::path::{Path, PathBuf};

/// Debian 12.
const SUITE: &str = "bookworm";
/// What is in it beside the essential packages. `systemd-sysv` makes systemd the init; kmod is what kmend depends on.
const INCLUDED: &str = "systemd-sysv,kmod,procps,dbus";
/// The size of the file system; the image has holes where it is empty.
const SIZE: &str = "2G";

/// The image in the cache, made if it is not there: two minutes, and 250 MB.
pub(crate) fn image(cache: &Cache) -> Result<PathBuf> {
    let made_of = blake3::hash(format!("{SUITE} {INCLUDED} {SIZE}").as_bytes()).to_hex();
    let image = cache.userland(&format!("{SUITE}-{}.ext4", &made_of.as_str()[..16]))?;
    let _lock = cache.lock("userland")?;
    if image.is_file() {
        return Ok(image);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("to make a Debian system for guests takes root");
    }
    packages::ensure_for_userland()?;
    let scratch = cache.scratch()?;
    let root = scratch.path().join("root");
    let bootstrap = Command::new("mmdebstrap")
        .args(["--mode=root", "--variant=minbase", "--quiet", &format!("--include={INCLUDED}"), SUITE])
        .arg(&root)
        .args(sources()?);
    narrate::command(&bootstrap.line());
    bootstrap.run()?;
    let unfinished = scratch.path().join("image");
    let format =
        Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&unfinished).arg(SIZE);
    narrate::command(&format.line());
    format.run()?;
    fs::File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, &image).context("the image's place in the cache")?;
    Ok(image)
}

/// A disk for one trial: what is written to it stays in its own file.
pub(crate) fn disk(image: &Path, folder: &Path) -> Result<PathBuf> {
    let disk = folder.join("disk.qcow2");
    let create = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
    create.arg(image).arg(&disk).run()?;
    Ok(disk)
}

/// The package sources of this machine, which is a Debian 12, too.
fn sources() -> Result<Vec<PathBuf>> {
    let mut sources = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = Path::new("/etc/apt/sources.list.d");
    for entry in fs::read_dir(parts).with_context(|| parts.display().to_string())? {
        sources.push(entry?.path());
    }
    // apt takes these only: sources.list(5).
    sources.retain(|path| {
        path.is_file()
            && path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    });
    sources.sort();
    Ok(sources)
}
