//! From patches to objects: the crate's one entry.

use crate::author;
use crate::cache::{Entry, Original};
use crate::classify::runs_elsewhere;
use crate::database::Unit;
use crate::edits::{Edits, edit};
use crate::error::{CompileError, Failure, io_error};
use crate::lines::{numbered, with_line_numbers};
use crate::patch::PatchFile;
use crate::prepare::Prepared;
use crate::shadow::Shadow;
use crate::target::{Progress, Target};
use crate::touched::touched_functions;
use crate::unit::{self, Assembly, Compiled};
use kmend_refusal::{Code, Refusal};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};
use std::{fs, io};

/// Something worth telling that is no reason to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The file it is about, from the tree's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// One sentence.
    pub text: String,
}

/// How long the parts of a unit's way took. Parts of several units run at the same time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// The compile of the original, and its two assemblies; zero if it was cached.
    pub original: Duration,
    /// The compile of the patched source, and its assembly.
    pub patched: Duration,
}

/// A unit's objects.
#[derive(Debug, Clone)]
pub struct CompiledUnit {
    /// The unit.
    pub unit: Unit,
    /// The original as the kernel's build makes it, without objtool and debug information; empty for a new
    /// file.
    pub plain: Vec<u8>,
    /// The original with a section for every function and datum, and with debug information (DWARF 5: types and
    /// lines, not where variables live); empty for a new file.
    pub original: Vec<u8>,
    /// The patched source likewise; `None` if the patch removes the file.
    pub patched: Option<Vec<u8>>,
    /// Whether the patch adds the file.
    pub new_file: bool,
    /// Whether the original's objects were kept from an earlier build.
    pub original_was_cached: bool,
    /// How long it took.
    pub times: Times,
}

/// What the patches come to in this kernel.
#[derive(Debug)]
pub struct Outcome {
    /// The objects of every unit that the patches reach, in the order of their sources.
    pub units: Vec<CompiledUnit>,
    /// The functions whose source the patches touch, by their names there. A hint that explains: a function that
    /// changed and is not among them changed because of one that is.
    pub touched: BTreeSet<String>,
    /// The lines of the patched files by their paths, each with the number that the compiler has for it. Where a patch
    /// adds lines, more than one has the same.
    pub lines: BTreeMap<String, Vec<(u32, Vec<u8>)>>,
    /// What is worth telling.
    pub notes: Vec<Note>,
}

/// Applies `patches` in their order and compiles every unit they reach, original and patched.
///
/// `scratch` is a folder for temporary files; nothing is left in it. All reasons to decline are found, not
/// the first: all hunks that do not apply, or, when all do, all units that do not compile.
pub fn patch_and_compile(
    target: &Target,
    prepared: &Prepared,
    patches: &[PatchFile],
    scratch: &Path,
    progress: Progress<'_>,
) -> Result<Outcome, Failure> {
    let mut edits = edit(patches, &|path| read_file(&prepared.tree, path))
        .map_err(|source| CompileError::Io { doing: "read", path: prepared.tree.clone(), source })?;
    edits.files.retain(|_, file| file.lines.as_ref().map(|lines| joined(lines)) != file.original);
    let units = units_of(&mut edits, prepared)?;
    if edits.refusals.is_empty() && units.is_empty() {
        let why = "no file that the patch changes is part of a kernel";
        let subject = patches.iter().map(|patch| patch.name.as_str()).collect::<Vec<_>>().join(", ");
        edits.refusals.push(Refusal::new(Code::NothingChanges, subject, why));
    }
    if !edits.refusals.is_empty() {
        return Err(Failure::Refused { refusals: edits.refusals });
    }
    fs::create_dir_all(scratch).map_err(io_error("create", scratch))?;
    let work = tempfile::Builder::new()
        .prefix("compile-")
        .tempdir_in(scratch)
        .map_err(io_error("create", scratch))?;
    progress(&format!("compiling {} unit{}", units.len(), if units.len() == 1 { "" } else { "s" }));
    let files = edits
        .files
        .iter()
        .map(|(path, file)| (PathBuf::from(path), file.lines.as_deref().map(with_line_numbers)));
    let sources: Vec<&str> = units.iter().map(|unit| unit.named.as_str()).collect();
    let shadow = Shadow::create(&prepared.tree, &work.path().join("shadow"), files.collect(), &sources)?;
    let compile = Compile { target, prepared, edits: &edits, shadow: RwLock::new(shadow), work: work.path() };
    let compiled: Result<Vec<_>, CompileError> =
        units.par_iter().enumerate().map(|(number, unit)| compile.unit(number, unit)).collect();
    let (mut done, mut refusals) = (Vec::new(), Vec::new());
    for result in compiled? {
        match result {
            Ok(unit) => done.extend(unit),
            Err(more) => refusals.extend(more),
        }
    }
    if refusals.is_empty() {
        let lines = edits.files.values().filter_map(|file| file.lines.as_deref());
        let touched = lines.flat_map(touched_functions).collect();
        Ok(Outcome { units: done, touched, lines: compiled_lines(&edits), notes: edits.notes })
    } else {
        Err(Failure::Refused { refusals })
    }
}

