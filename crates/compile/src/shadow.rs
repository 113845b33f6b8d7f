//! A shadow of the prepared tree, in which only the patched files are real.
//!
//! Folders that hold no patched file are one link each. The commands of the database name all files from the
//! tree's root, so they run in the shadow unchanged and find the patched files in the place of the originals.
//! A path that climbs out of a linked folder (`../x.h`) lands in the prepared tree, though, and could find an
//! original there: [`Shadow::leaks`] looks for this in what the compiler says it read.

use crate::author;
use crate::error::{CompileError, io_error};
use crate::unit::Compiled;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The shadow; its folder is the caller's to remove.
#[derive(Debug)]
pub struct Shadow {
    root: PathBuf,
    tree: PathBuf,
    /// Contents of the patched files, by path from the root; `None` for a file that the patch removes.
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    /// Folders that are real.
    real: BTreeSet<PathBuf>,
}

impl Shadow {
    /// Makes a shadow of `tree` at `root` (which must not exist) with these files, and with real folders on
    /// the way to `units` (sources as their commands name them).
    pub fn create(
        tree: &Path,
        root: &Path,
        files: BTreeMap<PathBuf, Option<Vec<u8>>>,
        units: &[&str],
    ) -> Result<Self, CompileError> {
        author::write_headers(root)?;
        let tree = fs::canonicalize(tree).map_err(io_error("read", tree))?;
        let mut shadow = Self { root: root.to_owned(), tree, files, real: BTreeSet::new() };
        shadow.make_real(Path::new(""))?;
        for path in shadow.files.keys().cloned().collect::<Vec<_>>() {
            shadow.make_real(path.parent().unwrap_or(Path::new("")))?;
        }
        for unit in units {
            shadow.widen(unit)?;
        }
        for (path, bytes) in &shadow.files {
            if let Some(bytes) = bytes {
                let file = shadow.root.join(path);
                fs::write(&file, bytes).map_err(io_error("write", &file))?;
            }
        }
        Ok(shadow)
    }

    /// The root: commands run here.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes `folder` and those above it real.
    fn make_real(&mut self, folder: &Path) -> Result<(), CompileError> {
        if self.real.contains(folder) {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make_real(parent)?;
        }
        let made = self.root.join(folder);
        if made.is_symlink() {
            fs::remove_file(&made).map_err(io_error("replace", &made))?;
        }
        fs::create_dir_all(&made).map_err(io_error("create", &made))?;
        self.real.insert(folder.to_owned());
        self.link_entries(folder)
    }

    /// Links what the prepared tree holds in a real folder and the shadow does not yet.
    fn link_entries(&self, folder: &Path) -> Result<(), CompileError> {
        let from = self.tree.join(folder);
        // A new file may lie in a new folder.
        if !from.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(&from).map_err(io_error("read", &from))? {
            let name = entry.map_err(io_error("read", &from))?.file_name();
            let path = folder.join(&name);
            let link = self.root.join(&path);
            if self.files.contains_key(&path) || link.symlink_metadata().is_ok() {
                continue;
            }
            symlink(from.join(&name), &link).map_err(io_error("link", &link))?;
        }
        Ok(())
    }

    /// Takes over what was generated in the prepared tree since.
    pub fn refresh(&self) -> Result<(), CompileError> {
        self.real.iter().try_for_each(|folder| self.link_entries(folder))
    }

    /// Of what the compiler read (paths from the root), the first that is the original of a patched file.
    pub fn leak<'a>(&self, read: &'a [String]) -> Option<&'a str> {
        let originals: BTreeSet<PathBuf> =
            self.files.keys().filter_map(|path| fs::canonicalize(self.tree.join(path)).ok()).collect();
        let names: BTreeSet<&OsStr> =
            self.files.keys().chain(&originals).filter_map(|path| path.file_name()).collect();
        // The name first: a unit reads a thousand files.
        let is_original = |path: &str| {
            Path::new(path).file_name().is_some_and(|name| names.contains(name))
                && fs::canonicalize(self.root.join(path)).is_ok_and(|real| originals.contains(&real))
        };
        read.iter().map(String::as_str).find(|path| is_original(path))
    }

    /// Makes real every folder on the way that `path` names, step by step, so that `..` stays in the shadow.
    /// Returns whether anything changed.
    pub fn widen(&mut self, path: &str) -> Result<bool, CompileError> {
        let before = self.real.len();
        let mut way = PathBuf::new();
        let folders = Path::new(path).parent().unwrap_or(Path::new(""));
        for component in folders.components() {
            match component {
                Component::Normal(name) => {
                    way.push(name);
                    if !self.tree.join(&way).is_dir() {
                        break;
                    }
                    self.make_real(&way)?;
                }
                Component::ParentDir if way.pop() => {}
                Component::CurDir => {}
                _ => break,
            }
        }
        Ok(self.real.len() != before)
    }
}

/// A shadow that several compiles use at the same time, and that changes between them.
#[derive(Debug)]
pub struct SharedShadow(RwLock<Shadow>);

impl SharedShadow {
    /// Shares a shadow.
    pub fn new(shadow: Shadow) -> Self {
        Self(RwLock::new(shadow))
    }

