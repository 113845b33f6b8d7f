//! From patches to objects: the crate's one entry.

use crate::adopt::{new_units, settle_renamed};
use crate::belongs::{Kernel, Part};
use crate::classify::runs_elsewhere;
use crate::database::Unit;
use crate::edits::{Edited, Edits, Source, edit};
use crate::error::{CompileError, Failure, io_error};
use crate::graph::included_sources;
use crate::kconfig::settle_kconfig;
use crate::lines::{numbered, with_line_numbers};
use crate::objects::Compile;
use crate::patch::{MOST_FUZZ, PatchFile};
use crate::prepare::Prepared;
use crate::reach::{Reached, Search, Steps};
use crate::shadow::{Shadow, SharedShadow};
use crate::target::{Progress, Target};
use crate::touched::{Touched, touched_functions};
use crate::trace::{Hunk, trace};
use kmend_refusal::{Code, Refusal};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};
use tempfile::TempDir;

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

/// The object of a patched source as the kernel's build would make it, without a section for every function and datum and without
/// debug information: what a finished module is held against.
#[derive(Debug, Clone)]
pub struct PlainPatched {
    /// The object.
    pub object: Vec<u8>,
    /// In a module's unit with jump labels of modules' keys, the object with tests of the keys in their place.
    pub tested: Option<Vec<u8>>,
}

/// A unit's objects.
#[derive(Debug, Clone)]
pub struct CompiledUnit {
    /// The unit.
    pub unit: Unit,
    /// The original as the kernel's build makes it, without objtool and debug information; for a new file that of an
    /// empty one.
    pub plain: Vec<u8>,
    /// The original with a section for every function and datum, and with debug information (DWARF 5: types and
    /// lines, not where variables live); of an empty file for a new one.
    pub original: Vec<u8>,
    /// The patched source likewise.
    pub patched: Vec<u8>,
    /// The patched source as the kernel's build would make it, if its object differs at all.
    pub plain_patched: Option<PlainPatched>,
    /// Whether the patch adds the file.
    pub new_file: bool,
    /// Whether the original's objects were kept from an earlier build.
    pub original_was_cached: bool,
    /// How long it took.
    pub times: Times,
}

impl CompiledUnit {
    /// Whether the patch changes the object at all.
    pub fn differs(&self) -> bool {
        self.patched != self.original
    }
}

/// What the patches come to in this kernel.
#[derive(Debug)]
pub struct Outcome {
    /// The objects of every unit whose source is patched, and of those that a patched header changes; in the order of
    /// their sources.
    pub units: Vec<CompiledUnit>,
    /// The functions whose source the patches touch, by their names there. A hint that explains: a function that
    /// changed and is not among them changed because of one that is.
    pub touched: BTreeSet<String>,
    /// Those of them that the source marks as `__init`, by the file's path.
    pub touched_start: BTreeMap<String, BTreeSet<String>>,
    /// The lines of the patched files by their paths, each with the number that the compiler has for it. Where a patch
    /// adds lines, more than one has the same.
    pub lines: BTreeMap<String, Vec<(u32, Vec<u8>)>>,
    /// What is worth telling.
    pub notes: Vec<Note>,
    /// How the units were found that patched headers reach.
    pub reach: Steps,
    /// What each hunk of the patches changes in the texts.
    pub hunks: Vec<Hunk>,
    /// Whether the patches change nothing outside of bodies of functions.
    pub(crate) keeps_declarations: bool,
    /// The patched tree, for what else is asked of it.
    pub(crate) shadow: SharedShadow,
    /// Goes when the outcome does, and the patched tree with it.
    pub(crate) work: TempDir,
}

/// Looks at some of the units: reasons to decline that hold whatever the others are.
pub type Look<'a> = &'a (dyn Fn(&[CompiledUnit]) -> Vec<Refusal> + Sync);

/// Of how many units that a header reaches some are looked at before the others are compiled, and how many.
const MANY: usize = 64;
/// How many hunks a message names.
const MOST_HUNKS: usize = 20;
const FIRST: usize = 16;

