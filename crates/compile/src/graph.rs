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
const FORMAT: &str = "kmend-includes-5";

/// Stands among the files for all that are not there yet: units that may include it may include anything.
const ABSENT: &str = "?";

/// The include graph of a kernel.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// All files that units may include, and the units' sources, in order; by path from the tree's root.
    files: Vec<String>,
    /// For each file, those that it may include whatever is defined.
    edges: Vec<Vec<u32>>,
    /// Names of macros that other edges need.
    names: Vec<String>,
    /// What files may include only where names are defined; in order of the files.
    conditional: Vec<Rule>,
    /// Which files define these names; in order of the files.
    definitions: Vec<Rule>,
    /// Files that are no units and become part of the kernel all the same.
    others: Others,
}

/// What a file includes, or the name that it defines, if all of some names are defined.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Rule {
    file: u32,
    what: u32,
    needs: Vec<u32>,
}

/// The rules of a file.
fn of_file(rules: &[Rule], file: u32) -> &[Rule] {
    let from = rules.partition_point(|rule| rule.file < file);
    let rest = rules.get(from..).unwrap_or_default();
    rest.get(..rest.partition_point(|rule| rule.file == file)).unwrap_or_default()
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
    let always = graph.edges.iter().flatten().copied();
    let included: BTreeSet<u32> = always.chain(graph.conditional.iter().map(|rule| rule.what)).collect();
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
        let mut files: Vec<String> = walk.seen.iter().cloned().chain([ABSENT.to_owned()]).collect();
        files.sort_unstable();
        let number: HashMap<&str, u32> = files.iter().map(String::as_str).zip(0..).collect();
        let needed = walk.edges.iter().flat_map(|(_, target)| &target.needs);
        let open = walk.open();
        let needed = needed.chain(open.iter().flat_map(|(_, needs)| *needs));
        let needed = needed.chain(walk.definitions.iter().flat_map(|(_, name)| &name.needs));
        let names: BTreeSet<&str> = needed.map(String::as_str).collect();
        let name_number: HashMap<&str, u32> = names.iter().copied().zip(0..).collect();
        let rule = |file: &str, what: Option<&u32>, needs: &[String]| -> Option<Rule> {
            let needs = needs.iter().filter_map(|name| name_number.get(name.as_str()).copied()).collect();
            Some(Rule { file: *number.get(file)?, what: *what?, needs })
        };
        let (mut edges, mut conditional) = (vec![Vec::new(); files.len()], Vec::new());
        let found =
            walk.edges.iter().map(|(from, to)| (from.as_str(), to.what.as_str(), to.needs.as_slice()));
        let absent = open.iter().map(|&(from, needs)| (from, ABSENT, needs));
        for (from, to, needs) in found.chain(absent) {
            match rule(from, number.get(to), needs) {
                Some(rule) if rule.needs.is_empty() => edges[rule.file as usize].push(rule.what),
                rule => conditional.extend(rule),
            }
        }
        for edges in &mut edges {
            edges.sort_unstable();
        }
        conditional.sort_unstable();
        let defined = walk.definitions.iter();
        let mut definitions: Vec<Rule> = defined
            .filter_map(|(file, name)| rule(file, name_number.get(name.what.as_str()), &name.needs))
            .collect();
        definitions.sort_unstable();
        let names = names.into_iter().map(str::to_owned).collect();
        Ok(Self { files, edges, names, conditional, definitions, others })
    }

    /// A damaged file must not lead out of range.
    fn is_sound(&self) -> bool {
        let count = self.files.len();
        let is_rule = |rule: &Rule, whats: usize| {
            (rule.file as usize) < count
                && (rule.what as usize) < whats
                && rule.needs.iter().all(|&name| (name as usize) < self.names.len())
        };
        self.edges.len() == count
            && self.edges.iter().flatten().all(|&number| (number as usize) < count)
            && self.conditional.iter().all(|rule| is_rule(rule, count))
            && self.definitions.iter().all(|rule| is_rule(rule, self.names.len()))
            && self.files.is_sorted()
            && self.conditional.is_sorted()
            && self.definitions.is_sorted()
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

    /// All files that units may include, and the units' sources.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str).filter(|file| *file != ABSENT)
    }

    /// Whether some file may include this one.
    pub fn is_included(&self, path: &str) -> bool {
        self.number(path).is_some_and(|number| {
            self.edges.iter().any(|edges| edges.binary_search(&number).is_ok())
                || self.conditional.iter().any(|rule| rule.what == number)
        })
    }

    /// The files of these names, wherever they lie.
    pub fn named<'a>(&'a self, names: &'a BTreeSet<String>) -> impl Iterator<Item = &'a str> {
        let is_named = |file: &&str| names.contains(file.rsplit('/').next().unwrap_or(file));
        self.files.iter().map(String::as_str).filter(move |file| is_named(file))
    }

    /// The units that may include one of `files`; with `open`, also those of which it is not known.
    pub fn units<'a>(&self, database: &'a Database, files: &BTreeSet<String>, open: bool) -> Vec<&'a Unit> {
        let wanted = self.wanted(files, open);
        let reached = self.reached(&wanted);
        let may_include = |unit: &&Unit| {
            let (_, forced) = search_path(&unit.arguments);
            let files = std::iter::once(&unit.source).chain(&forced);
            let roots: Vec<u32> = files.filter_map(|file| self.number(file)).collect();
            roots.iter().any(|root| reached.contains(root))
                && self.leads_to(roots, &defined_names(&unit.arguments), &wanted)
        };
        database.units().par_iter().filter(may_include).collect()
    }

    fn wanted(&self, files: &BTreeSet<String>, open: bool) -> HashSet<u32> {
        let open = open.then_some(ABSENT);
        files.iter().map(String::as_str).chain(open).filter_map(|file| self.number(file)).collect()
    }

    /// Whether one of `wanted` may be included from `todo`, where nothing is defined but `given` and what the files on the
    /// way define.
    fn leads_to(&self, mut todo: Vec<u32>, given: &BTreeSet<&str>, wanted: &HashSet<u32>) -> bool {
        let mut is_defined: Vec<bool> = self.names.iter().map(|name| given.contains(name.as_str())).collect();
        let mut is_seen = vec![false; self.files.len()];
        let (mut edges, mut definitions): (Vec<&Rule>, Vec<&Rule>) = (Vec::new(), Vec::new());
        loop {
            while let Some(file) = todo.pop() {
                if std::mem::replace(&mut is_seen[file as usize], true) {
                    continue;
                }
                if wanted.contains(&file) {
                    return true;
                }
                todo.extend(&self.edges[file as usize]);
                edges.extend(of_file(&self.conditional, file));
                definitions.extend(of_file(&self.definitions, file));
            }
            // Each round defines at least one name more, or goes to a file.
            let holds =
                |rule: &Rule, is_defined: &[bool]| rule.needs.iter().all(|&name| is_defined[name as usize]);
            let mut is_more = false;
            definitions.retain(|rule| {
                let holds = holds(rule, &is_defined);
                is_more |= holds && !std::mem::replace(&mut is_defined[rule.what as usize], true);
                !holds
            });
            edges.retain(|rule| {
                let holds = holds(rule, &is_defined);
                todo.extend(holds.then_some(rule.what));
                !holds
            });
            if todo.is_empty() && !is_more {
                return false;
            }
        }
    }

    /// The files beside units that may include one of `files`.
    pub fn others(&self, files: &BTreeSet<String>) -> Others {
        let reached = self.reached(&self.wanted(files, false));
        let of = |paths: &[String]| {
            let is_reached =
                |path: &&String| self.number(path).is_some_and(|number| reached.contains(&number));
            paths.iter().filter(is_reached).cloned().collect()
        };
        Others { assembly: of(&self.others.assembly), constants: of(&self.others.constants) }
    }

    /// All files from which some edges lead to `files`.
    fn reached(&self, files: &HashSet<u32>) -> HashSet<u32> {
        let mut includers = vec![Vec::new(); self.files.len()];
        for (from, targets) in (0u32..).zip(&self.edges) {
            for target in targets {
                includers[*target as usize].push(from);
            }
        }
        for rule in &self.conditional {
            includers[rule.what as usize].push(rule.file);
        }
        let mut todo: Vec<u32> = files.iter().copied().collect();
        let mut reached = files.clone();
        while let Some(file) = todo.pop() {
            todo.extend(includers[file as usize].iter().filter(|&&includer| reached.insert(includer)));
        }
        reached
    }
}