    /// For a change.
    pub fn write(&self) -> RwLockWriteGuard<'_, Shadow> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is.
    pub fn read(&self) -> RwLockReadGuard<'_, Shadow> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs in the shadow, with more and more of it real until no original is read. `run` gives what it comes to and
    /// what was read. `source` is the unit's, for the message.
    pub fn until_no_leak<T>(
        &self,
        source: &str,
        run: impl Fn(&Path) -> Result<Compiled<(T, Vec<String>)>, CompileError>,
    ) -> Result<Compiled<(T, Vec<String>)>, CompileError> {
        loop {
            let (result, leak) = {
                let shadow = self.read();
                let result = run(shadow.root())?;
                let leak = match &result {
                    Compiled::Done((_, read)) => shadow.leak(read).map(str::to_owned),
                    Compiled::Failed(_) => None,
                };
                (result, leak)
            };
            let Some(file) = leak else { return Ok(result) };
            // Each round makes at least one more folder real, so this ends.
            if !self.write().widen(&file)? {
                return Err(CompileError::ShadowLeak { unit: source.to_owned(), file });
            }
        }
    }
}

/// The files that a dependency file names, without the target.
///
/// Format: make's, as `gcc -MMD` writes it: `TARGET: FILE FILE \` with spaces in names escaped by `\`.
pub fn dependencies(text: &str) -> Vec<String> {
    let list = text.split_once(':').map_or("", |(_, list)| list);
    let mut files = Vec::new();
    let mut name = String::new();
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => name.push(escaped),
            },
            c if c.is_whitespace() => {
                if !name.is_empty() {
                    files.push(std::mem::take(&mut name));
                }
            }
            c => name.push(c),
        }
    }
    if !name.is_empty() {
        files.push(name);
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, PathBuf) {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        for path in ["fs/a/one.c", "fs/a/two.c", "fs/b/three.h", "mm/slub.c"] {
            fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), path).unwrap();
        }
        (scratch, tree)
    }

    fn files(path: &str) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        BTreeMap::from([(PathBuf::from(path), Some(b"patched".to_vec()))])
    }

    #[test]
    fn only_patched_files_and_their_folders_are_real() {
        let (scratch, tree) = tree();
        let root = scratch.path().join("shadow");
        let shadow = Shadow::create(&tree, &root, files("fs/a/one.c"), &["fs/a/one.c"]).unwrap();
        assert_eq!(fs::read_to_string(root.join("fs/a/one.c")).unwrap(), "patched");
        assert_eq!(fs::read_to_string(root.join("fs/a/two.c")).unwrap(), "fs/a/two.c");
        assert!(root.join("mm").is_symlink() && root.join("fs/b").is_symlink());
        assert!(!root.join("fs/a").is_symlink());
        assert_eq!(fs::read_to_string(tree.join("fs/a/one.c")).unwrap(), "fs/a/one.c");
        fs::write(tree.join("fs/a/generated.h"), "new").unwrap();
        shadow.refresh().unwrap();
        assert_eq!(fs::read_to_string(root.join("fs/a/generated.h")).unwrap(), "new");
    }

    #[test]
    fn a_way_out_of_a_linked_folder_is_a_leak_until_it_is_real() {
        let (scratch, tree) = tree();
        let root = scratch.path().join("shadow");
        let mut shadow = Shadow::create(&tree, &root, files("fs/a/one.c"), &["mm/slub.c"]).unwrap();
        let read = ["fs/a/one.c".to_owned(), "fs/b/../a/one.c".to_owned()];
        assert_eq!(shadow.leak(&read), Some("fs/b/../a/one.c"));
        assert!(shadow.widen("fs/b/../a/one.c").unwrap());
        assert_eq!(shadow.leak(&read), None);
        assert!(!shadow.widen("fs/b/../a/one.c").unwrap());
    }

    #[test]
    fn a_unit_that_its_command_names_by_a_detour_is_no_leak() {
        let (scratch, tree) = tree();
        let root = scratch.path().join("shadow");
        let named = "fs/b/../../mm/slub.c";
        let shadow = Shadow::create(&tree, &root, files("mm/slub.c"), &[named]).unwrap();
        assert_eq!(shadow.leak(&[named.to_owned()]), None);
        assert_eq!(fs::read_to_string(root.join(named)).unwrap(), "patched");
    }

    #[test]
    fn a_removed_file_is_not_there() {
        let (scratch, tree) = tree();
        let root = scratch.path().join("shadow");
        let gone = BTreeMap::from([(PathBuf::from("fs/a/two.c"), None)]);
        Shadow::create(&tree, &root, gone, &[]).unwrap();
        assert!(root.join("fs/a/one.c").exists() && !root.join("fs/a/two.c").exists());
    }

    #[test]
    fn a_dependency_file_is_read_over_its_line_ends() {
        assert_eq!(
            dependencies("x.o: a.c \\\n include/b.h \\\n  with\\ space.h\n"),
            ["a.c", "include/b.h", "with space.h"]
        );
        assert_eq!(dependencies("no colon"), Vec::<String>::new());
    }
}