fn compiled_lines(edits: &Edits) -> BTreeMap<String, Vec<(u32, Vec<u8>)>> {
    let numbered = |lines: &[crate::apply::Line]| {
        let numbers = numbered(lines).1;
        numbers.into_iter().zip(lines.iter().map(|line| line.bytes.clone())).collect()
    };
    let files = edits.files.iter();
    files.filter_map(|(path, file)| Some((path.clone(), numbered(file.lines.as_deref()?)))).collect()
}

fn joined(lines: &[crate::apply::Line]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.bytes.iter().copied()).collect()
}

pub(crate) fn read_file(tree: &Path, path: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(tree.join(path)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        // A patch can name a folder.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(None),
        Err(error) => Err(error),
    }
}

/// The units to compile. A source that is not compiled itself may be included by one that is
/// (kernel/sched/build_policy.c includes kernel/sched/rt.c); if not, that is a refusal.
fn units_of(edits: &mut Edits, prepared: &Prepared) -> Result<Vec<Unit>, CompileError> {
    let mut units = BTreeMap::new();
    for (path, file) in &edits.files {
        if Path::new(path).extension().is_none_or(|extension| extension != "c") {
            continue;
        }
        let mut found = prepared.database.units_of(path).to_vec();
        if found.is_empty() {
            found = includers(path, prepared)?;
        }
        // The same source can also be a part of the EFI stub or of purgatory, which are not mended.
        let (live, elsewhere): (Vec<Unit>, Vec<Unit>) =
            found.into_iter().partition(|unit| runs_elsewhere(&unit.object).is_none());
        found = live;
        edits.notes.extend(elsewhere.into_iter().map(|unit| Note {
            file: Some(path.clone()),
            text: format!("it is also part of {}, which cannot be patched live", unit.object),
        }));
        if found.is_empty() && file.original.is_some() {
            let why = "this kernel's build compiles no object from it";
            edits.refusals.push(Refusal::new(Code::NotInKernel, path, why).at(path, None));
        }
        units.extend(found.into_iter().map(|unit| (unit.object.clone(), unit)));
    }
    Ok(units.into_values().collect())
}

/// The units whose own text includes a file of this name. Whether it is this one, the compiler will tell.
fn includers(path: &str, prepared: &Prepared) -> Result<Vec<Unit>, CompileError> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let includes = |unit: &&Unit| -> Result<bool, CompileError> {
        let text =
            read_file(&prepared.tree, &unit.source).map_err(io_error("read", Path::new(&unit.source)))?;
        let text = text.unwrap_or_default();
        Ok(text.split(|&byte| byte == b'\n').any(|line| included(line) == Some(name.as_bytes())))
    };
    let found: Result<Vec<Option<Unit>>, CompileError> =
        prepared.database.units().par_iter().map(|unit| Ok(includes(&unit)?.then(|| unit.clone()))).collect();
    Ok(found?.into_iter().flatten().collect())
}

/// The last component of the path in an `#include` line.
fn included(line: &[u8]) -> Option<&[u8]> {
    let rest =
        line.trim_ascii().strip_prefix(b"#")?.trim_ascii_start().strip_prefix(b"include")?.trim_ascii();
    let (_, path) = rest.split_first()?;
    let end = path.iter().position(|byte| b"\">".contains(byte))?;
    path.get(..end)?.rsplit(|&byte| byte == b'/').next()
}

/// What the compiles of all units share.
struct Compile<'a> {
    target: &'a Target,
    prepared: &'a Prepared,
    edits: &'a Edits,
    /// Compiles read it at the same time; it is changed between them.
    shadow: RwLock<Shadow>,
    work: &'a Path,
}