/// The names that a command defines.
fn defined_names(arguments: &[String]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let Some(definition) = word.strip_prefix("-D") else { continue };
        let definition =
            if definition.is_empty() { words.next().map_or("", String::as_str) } else { definition };
        names.extend(definition.split(['=', '(']).next());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[(&str, &str)] = &[
        ("u/always.c", "#include <plain.h>\n#ifndef X\n#include <seed.h>\n#endif\n"),
        ("u/creates.c", "#define CREATE\n#include \"event.h\"\n"),
        ("u/asks.c", "#include \"event.h\"\n"),
        ("u/given.c", "#include \"event.h\"\n"),
        ("u/other.c", "#define CREATE\n#include <define.h>\n"),
        ("u/undecided.c", "#include \"made-later.h\"\n"),
        ("u/event.h", "#define SYSTEM seed\n#include <define.h>\n"),
        ("include/plain.h", "#if defined(NEVER) && __GNUC__ > 4\n#include <seed.h>\n#endif\n"),
        ("include/define.h", "#ifdef CREATE\n#undef CREATE\n#include <site.h>\n#define CREATE\n#endif\n"),
        ("include/site.h", "#define FILE_OF(x) <x.h>\n#include FILE_OF(SYSTEM)\n"),
        ("include/seed.h", "int f(void);\n"),
    ];

    fn graph() -> (tempfile::TempDir, Database, Graph) {
        let tree = tempfile::tempdir().unwrap();
        let mut log = Vec::new();
        for (path, text) in FILES {
            let file = tree.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
            if let Some(stem) = path.strip_suffix(".c") {
                let own = if path.contains("given") { "-DCREATE=1" } else { "" };
                let command = format!("gcc -D__KERNEL__ {own} -Iinclude -c -o {stem}.o {path}");
                log.push(format!("scripts/basic/fixdep d {stem}.o '{command}' > x\n"));
            }
        }
        let database = Database::from_dry_run(log.concat().as_bytes()).unwrap();
        let graph = Graph::build(tree.path(), &database).unwrap();
        (tree, database, graph)
    }

    #[test]
    fn units_are_those_that_may_come_to_the_file() {
        let (_tree, database, graph) = graph();
        assert!(graph.is_sound());
        let units = |open| {
            let found = graph.units(&database, &BTreeSet::from(["include/seed.h".to_owned()]), open);
            found.into_iter().map(|unit| unit.source.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(units(false), ["u/always.c", "u/creates.c", "u/given.c"]);
        assert_eq!(units(true), ["u/always.c", "u/creates.c", "u/given.c", "u/undecided.c"]);
        assert!(graph.is_included("include/seed.h") && !graph.is_included("u/asks.c"));
    }

    #[test]
    fn a_damaged_graph_is_not_sound() {
        let (_tree, _, graph) = graph();
        let text = serde_json::to_string(&graph).unwrap();
        let count = graph.files.len();
        let damaged = |what: &dyn Fn(&mut Graph)| {
            let mut graph: Graph = serde_json::from_str(&text).unwrap();
            what(&mut graph);
            !graph.is_sound()
        };
        assert!(damaged(&|graph| graph.edges[0].push(count as u32)));
        assert!(damaged(&|graph| drop(graph.edges.pop())));
        assert!(damaged(&|graph| graph.files.swap(0, 1)));
        assert!(damaged(&|graph| graph.conditional[0].needs[0] = 999));
        assert!(damaged(&|graph| graph.definitions[0].what = 999));
        assert!(damaged(&|graph| graph.conditional[0].file = 999));
    }

    #[test]
    fn a_command_defines_names() {
        let words = ["-DA=1", "-D", "B", "-DC(x)=x", "-D"].map(str::to_owned);
        assert_eq!(defined_names(&words), BTreeSet::from(["", "A", "B", "C"]));
    }
}