/// Applies `patches` in their order and compiles every unit they reach, original and patched.
///
/// Where a header reaches many units, `look` sees the first of them, and those whose sources are patched: a structure that
/// changes there needs no further proof from hundreds.
///
/// `scratch` is a folder for temporary files; nothing is left in it when the outcome is gone. All reasons to decline are found, not
/// the first: all hunks that do not apply, or, when all do, all units that do not compile.
pub fn patch_and_compile(
    target: &Target,
    prepared: &Prepared,
    patches: &[PatchFile],
    scratch: &Path,
    progress: Progress<'_>,
    look: Look<'_>,
) -> Result<Outcome, Failure> {
    let kernel = Kernel::new(prepared, target, progress);
    let mut edits = edit(patches, &Asked { kernel: &kernel, tree: &prepared.tree })?;
    settle_kconfig(&mut edits);
    settle_renamed(&mut edits, prepared);
    let new = new_units(&mut edits, prepared);
    edits.files.retain(|_, file| file.lines.as_ref().map(|lines| joined(lines)) != file.original);
    let included = included_sources(prepared, target, progress)?;
    let mut absent = absent_sources(&mut edits, prepared, &included);
    absent.append(&mut edits.absent);
    absent.sort();
    absent.dedup();
    let mut units = units_of(&mut edits, prepared);
    units.extend(new);
    if edits.refusals.is_empty() && edits.files.is_empty() {
        edits.refusals.extend(absent.iter().map(|path| not_in_kernel(path)));
        if absent.is_empty() {
            let why = if edits.only_modes {
                "only the modes of files change, which is nothing to a kernel"
            } else {
                "no file that the patch changes is part of a kernel"
            };
            let subject = patches.iter().map(|patch| patch.name.as_str()).collect::<Vec<_>>().join(", ");
            let reason = |hunk: &crate::edits::GivenHunk| {
                let why = hunk.passed.as_deref().unwrap_or("it changes nothing that is compiled");
                format!("{}:{} {}: {why}", hunk.patch, hunk.patch_line, hunk.file)
            };
            let details = edits.hunks.iter().take(MOST_HUNKS).map(reason).collect();
            edits.refusals.push(Refusal::new(Code::NothingChanges, subject, why).with_details(details));
        }
    }
    if !edits.refusals.is_empty() {
        return Err(Failure::Refused { refusals: edits.refusals });
    }
    fs::create_dir_all(scratch).map_err(io_error("create", scratch))?;
    let work = tempfile::Builder::new()
        .prefix("compile-")
        .tempdir_in(scratch)
        .map_err(io_error("create", scratch))?;
    let files = edits
        .files
        .iter()
        .map(|(path, file)| (PathBuf::from(path), file.lines.as_deref().map(with_line_numbers)));
    let sources: Vec<&str> = units.iter().map(|unit| unit.named.as_str()).collect();
    let shadow = Shadow::create(&prepared.tree, &work.path().join("shadow"), files.collect(), &sources)?;
    let shadow = SharedShadow::new(shadow);
    let search = Search { target, prepared, edits: &edits, shadow: &shadow, work: work.path(), progress };
    let reached = search.run(&units, &included, &kernel)?;
    if !reached.refusals.is_empty() {
        return Err(Failure::Refused { refusals: reached.refusals });
    }
    let (absent, notes) = not_reached(&edits, prepared, &reached, absent);
    let (more, elsewhere) = live_units(reached.units);
    if units.is_empty() && more.is_empty() && !absent.is_empty() {
        let refusals = absent.iter().map(|path| not_in_kernel(path)).collect();
        return Err(Failure::Refused { refusals });
    }
    let compile = Compile { target, prepared, edits: &edits, shadow: &shadow, work: work.path() };
    let first = if more.len() > MANY { FIRST } else { more.len() };
    let (first, rest) = more.split_at(first);
    let mut units = compile.all(&units, first, progress)?;
    if !rest.is_empty() {
        let refusals = look(&units);
        if !refusals.is_empty() {
            return Err(Failure::Refused { refusals: not_looked_at(refusals, rest.len()) });
        }
        units.extend(compile.all(&[], rest, progress)?);
    }
    let order =
        |unit: &CompiledUnit| (unit.unit.source.clone(), unit.unit.object.clone(), unit.unit.owner.clone());
    units.sort_by_key(order);
    let (touched, touched_start) = touched_by(&edits);
    let hunks = trace(&edits, &unreached(&edits, &units, &reached.read, &absent, &notes));
    let absent = absent.into_iter().map(|path| Note { file: Some(path), text: NOT_BUILT.to_owned() });
    let notes = edits.notes.iter().cloned().chain(notes).chain(absent).chain(elsewhere).collect();
    Ok(Outcome {
        units,
        touched,
        touched_start,
        lines: compiled_lines(&edits),
        notes,
        reach: reached.steps,
        hunks,
        keeps_declarations: edits.keep_declarations(),
        shadow,
        work,
    })
}

