//! Makes unpacked headers packages work where they lie.
//!
//! Debian's headers name `/usr/src` in three kinds of places: the makefile of the release's headers
//! includes the shared one by its absolute path, `lib/modules/RELEASE/build` and `source` are absolute
//! links, and `scripts` and `tools` are relative links to kbuild, which stay true as long as `usr` is kept
//! together. All are made relative, so that the cache can be moved.
//!
//! Debian's headers of 6.12 also bring a `vmlinux` that holds nothing but the kernel's type information.
//! kbuild takes its presence for the wish to give every module type information too, and fails where
//! `pahole` is not installed. A livepatch module needs none, so the file gets another name; without it
//! kbuild says that it skips the step (scripts/Makefile.modfinal, `cmd_btf_ko`).

use crate::error::StoreError;
use crate::files;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

/// The file by which kbuild decides about modules' type information, and what it is called here.
const TYPES: [&str; 2] = ["vmlinux", "vmlinux.btf"];

/// Where the parts of a kernel are in its unpacked packages.
#[derive(Debug)]
pub(crate) struct Parts {
    pub headers: PathBuf,
    pub kbuild: PathBuf,
    pub config: PathBuf,
    pub image: PathBuf,
    pub modules: PathBuf,
    pub symvers: PathBuf,
}

/// Finds the parts in the unpacked packages of a release and makes the headers work.
pub(crate) fn settle(tree: &Path, release: &str) -> Result<Parts, StoreError> {
    let headers = tree.join(format!("usr/src/linux-headers-{release}"));
    include_relatively(&headers)?;
    let [types, renamed] = TYPES.map(|name| headers.join(name));
    if types.exists() {
        files::rename(&types, &renamed)?;
    }
    // Older packages have /lib/modules, those of a merged /usr have /usr/lib/modules.
    let modules = ["lib/modules", "usr/lib/modules"].map(|folder| tree.join(folder).join(release));
    let modules = modules.into_iter().find(|folder| folder.join("kernel").exists()).ok_or_else(|| {
        StoreError::Fetch(format!("the packages of {release} hold no folder lib/modules/{release}/kernel"))
    })?;
    for folder in [&headers, &modules] {
        link_relatively(tree, folder)?;
    }
    let scripts = headers.join("scripts");
    let kbuild = scripts.canonicalize().map_err(StoreError::io("follow", &scripts))?;
    Ok(Parts {
        kbuild: kbuild.parent().unwrap_or(&kbuild).to_owned(),
        config: headers.join(".config"),
        image: tree.join(format!("boot/vmlinuz-{release}")),
        symvers: headers.join("Module.symvers"),
        headers,
        modules,
    })
}

/// Turns `include /usr/src/NAME/Makefile` into an include beside the makefile itself.
fn include_relatively(headers: &Path) -> Result<(), StoreError> {
    let path = headers.join("Makefile");
    let text = files::read_text(&path)?;
    let line = |line: &str| match line.strip_prefix("include /usr/src/") {
        Some(beside) => format!("include $(dir $(abspath $(lastword $(MAKEFILE_LIST))))../{beside}"),
        None => line.to_owned(),
    };
    let mut changed: String = text.lines().map(line).collect::<Vec<_>>().join("\n");
    changed.push('\n');
    files::write(&path, changed.as_bytes())
}

/// Turns the absolute links in a folder that lead to a place in the tree into relative ones.
fn link_relatively(tree: &Path, folder: &Path) -> Result<(), StoreError> {
    for path in files::entries(folder)? {
        let Ok(target) = fs::read_link(&path) else { continue };
        let Ok(inside) = target.strip_prefix("/") else { continue };
        let depth = folder.strip_prefix(tree).unwrap_or(folder).components().count();
        let up: PathBuf = std::iter::repeat_n(Component::ParentDir, depth).collect();
        if tree.join(inside).exists() {
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            symlink(up.join(inside), &path).map_err(StoreError::io("link", &path))?;
        }
    }
    Ok(())
}