/// A side of a unit: its result, or the compiler's words.
type Side<T> = Result<Compiled<T>, CompileError>;

impl Compile<'_> {
    /// Compiles both sides of a unit; `None` if it turns out not to contain any patched file.
    fn unit(
        &self,
        number: usize,
        unit: &Unit,
    ) -> Result<Result<Option<CompiledUnit>, Vec<Refusal>>, CompileError> {
        let edited = self.edits.files.get(&unit.source);
        let is_new = edited.is_some_and(|file| file.original.is_none());
        let is_removed = edited.is_some_and(|file| file.lines.is_none());
        let both = || {
            rayon::join(
                || if is_new { Ok(None) } else { self.original(number, unit).map(Some) },
                || if is_removed { Ok(None) } else { self.patched(number, unit).map(Some) },
            )
        };
        let (mut original, mut patched) = both();
        let words = [failed(&original), failed(&patched)].into_iter().flatten().any(unit::misses_a_file);
        if words && self.prepared.generate_for(unit).is_ok() {
            self.shadow.write().unwrap_or_else(PoisonError::into_inner).refresh()?;
            (original, patched) = both();
        }
        let (original, patched) = (original?, patched?);
        let refusals: Vec<Refusal> = [
            refuse_failed(unit, original.as_ref(), "the kernel's own source does not compile"),
            refuse_failed(unit, patched.as_ref(), "the patched source does not compile"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !refusals.is_empty() {
            return Ok(Err(refusals));
        }
        let original = done(original);
        let patched = done(patched);
        let reached = original.as_ref().is_none_or(|original| self.reaches(unit, &original.objects.read));
        Ok(Ok(reached.then(|| assemble_result(unit, original, patched, is_new))))
    }

    /// Whether a patched file is among those that the original's compile read.
    fn reaches(&self, unit: &Unit, read: &[String]) -> bool {
        let patched = &self.edits.files;
        patched.contains_key(&unit.source) || {
            let real = |path: &str| fs::canonicalize(self.prepared.tree.join(path)).ok();
            let files: BTreeSet<PathBuf> = patched.keys().filter_map(|path| real(path)).collect();
            read.iter().filter_map(|path| real(path)).any(|path| files.contains(&path))
        }
    }

    fn original(&self, number: usize, unit: &Unit) -> Side<OriginalSide> {
        let start = Instant::now();
        let tree = &self.prepared.tree;
        let path = tree.join(&unit.source);
        let source = fs::read(&path).map_err(io_error("read", &path))?;
        let entry = Entry::of(&self.target.derived, unit, &self.prepared.compiler_line, &source);
        if let Some(objects) = entry.read(tree) {
            return Ok(Compiled::Done(OriginalSide { objects, was_cached: true, time: Duration::ZERO }));
        }
        let compiler = &self.target.compiler;
        let stem = self.work.join(format!("{number}-original"));
        let assembly = match unit::to_assembly(compiler, tree, unit, &[], &stem)? {
            Compiled::Done(assembly) => assembly,
            Compiled::Failed(words) => return Ok(Compiled::Failed(words)),
        };
        let plain_stem = self.work.join(format!("{number}-plain"));
        let (sectioned, plain) = rayon::join(
            || unit::sectioned(compiler, unit, &assembly.text, &self.prepared.exported, &stem),
            || unit::plain(compiler, tree, unit, &assembly.text, &plain_stem),
        );
        let objects = Original { plain: plain?, sectioned: sectioned?, read: assembly.read };
        entry.write(tree, &objects, self.work)?;
        Ok(Compiled::Done(OriginalSide { objects, was_cached: false, time: start.elapsed() }))
    }

    fn patched(&self, number: usize, unit: &Unit) -> Side<(Vec<u8>, Duration)> {
        let start = Instant::now();
        let stem = self.work.join(format!("{number}-patched"));
        let assembly = match self.patched_assembly(unit, &stem)? {
            Compiled::Done(assembly) => assembly,
            Compiled::Failed(words) => return Ok(Compiled::Failed(words)),
        };
        let compiler = &self.target.compiler;
        let object = unit::sectioned(compiler, unit, &assembly.text, &self.prepared.exported, &stem)?;
        Ok(Compiled::Done((object, start.elapsed())))
    }

    /// Compiles in the shadow, with more and more of it real until no original is read.
    fn patched_assembly(&self, unit: &Unit, stem: &Path) -> Side<Assembly> {
        loop {
            let (result, leak) = {
                let shadow = self.shadow.read().unwrap_or_else(PoisonError::into_inner);
                let result =
                    unit::to_assembly(&self.target.compiler, shadow.root(), unit, &[author::OPTION], stem)?;
                let leak = match &result {
                    Compiled::Done(assembly) => shadow.leak(&assembly.read).map(str::to_owned),
                    Compiled::Failed(_) => None,
                };
                (result, leak)
            };
            let Some(file) = leak else { return Ok(result) };
            let mut shadow = self.shadow.write().unwrap_or_else(PoisonError::into_inner);
            // Each round makes at least one more folder real, so this ends.
            if !shadow.widen(&file)? {
                return Err(CompileError::ShadowLeak { unit: unit.source.clone(), file });
            }
        }
    }
}

struct OriginalSide {
    objects: Original,
    was_cached: bool,
    time: Duration,
}

fn failed<T>(side: &Result<Option<Compiled<T>>, CompileError>) -> Option<&[String]> {
    match side {
        Ok(Some(Compiled::Failed(words))) => Some(words),
        _ => None,
    }
}

fn done<T>(side: Option<Compiled<T>>) -> Option<T> {
    match side {
        Some(Compiled::Done(value)) => Some(value),
        _ => None,
    }
}

fn refuse_failed<T>(unit: &Unit, side: Option<&Compiled<T>>, why: &str) -> Option<Refusal> {
    let Some(Compiled::Failed(words)) = side else { return None };
    let (file, line) = place(words).unwrap_or((unit.source.clone(), None));
    Some(Refusal::new(Code::CompileFailed, &unit.source, why).at(file, line).with_details(words.clone()))
}

/// The file and line of the first error: `FILE:LINE:COLUMN: error: TEXT`.
fn place(words: &[String]) -> Option<(String, Option<u32>)> {
    let line = words.iter().find(|line| line.contains(": error:") || line.contains(": fatal error:"))?;
    let mut parts = line.splitn(3, ':');
    let file = parts.next()?.to_owned();
    Some((file, parts.next()?.parse().ok()))
}

fn assemble_result(
    unit: &Unit,
    original: Option<OriginalSide>,
    patched: Option<(Vec<u8>, Duration)>,
    new_file: bool,
) -> CompiledUnit {
    let times = Times {
        original: original.as_ref().map_or(Duration::ZERO, |side| side.time),
        patched: patched.as_ref().map_or(Duration::ZERO, |(_, time)| *time),
    };
    let original_was_cached = original.as_ref().is_some_and(|side| side.was_cached);
    let (plain, sectioned) =
        original.map(|side| (side.objects.plain, side.objects.sectioned)).unwrap_or_default();
    CompiledUnit {
        unit: unit.clone(),
        plain,
        original: sectioned,
        patched: patched.map(|(object, _)| object),
        new_file,
        original_was_cached,
        times,
    }
}

/// One round of a fuzz target: nothing here may panic or run without bound.
pub fn fuzz_round(bytes: &[u8], file: &[u8]) {
    let patch = PatchFile { name: "fuzz.patch".to_owned(), bytes: bytes.to_vec() };
    let Ok(edits) = edit(&[patch], &|_| Ok(Some(file.to_vec()))) else { return };
    for lines in edits.files.values().filter_map(|file| file.lines.as_ref()) {
        let _ = with_line_numbers(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_include_is_known_by_its_last_component() {
        assert_eq!(included(b"# include \"sched/rt.c\" // why"), Some(&b"rt.c"[..]));
        assert_eq!(included(b"#include <rt.c>"), Some(&b"rt.c"[..]));
        assert_ne!(included(b"#include \"start.c\""), Some(&b"rt.c"[..]));
        assert_eq!(included(b"#define X \"rt.c\""), None);
    }

    #[test]
    fn the_first_error_gives_the_place() {
        let words = ["fs/a.c: In function 'f':", "fs/a.c:12:3: error: 'x' undeclared"].map(str::to_owned);
        assert_eq!(place(&words), Some(("fs/a.c".to_owned(), Some(12))));
        assert_eq!(place(&[]), None);
    }
}