/// Says with the first refusal that it is not for certain all.
fn not_looked_at(mut refusals: Vec<Refusal>, units: usize) -> Vec<Refusal> {
    if let Some(first) = refusals.first_mut() {
        first
            .details
            .push(format!("{units} more units that a patched header reaches were not compiled for this"));
    }
    refusals
}

/// [`Outcome::touched`] and [`Outcome::touched_start`].
fn touched_by(edits: &Edits) -> (BTreeSet<String>, BTreeMap<String, BTreeSet<String>>) {
    let (mut touched, mut start) = (BTreeSet::new(), BTreeMap::new());
    for (path, file) in &edits.files {
        let functions = touched_functions(file.lines.as_deref().unwrap_or_default());
        let is_start = |function: &&Touched| function.is_start;
        start.insert(
            path.clone(),
            functions.iter().filter(is_start).map(|found| found.name.clone()).collect(),
        );
        touched.extend(functions.into_iter().map(|function| function.name));
    }
    (touched, start)
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

/// What the patches are asked about: a kernel, and its tree.
struct Asked<'a> {
    kernel: &'a Kernel<'a>,
    tree: &'a Path,
}

impl Source for Asked<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, CompileError> {
        read_file(self.tree, path)
    }

    fn part(&self, path: &str, is_there: bool, adds: bool) -> Result<Part, CompileError> {
        self.kernel.part(path, is_there, adds)
    }
}

pub(crate) fn read_file(tree: &Path, path: &str) -> Result<Option<Vec<u8>>, CompileError> {
    let file = tree.join(path);
    match fs::read(&file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        // A patch can name a folder.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(None),
        Err(error) => Err(io_error("read", &file)(error)),
    }
}

/// Takes the sources out of the edits that this kernel's build compiles no object from: no code of them is in the kernel,
/// so a patch is as good without their part. A source that is not compiled itself may be included by one that is
/// (kernel/sched/build_policy.c includes kernel/sched/rt.c).
fn absent_sources(edits: &mut Edits, prepared: &Prepared, included: &BTreeSet<String>) -> Vec<String> {
    let newly = std::mem::take(&mut edits.includes);
    let is_absent = |path: &str, file: &Edited| {
        let is_newly_included = path.rsplit('/').next().is_some_and(|name| newly.contains(name));
        let is_built =
            !prepared.database.units_of(path).is_empty() || included.contains(path) || is_newly_included;
        is_source(path) && !is_built && file.original.is_some()
    };
    let files = std::mem::take(&mut edits.files);
    let (absent, files) = files.into_iter().partition(|(path, file)| is_absent(path, file));
    edits.files = files;
    edits.includes = newly;
    BTreeMap::into_keys(absent).collect()
}

