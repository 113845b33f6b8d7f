//! Which units of a kernel may include which files: made once per kernel.
//!
//! The graph tells which units a patch to a header may reach, and nothing else: the compiler is then asked about
//! each of these. So it may hold too much but must miss nothing; how, is told in [`crate::scan`].

use crate::database::{Database, Unit};
use crate::error::{CompileError, io_error};
use crate::prepare::{Prepared, hold};
use crate::scan::{Others, search_path, walk_all};
use crate::target::{Progress, Target};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Changes with what is found and how it is kept.
const FORMAT: &str = "kmend-includes-3";

/// The include graph of a kernel.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// All files that units may include, and the units' sources, in order; by path from the tree's root.
    files: Vec<String>,
    /// For each file, those that it may include.
    edges: Vec<Vec<u32>>,
    /// Files that may include what is not there yet.
    open: Vec<u32>,
    /// Files that are no units and become part of the kernel all the same.
    others: Others,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    /// What the tree was made from, and [`FORMAT`].
    fingerprint: String,
    /// Tells sizes and times of all files.
    stamps: String,
    graph: Graph,
}

/// A kernel's sources that some unit may include, though each may be a unit of its own.
pub fn included_sources(
    prepared: &Prepared,
    target: &Target,
    progress: Progress<'_>,
) -> Result<BTreeSet<String>, CompileError> {
    let path = target.derived.join("included-sources.json");
    let kept: Option<(String, BTreeSet<String>)> =
        fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let fingerprint = fingerprint(prepared);
    if let Some((_, sources)) = kept.filter(|(of, _)| *of == fingerprint) {
        return Ok(sources);
    }
    let graph = Graph::of(prepared, target, progress)?;
    let is_source = |path: &&String| Path::new(path).extension().is_some_and(|extension| extension == "c");
    let included: BTreeSet<u32> = graph.edges.iter().flatten().copied().collect();
    let sources =
        included.iter().filter_map(|at| graph.files.get(*at as usize)).filter(is_source).cloned().collect();
    write(&path, &(fingerprint, &sources))?;
    Ok(sources)
}

fn fingerprint(prepared: &Prepared) -> String {
    format!("{FORMAT} {}", prepared.fingerprint)
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), CompileError> {
    let bytes =
        serde_json::to_vec(value).map_err(|error| CompileError::Database { why: error.to_string() })?;
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).map_err(io_error("write", &partial))?;
    fs::rename(&partial, path).map_err(io_error("write", path))
}

impl Graph {
    /// The kernel's graph: kept, or made when it is missing or a file was edited since.
    pub fn of(prepared: &Prepared, target: &Target, progress: Progress<'_>) -> Result<Self, CompileError> {
        let path = target.derived.join("includes.json");
        let _held = hold(&target.derived.join("includes.lock"))?;
        let fingerprint = fingerprint(prepared);
        let stored: Option<Stored> =
            fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(stored) = stored
            && stored.fingerprint == fingerprint
            && stored.stamps == stored.graph.stamps(&prepared.tree)
            && stored.graph.is_sound()
        {
            return Ok(stored.graph);
        }
        progress("reading what each unit may include");
        let graph = Self::build(&prepared.tree, &prepared.database)?;
        let stored = Stored { fingerprint, stamps: graph.stamps(&prepared.tree), graph };
        write(&path, &stored)?;
        Ok(stored.graph)
    }

    /// Reads all that units of `database` may include, in the tree at `tree`.
    pub fn build(tree: &Path, database: &Database) -> Result<Self, CompileError> {
        let (walk, others) = walk_all(tree, database)?;
        let mut files: Vec<String> = walk.seen.iter().cloned().collect();
        files.sort_unstable();
        let number: HashMap<&str, u32> = files.iter().map(String::as_str).zip(0..).collect();
        let mut edges = vec![Vec::new(); files.len()];
        for (from, to) in &walk.edges {
            if let (Some(from), Some(to)) = (number.get(from.as_str()), number.get(to.as_str())) {
                edges[*from as usize].push(*to);
            }
        }
        for edges in &mut edges {
            edges.sort_unstable();
        }
        let mut open: Vec<u32> = walk.open().iter().filter_map(|file| number.get(file).copied()).collect();
        open.sort_unstable();
        Ok(Self { files, edges, open, others })
    }

    /// A damaged file must not lead out of range.
    fn is_sound(&self) -> bool {
        let count = self.files.len();
        self.edges.len() == count
            && self.edges.iter().flatten().chain(&self.open).all(|&number| (number as usize) < count)
            && self.files.is_sorted()
    }

    /// Tells sizes and times of all files, so that an edit is seen.
    fn stamps(&self, tree: &Path) -> String {
        let stamp = |file: &String| {
            let found = fs::metadata(tree.join(file)).ok();
            found.map(|found| (found.len(), found.mtime(), found.mtime_nsec())).unwrap_or_default()
        };
        let stamps: Vec<(u64, i64, i64)> = self.files.par_iter().map(stamp).collect();
        let mut hasher = blake3::Hasher::new();
        for (size, seconds, nanoseconds) in stamps {
            hasher
                .update(&size.to_le_bytes())
                .update(&seconds.to_le_bytes())
                .update(&nanoseconds.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    fn number(&self, path: &str) -> Option<u32> {
        self.files.binary_search_by(|file| file.as_str().cmp(path)).ok().map(|at| at as u32)
    }

    /// Whether some file may include this one.
    pub fn is_included(&self, path: &str) -> bool {
        self.number(path)
            .is_some_and(|number| self.edges.iter().any(|edges| edges.binary_search(&number).is_ok()))
    }

    /// The files of these names, wherever they lie.
    pub fn named<'a>(&'a self, names: &'a BTreeSet<String>) -> impl Iterator<Item = &'a str> {
        let is_named = |file: &&str| names.contains(file.rsplit('/').next().unwrap_or(file));
        self.files.iter().map(String::as_str).filter(move |file| is_named(file))
    }

    /// The units that may include one of `files`; with `open`, also those of which it is not known.
    pub fn units<'a>(&self, database: &'a Database, files: &BTreeSet<String>, open: bool) -> Vec<&'a Unit> {
        let reached = self.reached(files, open);
        let is_reached = |path: &str| self.number(path).is_some_and(|number| reached.contains(&number));
        let is_candidate = |unit: &&Unit| {
            is_reached(&unit.source) || search_path(&unit.arguments).1.iter().any(|file| is_reached(file))
        };
        database.units().iter().filter(is_candidate).collect()
    }

    /// The files beside units that may include one of `files`.
    pub fn others(&self, files: &BTreeSet<String>) -> Others {
        let reached = self.reached(files, false);
        let of = |paths: &[String]| {
            let is_reached =
                |path: &&String| self.number(path).is_some_and(|number| reached.contains(&number));
            paths.iter().filter(is_reached).cloned().collect()
        };
        Others { assembly: of(&self.others.assembly), constants: of(&self.others.constants) }
    }

    fn reached(&self, files: &BTreeSet<String>, open: bool) -> HashSet<u32> {
        let mut includers = vec![Vec::new(); self.files.len()];
        for (from, targets) in (0u32..).zip(&self.edges) {
            for target in targets {
                includers[*target as usize].push(from);
            }
        }
        let mut todo: Vec<u32> = files.iter().filter_map(|file| self.number(file)).collect();
        if open {
            todo.extend(&self.open);
        }
        let mut reached: HashSet<u32> = todo.iter().copied().collect();
        while let Some(file) = todo.pop() {
            todo.extend(includers[file as usize].iter().filter(|&&includer| reached.insert(includer)));
        }
        reached
    }
}
