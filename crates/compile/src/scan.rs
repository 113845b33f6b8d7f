//! Reading the includes of all units from the texts alone.
//!
//! What is found may be too much but nothing may be missing:
//!
//! - A condition counts only where the configuration alone decides it ([`crate::conditions`]).
//! - A path is looked for as the compiler does, for every list of folders (`-I`) that a unit of the kernel has, and an
//!   edge that one list makes counts for all.
//! - `#include MACRO` can only come to a file whose name is a word of some definition that leads to MACRO, in a folder
//!   that another such definition names. So there are edges to all headers of that name, which need the file with the
//!   first definition to be a part of the unit as well.
//!   (Each tracepoint header defines `TRACE_SYSTEM`, from which include/trace/define_trace.h makes that header's
//!   name, and `TRACE_INCLUDE_PATH` is the folder.)
//! - A path that is not found beside the kernel's own headers may be a file that the build makes later. The unit is
//!   then *open*: it may include anything.

use crate::classify::runs_elsewhere;
use crate::conditions::Facts;
use crate::database::{Database, from_root};
use crate::error::CompileError;
use crate::folders::Folders;
use crate::includes::{Include, Needing, definitions, definitions_of, includes, removals, words};
use crate::macro_paths::{MacroPaths, PathParts, path_part};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// How many units are looked at in one go.
const CHUNK: usize = 400;

/// Reads all that units of `database` may include, in the tree at `tree`.
pub fn walk_all(tree: &Path, database: &Database) -> Result<(Walk, Others), CompileError> {
    let folders = Folders::read(tree)?;
    let autoconf = fs::read_to_string(tree.join(AUTOCONF)).unwrap_or_default();
    let mut facts = Facts::of(&autoconf);
    let arguments = database.units().iter().flat_map(|unit| &unit.arguments);
    facts.unsure = arguments.filter_map(|word| own_fact(word)).collect();
    let mut lists: BTreeMap<(Vec<String>, Vec<String>), Vec<&str>> = BTreeMap::new();
    for unit in database.units() {
        lists.entry(search_path(&unit.arguments)).or_default().push(&unit.source);
    }
    let others = Others::find(tree, &folders, database);
    let usual = lists.iter().max_by_key(|(_, units)| units.len()).map(|(list, _)| list.clone());
    if let Some(units) = usual.and_then(|list| lists.get_mut(&list)) {
        units.extend(others.assembly.iter().chain(&others.constants).map(String::as_str));
    }
    let tasks: Vec<(&[String], Vec<&str>)> = lists
        .iter()
        .flat_map(|((folders, forced), units)| {
            units.chunks(CHUNK).map(move |chunk| {
                let forced = forced.iter().map(String::as_str);
                (folders.as_slice(), chunk.iter().copied().chain(forced).collect())
            })
        })
        .collect();
    let mut scanner = Scanner { tree, folders, facts, memo: RwLock::default() };
    let mut macros = BTreeMap::new();
    loop {
        let walks: Vec<Walk> =
            tasks.par_iter().map(|(folders, roots)| scanner.walk(folders, roots, &macros)).collect();
        let mut all = walks.into_iter().fold(Walk::default(), Walk::with);
        let unsure = scanner.unsure(&all.seen);
        let more = scanner.macro_paths(&all.seen);
        if more == macros && unsure.is_subset(&scanner.facts.unsure) {
            all.definitions = scanner.definitions(&all);
            return Ok((all, others));
        }
        if !unsure.is_subset(&scanner.facts.unsure) {
            scanner.facts.unsure.extend(unsure);
            scanner.memo = RwLock::default();
        }
        macros = more;
    }
}

/// The header made from the configuration.
const AUTOCONF: &str = "include/generated/autoconf.h";

/// A macro of [`Facts`] that a unit's command sets for itself.
fn own_fact(argument: &str) -> Option<String> {
    let definition = argument.strip_prefix("-D").or_else(|| argument.strip_prefix("-U"))?;
    let name = definition.split('=').next().unwrap_or_default();
    (Facts::answers_for(name) && name != "__KERNEL__").then(|| name.to_owned())
}

/// The folders in which a unit's includes are looked for, in their order, and the files that its command includes.
pub fn search_path(arguments: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut folders, mut forced) = (vec![Vec::new(); 4], Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let options =
            [("-iquote", 0), ("-isystem", 2), ("-idirafter", 3), ("-include", 4), ("-imacros", 4), ("-I", 1)];
        let Some((rest, kind)) =
            options.iter().find_map(|(option, kind)| Some((word.strip_prefix(option)?, *kind)))
        else {
            continue;
        };
        let value = if rest.is_empty() { words.next().map_or("", String::as_str) } else { rest };
        let path = if value.starts_with('/') { value.to_owned() } else { from_root("", value) };
        match folders.get_mut(kind) {
            Some(folders) => folders.push(path),
            None => forced.push(path),
        }
    }
    (folders.concat(), forced)
}