/// The units of the patched sources themselves.
fn units_of(edits: &mut Edits, prepared: &Prepared) -> Vec<Unit> {
    for (path, file) in &edits.files {
        if is_source(path) && file.original.is_some() && file.lines.is_none() {
            let why = "the patch removes the source of code that runs";
            edits.refusals.push(Refusal::new(Code::RemovedUnit, path, why).at(path, None));
        }
    }
    let found = edits.files.keys().flat_map(|path| prepared.database.units_of(path)).cloned().collect();
    let (units, notes) = live_units(found);
    edits.notes.extend(notes);
    units
}

/// The same source can also be a part of the EFI stub or of purgatory, which are not mended.
fn live_units(found: Vec<Unit>) -> (Vec<Unit>, Vec<Note>) {
    let (live, elsewhere): (Vec<Unit>, Vec<Unit>) =
        found.into_iter().partition(|unit| runs_elsewhere(&unit.object).is_none());
    let note = |unit: Unit| Note {
        text: format!("it is also part of {}, which cannot be patched live", unit.object),
        file: Some(unit.source),
    };
    (live, elsewhere.into_iter().map(note).collect())
}

/// Whether a file is a C source.
pub fn is_source(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "c")
}

pub(crate) const NOT_BUILT: &str = "this kernel's build compiles no object from it";

const NEW_ALONE: &str = "no line of a Makefile makes it a part of this kernel";

fn not_in_kernel(path: &str) -> Refusal {
    Refusal::new(Code::NotInKernel, path, NOT_BUILT).at(path, None)
}

/// The patched files that no unit of this kernel has in it after all: `absent` and more sources, and notes on others.
fn not_reached(
    edits: &Edits,
    prepared: &Prepared,
    reached: &Reached,
    mut absent: Vec<String>,
) -> (Vec<String>, Vec<Note>) {
    let mut notes = Vec::new();
    for (path, file) in &edits.files {
        let is_built = !prepared.database.units_of(path).is_empty() || reached.read.contains(path);
        if is_built || file.original.is_none() || edits.is_newly_included(path) {
            continue;
        }
        if is_source(path) {
            absent.push(path.clone());
        } else if edits.includes.is_empty() {
            // With a line that includes something, a header can be used that no unit has used before, also by way of others.
            let text = "no unit of this kernel includes it".to_owned();
            notes.push(Note { file: Some(path.clone()), text });
        }
    }
    (absent, notes)
}

/// The patched files that no unit is compiled from, with the reasons.
fn unreached(
    edits: &Edits,
    units: &[CompiledUnit],
    read: &BTreeSet<String>,
    absent: &[String],
    notes: &[Note],
) -> BTreeMap<String, String> {
    let is_compiled =
        |path: &String| units.iter().any(|unit| unit.unit.source == *path) || read.contains(path);
    let fresh = edits
        .files
        .iter()
        .filter(|(path, file)| file.original.is_none() && is_source(path) && !is_compiled(path));
    let fresh = fresh.map(|(path, _)| (path.clone(), NEW_ALONE.to_owned()));
    let absent = absent.iter().map(|path| (path.clone(), NOT_BUILT.to_owned()));
    let noted = notes.iter().filter_map(|note| Some((note.file.clone()?, note.text.clone())));
    noted.chain(absent).chain(fresh).collect()
}

/// A source that has one text under every name.
struct One<'a>(&'a [u8]);

impl Source for One<'_> {
    fn read(&self, _path: &str) -> Result<Option<Vec<u8>>, CompileError> {
        Ok(Some(self.0.to_vec()))
    }

    fn part(&self, _path: &str, _is_there: bool, _adds: bool) -> Result<Part, CompileError> {
        Ok(Part::Text)
    }
}

/// One round of a fuzz target: nothing here may panic or run without bound.
pub fn fuzz_round(bytes: &[u8], file: &[u8]) {
    let patch = PatchFile { fuzz: MOST_FUZZ, ..PatchFile::new("fuzz.patch", bytes) };
    let Ok(edits) = edit(&[patch], &One(file)) else { return };
    for lines in edits.files.values().filter_map(|file| file.lines.as_ref()) {
        let _ = with_line_numbers(lines);
    }
}
