//! A program of this machine and all that it needs to run in a guest.

use crate::error::VmError;
use object::elf::{self, FileHeader64};
use object::endian::LittleEndian;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the dynamic linkers of the distributions look (ld.so(8)), Debian's folders first.
const LIBRARY_FOLDERS: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
/// No program that goes into a guest needs more libraries than this.
const MOST_LIBRARIES: usize = 256;

/// A program with what it needs.
pub(crate) struct Program {
    /// The program itself.
    pub contents: Vec<u8>,
    /// Path in the guest and contents of the dynamic linker; `None` for a static program.
    pub interpreter: Option<(String, Vec<u8>)>,
    /// Shared libraries by the name they are asked for.
    pub libraries: BTreeMap<String, Vec<u8>>,
}

/// What the dynamic section of one ELF file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    interpreter: Option<String>,
    libraries: Vec<String>,
    run_paths: Vec<String>,
}

/// Reads a program, its dynamic linker and its libraries, and theirs.
pub(crate) fn read_program(path: &Path) -> Result<Program, VmError> {
    let contents = fs::read(path).map_err(VmError::io(path))?;
    let needs = needs_of(path, &contents)?;
    let mut interpreter = None;
    if let Some(guest) = &needs.interpreter {
        let host = Path::new(guest);
        interpreter = Some((guest.clone(), fs::read(host).map_err(VmError::io(host))?));
    }
    let mut libraries = BTreeMap::new();
    let mut queue: VecDeque<(String, Vec<PathBuf>)> = asked(path, needs);
    while let Some((name, folders)) = queue.pop_front() {
        if libraries.contains_key(&name) {
            continue;
        }
        if libraries.len() == MOST_LIBRARIES {
            return Err(refused(path, format!("it needs more than {MOST_LIBRARIES} shared libraries")));
        }
        let found = find_library(&name, &folders)
            .ok_or_else(|| refused(path, format!("its shared library {name} is not found")))?;
        let library = fs::read(&found).map_err(VmError::io(&found))?;
        let needs = needs_of(&found, &library)?;
        queue.extend(asked(&found, needs));
        libraries.insert(name, library);
    }
    Ok(Program { contents, interpreter, libraries })
}

fn refused(path: &Path, why: String) -> VmError {
    VmError::Program { path: path.to_owned(), why }
}

/// The libraries that a file asks for, each with the folders that the file itself names.
fn asked(path: &Path, needs: Needs) -> VecDeque<(String, Vec<PathBuf>)> {
    let origin = path.parent().unwrap_or(Path::new("/")).display().to_string();
    let expand = |folder: &String| PathBuf::from(folder.replace("$ORIGIN", &origin));
    let folders: Vec<PathBuf> = needs.run_paths.iter().map(expand).collect();
    needs.libraries.into_iter().map(|name| (name, folders.clone())).collect()
}

fn find_library(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let standard = LIBRARY_FOLDERS.iter().map(PathBuf::from);
    let mut candidates = folders.iter().cloned().chain(standard).chain(configured_folders());
    candidates.by_ref().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The folders in the linker's configuration (ldconfig(8)).
fn configured_folders() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/ld.so.conf.d")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    files.insert(0, PathBuf::from("/etc/ld.so.conf"));
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts
        .flat_map(|text| text.lines().map(str::trim).map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| line.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn needs_of(path: &Path, bytes: &[u8]) -> Result<Needs, VmError> {
    read_needs(bytes).map_err(|error| refused(path, format!("not an x86-64 ELF program: {error}")))
}

fn read_needs(bytes: &[u8]) -> object::read::Result<Needs> {
    let header = FileHeader64::<LittleEndian>::parse(bytes)?;
    let endian = LittleEndian;
    let mut needs = Needs::default();
    for segment in header.program_headers(endian, bytes)? {
        if let Some(interpreter) = segment.interpreter(endian, bytes)? {
            needs.interpreter = Some(text(interpreter));
        }
    }
    let sections = header.sections(endian, bytes)?;
    let Some((entries, link)) = sections.dynamic(endian, bytes)? else {
        return Ok(needs);
    };
    let strings = sections.strings(endian, bytes, link)?;
    for entry in entries {
        let tag = entry.d_tag(endian);
        if tag == elf::DT_NEEDED {
            needs.libraries.push(text(entry.string(endian, strings)?));
        } else if tag == elf::DT_RUNPATH || tag == elf::DT_RPATH {
            let folders = text(entry.string(endian, strings)?);
            needs.run_paths.extend(folders.split(':').map(str::to_owned));
        }
    }
    Ok(needs)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_itself_can_be_taken_along() {
        let program = read_program(&std::env::current_exe().unwrap()).unwrap();
        let (linker, contents) = program.interpreter.unwrap();
        assert!(linker.starts_with('/') && contents.starts_with(b"\x7fELF"), "{linker}");
        assert!(program.libraries.keys().any(|name| name.starts_with("libc.so")));
    }

    #[test]
    fn a_script_is_refused() {
        let needs = read_needs(b"#!/bin/sh\nexit 0\n");
        assert!(needs.is_err());
    }

    #[test]
    fn the_origin_is_the_folder_of_the_file() {
        let needs = Needs {
            libraries: vec!["libx.so".into()],
            run_paths: vec!["$ORIGIN/lib".into()],
            ..Needs::default()
        };
        let asked = asked(Path::new("/opt/x/bin"), needs);
        assert_eq!(asked, [("libx.so".to_owned(), vec![PathBuf::from("/opt/x/lib")])]);
    }
}