/// What depends on headers beside units: it cannot be patched, so it must not change.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// Assembly and linker scripts that the compiler preprocesses.
    pub assembly: Vec<String>,
    /// C sources that are compiled to learn numbers, which the build writes into headers: those that include
    /// include/linux/kbuild.h (Kbuild and scripts/Makefile.lib, `filechk_offsets`).
    pub constants: Vec<String>,
}

impl Others {
    /// Those in folders from which the kernel has units.
    fn find(tree: &Path, folders: &Folders, database: &Database) -> Self {
        let used: BTreeSet<&str> = database.units().iter().map(|unit| folder_of(&unit.source)).collect();
        let mut others = Self::default();
        for folder in used {
            for name in folders.0.get(folder).into_iter().flatten() {
                let path = from_root(folder, name);
                let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
                let is_unit = || !database.units_of(&path).is_empty();
                let is_generator = || {
                    let text = fs::read(tree.join(&path)).unwrap_or_default();
                    memchr::memmem::find(&text, b"linux/kbuild.h").is_some()
                };
                let may_be_generator = name.ends_with("offsets.c") || name == "bounds.c";
                if runs_elsewhere(&path).is_some() {
                    continue;
                }
                match extension {
                    Some("S") => others.assembly.push(path),
                    Some("c") if may_be_generator && !is_unit() && is_generator() => {
                        others.constants.push(path);
                    }
                    _ => {}
                }
            }
        }
        others.assembly.sort_unstable();
        others.constants.sort_unstable();
        others
    }
}

/// Reads each file once.
struct Scanner<'a> {
    tree: &'a Path,
    folders: Folders,
    facts: Facts,
    memo: RwLock<HashMap<String, Arc<[Needing<Include>]>>>,
}

/// What `#include MACRO` may come to, by the names that must be defined for it.
type Macros = BTreeMap<Vec<String>, MacroPaths>;

/// What one list of folders leads to.
#[derive(Default)]
pub struct Walk {
    /// Files and what they may include, with the names that must be defined for it.
    pub edges: HashSet<(String, Needing<String>)>,
    /// All files.
    pub seen: HashSet<String>,
    /// Of the names that some edge needs, which file defines which.
    pub definitions: BTreeSet<(String, Needing<String>)>,
    /// Files with what they include and is not there; with nothing if they are not there themselves.
    missing: HashSet<(String, Needing<String>)>,
}

impl Walk {
    /// The files that may include what is not there yet, and what they need for that. What one list of folders misses
    /// and another has is no file that the build makes: this one is not compiled with the first list.
    pub fn open(&self) -> Vec<(&str, &[String])> {
        let mut missing: HashSet<&(String, Needing<String>)> = self.missing.iter().collect();
        let files: HashSet<&str> = missing.iter().map(|(file, _)| file.as_str()).collect();
        for (file, target) in self.edges.iter().filter(|(file, _)| files.contains(file.as_str())) {
            let is_found = |path: &str| !path.is_empty() && target.what.ends_with(path);
            missing.retain(|(from, path)| from != file || !is_found(&path.what));
        }
        missing.into_iter().map(|(file, path)| (file.as_str(), path.needs.as_slice())).collect()
    }

    fn with(mut self, other: Walk) -> Self {
        self.edges.extend(other.edges);
        self.seen.extend(other.seen);
        self.missing.extend(other.missing);
        self
    }
}

