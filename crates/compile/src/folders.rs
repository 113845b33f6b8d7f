//! Which files a tree has.

use crate::database::from_root;
use crate::error::{CompileError, io_error};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The names of all files, by folder.
pub struct Folders(pub HashMap<String, HashSet<String>>);

/// What lies at the root and holds nothing that a unit includes, beside links to other architectures.
const PASSED_OVER: &[&str] = &["Documentation", "LICENSES", "samples"];

impl Folders {
    /// Reads the tree at `tree`.
    pub fn read(tree: &Path) -> Result<Self, CompileError> {
        let found = Mutex::new(HashMap::new());
        read_folder(tree, String::new(), &found)?;
        Ok(Self(found.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The headers by their names without `.h`.
    pub fn headers(&self) -> HashMap<&[u8], Vec<String>> {
        let mut headers: HashMap<&[u8], Vec<String>> = HashMap::new();
        for (folder, files) in &self.0 {
            for file in files {
                if let Some(name) = file.strip_suffix(".h") {
                    headers.entry(name.as_bytes()).or_default().push(from_root(folder, file));
                }
            }
        }
        headers
    }
}

fn read_folder(
    tree: &Path,
    folder: String,
    found: &Mutex<HashMap<String, HashSet<String>>>,
) -> Result<(), CompileError> {
    let path = tree.join(&folder);
    let (mut files, mut folders) = (HashSet::new(), Vec::new());
    for entry in fs::read_dir(&path).map_err(io_error("read", &path))? {
        let entry = entry.map_err(io_error("read", &path))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = entry.file_type().map_err(io_error("read", &path))?;
        let is_folder = kind.is_dir() || (kind.is_symlink() && folder == "tools" && entry.path().is_dir());
        if !is_folder {
            files.insert(name);
        } else if !PASSED_OVER.contains(&name.as_str()) {
            folders.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
        }
    }
    found.lock().unwrap_or_else(PoisonError::into_inner).insert(folder, files);
    folders.into_par_iter().try_for_each(|folder| read_folder(tree, folder, found))
}
