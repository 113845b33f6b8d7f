//! A tree of links to the kernel's source, in which the build system may write.
//!
//! kbuild writes beside the sources, and an output folder (`O=`) is refused for a source tree that was built
//! in before. So every folder becomes a real folder and every file a link, and what an earlier build left in
//! the source is not linked: kbuild would write through the link into the user's tree.
//!
//! All links go through one link at the root, [`SOURCE_LINK`], so that they stay shorter than the 60 bytes
//! that ext4 keeps in the inode itself (fs/ext4/symlink.c); longer ones would take a block each.

use crate::error::{CompileError, io_error};
use rayon::prelude::*;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The link at the tree's root to the source.
const SOURCE_LINK: &str = ".source";

/// Folders of the source, by their path, that hold nothing the build of a unit of x86-64 writes to: they
/// become one link. `arch/*` and `tools/*` are handled by [`is_one_link`].
const ONE_LINK: &[&str] = &["Documentation", "LICENSES", "samples"];

/// Makes the tree of links at `root`, which must not exist.
pub fn create(source: &Path, root: &Path) -> Result<(), CompileError> {
    let source = fs::canonicalize(source).map_err(io_error("read", source))?;
    fs::create_dir_all(root).map_err(io_error("create", root))?;
    let link = root.join(SOURCE_LINK);
    symlink(&source, &link).map_err(io_error("create", &link))?;
    link_folder(&source, root, Path::new(""), 0)?;
    replace_tools_makefile(root)
}

fn link_folder(source: &Path, root: &Path, folder: &Path, depth: usize) -> Result<(), CompileError> {
    let from = source.join(folder);
    let entries = entries(&from)?;
    let made: HashSet<&OsStr> = entries.iter().filter_map(|(name, _)| made_by_kbuild(name)).collect();
    let mut folders = Vec::new();
    for (name, is_folder) in &entries {
        let path = folder.join(name);
        if is_leftover(&path, name) || made.contains(name.as_os_str()) {
            continue;
        }
        if *is_folder && !is_one_link(&path) {
            folders.push(path);
            continue;
        }
        let target = Path::new(&"../".repeat(depth)).join(SOURCE_LINK).join(&path);
        let link = root.join(&path);
        symlink(&target, &link).map_err(io_error("create", &link))?;
    }
    folders.par_iter().try_for_each(|path| {
        let made = root.join(path);
        fs::create_dir(&made).map_err(io_error("create", &made))?;
        link_folder(source, root, path, depth + 1)
    })
}

/// Names of a folder, and whether each is a folder itself (a link to one is not).
fn entries(folder: &Path) -> Result<Vec<(OsString, bool)>, CompileError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("read", folder))? {
        let entry = entry.map_err(io_error("read", folder))?;
        let kind = entry.file_type().map_err(io_error("read", folder))?;
        names.push((entry.file_name(), kind.is_dir()));
    }
    Ok(names)
}

/// The name of the file that kbuild made, if `name` is the `.NAME.cmd` in which it keeps how.
fn made_by_kbuild(name: &OsStr) -> Option<&OsStr> {
    let bytes = name.as_bytes().strip_prefix(b".")?.strip_suffix(b".cmd")?;
    Some(OsStr::from_bytes(bytes))
}

/// Whether a file or folder was left by an earlier build, or is none of the kernel's source.
fn is_leftover(path: &Path, name: &OsStr) -> bool {
    let Some(text) = path.to_str() else { return true };
    let made = [".o", ".ko", ".a", ".cmd", ".mod", ".mod.c", ".order", ".d"];
    let at_root = [".git", ".config", ".config.old", "vmlinux", "System.map", "Module.symvers", "debian"];
    at_root.contains(&text)
        || text == "include/config"
        || text.ends_with("include/generated")
        || name.to_str().is_none_or(|name| made.iter().any(|ending| name.ends_with(ending)))
}

fn is_one_link(path: &Path) -> bool {
    let Some(text) = path.to_str() else { return true };
    let below = |parent: &str| text.strip_prefix(parent).is_some_and(|rest| !rest.contains('/'));
    ONE_LINK.contains(&text) || below("tools/") || (below("arch/") && text != "arch/x86")
}

/// The kernel's own Makefile builds objtool and resolve_btfids even in a dry run (their recipe calls make
/// with MAKEFLAGS emptied). No unit needs them to be compiled, so in this tree they are never made.
fn replace_tools_makefile(root: &Path) -> Result<(), CompileError> {
    let makefile = root.join("tools/Makefile");
    match fs::remove_file(&makefile) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io_error("replace", &makefile)(error));
        }
        _ => {}
    }
    let folder = root.join("tools");
    fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
    fs::write(&makefile, "%:\n\t@:\n").map_err(io_error("write", &makefile))
}

/// Copies a folder of generated files, without kbuild's records of how they were made.
pub fn copy_folder(from: &Path, to: &Path) -> Result<(), CompileError> {
    fs::create_dir_all(to).map_err(io_error("create", to))?;
    for (name, is_folder) in entries(from)? {
        let (source, copy) = (from.join(&name), to.join(&name));
        if is_folder {
            copy_folder(&source, &copy)?;
        } else if made_by_kbuild(&name).is_none() {
            fs::copy(&source, &copy).map_err(io_error("copy", &source))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn files_are_links_and_what_a_build_left_is_not_there() {
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path().join("source");
        for path in ["fs/proc/meminfo.c", "fs/proc/meminfo.o", "lib/crc32table.h", "lib/.crc32table.h.cmd"] {
            write(&source, path, path);
        }
        for path in ["include/generated/x.h", "include/linux/y.h", ".config", "tools/Makefile", "tools/a/b.c"]
        {
            write(&source, path, path);
        }
        for path in ["arch/x86/include/generated/z.h", "arch/x86/k.c", "arch/arm/k.c"] {
            write(&source, path, path);
        }
        let root = scratch.path().join("tree");
        create(&source, &root).unwrap();
        assert_eq!(fs::read_to_string(root.join("fs/proc/meminfo.c")).unwrap(), "fs/proc/meminfo.c");
        assert!(root.join("fs/proc/meminfo.c").is_symlink() && !root.join("fs/proc").is_symlink());
        for gone in ["fs/proc/meminfo.o", "lib/crc32table.h", "include/generated", ".config"] {
            assert!(!root.join(gone).exists(), "{gone}");
        }
        assert!(!root.join("arch/x86/include/generated").exists());
        assert!(root.join("arch/arm").is_symlink() && root.join("tools/a").is_symlink());
        assert_eq!(fs::read_to_string(source.join("tools/Makefile")).unwrap(), "tools/Makefile");
        assert!(!root.join("tools/Makefile").is_symlink());
    }
}