impl Scanner<'_> {
    fn is_file(&self, path: &str) -> bool {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        match self.folders.0.get(folder) {
            Some(files) => files.contains(name),
            // Behind a link to a folder, or outside of the tree.
            None => self.tree.join(path).is_file(),
        }
    }

    fn scan(&self, path: &str) -> Arc<[Needing<Include>]> {
        let known = self.memo.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        known.unwrap_or_else(|| {
            let text = fs::read(self.tree.join(path)).unwrap_or_default();
            let found: Arc<[Needing<Include>]> = includes(&text, &self.facts).into();
            let mut memo = self.memo.write().unwrap_or_else(PoisonError::into_inner);
            memo.entry(path.to_owned()).or_insert(found).clone()
        })
    }

    fn walk(&self, folders: &[String], roots: &[&str], macros: &Macros) -> Walk {
        let mut walk = Walk::default();
        let macros: Vec<(&Vec<String>, &MacroPaths, HashSet<String>)> =
            macros.iter().map(|(needs, paths)| (needs, paths, paths.folders_from(folders))).collect();
        let mut todo: Vec<String> = roots.iter().map(|&root| root.to_owned()).collect();
        walk.seen.extend(todo.iter().cloned());
        while let Some(file) = todo.pop() {
            if !self.is_file(&file) {
                walk.missing.insert((file, Needing { what: String::new(), needs: Vec::new() }));
                continue;
            }
            let Walk { edges, seen, missing, .. } = &mut walk;
            let mut reach = |from: &str, what: String, needs: Vec<String>| {
                if seen.insert(what.clone()) {
                    todo.push(what.clone());
                }
                edges.insert((from.to_owned(), Needing { what, needs }));
            };
            for include in self.scan(&file).iter() {
                let found = self.resolve(&file, &include.what, folders);
                if let (true, Some(path)) = (found.is_empty() && may_be_made(&file), include.what.path()) {
                    let path = Needing { what: path.to_owned(), needs: include.needs.clone() };
                    missing.insert((file.clone(), path));
                }
                for target in found {
                    reach(&file, target, include.needs.clone());
                }
            }
            for (needs, paths, folders) in &macros {
                let targets = paths.headers.get(&file).into_iter().flatten();
                for target in targets.filter(|path| folders.contains(folder_of(path))) {
                    let needs: Vec<String> = needs.iter().cloned().chain([presence_of(&file)]).collect();
                    paths.sites.iter().for_each(|site| reach(site, target.clone(), needs.clone()));
                }
            }
        }
        walk
    }

    /// The files that an include may come to.
    fn resolve(&self, file: &str, include: &Include, folders: &[String]) -> Vec<String> {
        let own = folder_of(file);
        let (path, beside, all) = match include {
            Include::Quoted(path) => (path, Some(own), false),
            Include::Angled(path) => (path, None, false),
            Include::Next(path) => (path, None, true),
            Include::Macro(_) => return Vec::new(),
        };
        let found = beside
            .into_iter()
            .chain(folders.iter().map(String::as_str))
            .map(|folder| from_root(folder, path))
            .filter(|path| self.is_file(path));
        if all { found.collect() } else { found.take(1).collect() }
    }

    /// The known names that a file defines or undefines for itself.
    fn unsure(&self, files: &HashSet<String>) -> HashSet<String> {
        let own = |file: &String| -> Vec<String> {
            let text = fs::read(self.tree.join(file)).unwrap_or_default();
            let names = definitions(&text).map(|(name, _)| name).chain(removals(&text));
            let names = names.filter_map(|name| std::str::from_utf8(name).ok());
            names.filter(|name| Facts::answers_for(name)).map(str::to_owned).collect()
        };
        files.par_iter().filter(|file| *file != AUTOCONF).flat_map_iter(own).collect()
    }

    /// Which files define the names that edges need.
    fn definitions(&self, walk: &Walk) -> BTreeSet<(String, Needing<String>)> {
        // Definitions may need names themselves, which only matters for names that are asked for.
        let mut names: HashSet<String> =
            walk.edges.iter().chain(&walk.missing).flat_map(|(_, target)| &target.needs).cloned().collect();
        loop {
            let in_file = |file: &String| -> Vec<(String, Needing<String>)> {
                let text = fs::read(self.tree.join(file)).unwrap_or_default();
                let found = definitions_of(&text, &names, &self.facts);
                found.into_iter().map(|definition| (file.clone(), definition)).collect()
            };
            let mut found: BTreeSet<_> = walk.seen.par_iter().flat_map_iter(in_file).collect();
            found.extend(names.iter().filter_map(|name| {
                let file = present_file(name)?.to_owned();
                Some((file, Needing { what: name.clone(), needs: Vec::new() }))
            }));
            let known = names.len();
            names.extend(found.iter().flat_map(|(_, definition)| &definition.needs).cloned());
            if names.len() == known {
                return found;
            }
        }
    }

    /// What each `#include MACRO` may come to.
    fn macro_paths(&self, files: &HashSet<String>) -> Macros {
        let mut paths: BTreeMap<Vec<String>, (MacroPaths, HashSet<Vec<u8>>)> = BTreeMap::new();
        for (file, includes) in self.memo.read().unwrap_or_else(PoisonError::into_inner).iter() {
            for include in includes.iter() {
                if let Include::Macro(text) = &include.what {
                    let (paths, names) = paths.entry(include.needs.clone()).or_default();
                    paths.sites.insert(file.clone());
                    names.extend(words(text.as_bytes()).map(<[u8]>::to_vec));
                }
            }
        }
        if paths.is_empty() {
            return Macros::new();
        }
        let headers = self.folders.headers();
        let all = self.path_parts(files);
        let complete = |(needs, (paths, names))| (needs, all.complete(paths, names, &headers));
        paths.into_iter().map(complete).collect()
    }

    /// The definitions in all files that may be parts of paths.
    fn path_parts(&self, files: &HashSet<String>) -> PathParts {
        let of = |file: &String| -> Vec<(Vec<u8>, String, Vec<u8>)> {
            let text = fs::read(self.tree.join(file)).unwrap_or_default();
            let parts = definitions(&text)
                .filter_map(|(name, body)| Some((name.to_vec(), file.clone(), path_part(body)?)));
            parts.collect()
        };
        let mut parts = PathParts::default();
        for (name, file, body) in files.par_iter().flat_map_iter(of).collect::<Vec<_>>() {
            parts.0.entry(name).or_default().push((file, body));
        }
        parts
    }
}

/// A name that no macro has, for edges that need another file to be a part of the unit.
fn presence_of(file: &str) -> String {
    format!("file {file}")
}

fn present_file(name: &str) -> Option<&str> {
    name.strip_prefix("file ")
}

pub fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Whether what `file` includes may be made by the build: the kernel's own headers include none but those that were
/// made with the configuration.
fn may_be_made(file: &str) -> bool {
    !file.starts_with("include/") && !file.starts_with("arch/x86/include/")
}
