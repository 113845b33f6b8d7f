//! Both sides of a unit, from its source to its objects.

use crate::author;
use crate::cache::{Entry, Original};
use crate::database::Unit;
use crate::edits::Edits;
use crate::error::{CompileError, Failure, io_error};
use crate::estimate::Estimate;
use crate::prepare::Prepared;
use crate::session::{CompiledUnit, PlainPatched, Times};
use crate::shadow::SharedShadow;
use crate::target::{Progress, Target};
use crate::unit::{self, Compiled};
use kmend_refusal::{Code, Refusal};
use rayon::prelude::*;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the compiles of all units share.
pub struct Compile<'a> {
    pub target: &'a Target,
    pub prepared: &'a Prepared,
    pub edits: &'a Edits,
    pub shadow: &'a SharedShadow,
    pub work: &'a Path,
}

/// A side of a unit: its result, or the compiler's words.
type Side<T> = Result<Compiled<T>, CompileError>;

impl Compile<'_> {
    /// Compiles the units whose sources are patched, and those that patched headers reach. Of the latter only
    /// those come back whose objects differ, so that not all need be held at once. An object of several modules comes once for
    /// each.
    pub fn all(
        &self,
        units: &[Unit],
        more: &[Unit],
        progress: Progress<'_>,
    ) -> Result<Vec<CompiledUnit>, Failure> {
        let estimate = Estimate::new("compiled", units.len() + more.len(), progress);
        let direct = units.iter().map(|unit| (unit, true));
        let all: Vec<(&Unit, bool)> = direct.chain(more.iter().map(|unit| (unit, false))).collect();
        let compiled: Result<Vec<_>, CompileError> = all
            .par_iter()
            .enumerate()
            .map(|(number, (unit, is_direct))| {
                let result = self.unit(number, unit)?;
                estimate.one_more();
                Ok(result.map(|unit| (*is_direct || unit.differs()).then_some(unit)))
            })
            .collect();
        let (mut done, mut refusals) = (Vec::new(), Vec::new());
        for result in compiled? {
            match result {
                Ok(unit) => done.extend(unit.into_iter().flat_map(for_each_owner)),
                Err(more) => refusals.extend(more),
            }
        }
        if refusals.is_empty() { Ok(done) } else { Err(Failure::Refused { refusals }) }
    }

    /// Compiles both sides of a unit.
    pub fn unit(
        &self,
        number: usize,
        unit: &Unit,
    ) -> Result<Result<CompiledUnit, Vec<Refusal>>, CompileError> {
        let edited = self.edits.files.get(&unit.source);
        let is_new = edited.is_some_and(|file| file.original.is_none());
        let both = || {
            rayon::join(
                || {
                    if is_new { self.nothing(number, unit) } else { self.original(number, unit) }
                },
                || self.patched(number, unit),
            )
        };
        let (mut original, mut patched) = both();
        let words = [failed(&original), failed(&patched)].into_iter().flatten().any(unit::misses_a_file);
        if words && self.prepared.generate_for(&[unit]).is_ok() {
            self.shadow.write().refresh()?;
            (original, patched) = both();
        }
        Ok(match (original?, patched?) {
            (Compiled::Done(original), Compiled::Done(patched)) => {
                let differs = patched.object != original.objects.sectioned;
                let plain =
                    differs.then(|| self.plain_patched(number, unit, &patched.assembly)).transpose()?;
                Ok(compiled_unit(unit, original, patched, plain, is_new))
            }
            (original, patched) => Err([
                refuse_failed(unit, &original, "the kernel's own source does not compile"),
                refuse_failed(unit, &patched, "the patched source does not compile"),
            ]
            .into_iter()
            .flatten()
            .collect()),
        })
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
        let objects = match self.both_objects(number, unit)? {
            Compiled::Done(objects) => objects,
            Compiled::Failed(words) => return Ok(Compiled::Failed(words)),
        };
        entry.write(tree, &objects, self.work)?;
        Ok(Compiled::Done(OriginalSide { objects, was_cached: false, time: start.elapsed() }))
    }

    /// What stands for the original of a new unit: an empty source.
    fn nothing(&self, number: usize, unit: &Unit) -> Side<OriginalSide> {
        let start = Instant::now();
        let file = self.work.join(format!("{number}-nothing.c"));
        fs::write(&file, "").map_err(io_error("write", &file))?;
        let nothing = Unit { named: file.display().to_string(), ..unit.clone() };
        Ok(match self.both_objects(number, &nothing)? {
            Compiled::Done(objects) => {
                Compiled::Done(OriginalSide { objects, was_cached: false, time: start.elapsed() })
            }
            Compiled::Failed(words) => Compiled::Failed(words),
        })
    }

    /// The two objects of a unit in the prepared tree.
    fn both_objects(&self, number: usize, unit: &Unit) -> Side<Original> {
        let (compiler, tree) = (&self.target.compiler, &self.prepared.tree);
        let stem = self.work.join(format!("{number}-original"));
        let (assembly, read) = match unit::to_assembly(compiler, tree, unit, &[], &stem)? {
            Compiled::Done(done) => done,
            Compiled::Failed(words) => return Ok(Compiled::Failed(words)),
        };
        let plain_stem = self.work.join(format!("{number}-plain"));
        let (sectioned, plain) = rayon::join(
            || unit::sectioned(compiler, unit, &assembly, &self.prepared.exported, &stem),
            || unit::plain(compiler, tree, unit, &assembly, &plain_stem),
        );
        Ok(Compiled::Done(Original { plain: plain?, sectioned: sectioned?, read }))
    }

    fn patched(&self, number: usize, unit: &Unit) -> Side<PatchedSide> {
        let start = Instant::now();
        let stem = self.work.join(format!("{number}-patched"));
        let compiler = &self.target.compiler;
        let compile = |root: &Path| unit::to_assembly(compiler, root, unit, &[author::OPTION], &stem);
        let assembly = match self.shadow.until_no_leak(&unit.source, compile)? {
            Compiled::Done((assembly, _)) => assembly,
            Compiled::Failed(words) => return Ok(Compiled::Failed(words)),
        };
        let object = unit::sectioned(compiler, unit, &assembly, &self.prepared.exported, &stem)?;
        Ok(Compiled::Done(PatchedSide { object, assembly, time: start.elapsed() }))
    }

    /// What the audit holds the module against.
    fn plain_patched(
        &self,
        number: usize,
        unit: &Unit,
        assembly: &[u8],
    ) -> Result<PlainPatched, CompileError> {
        let compiler = &self.target.compiler;
        let stem = |side: &str| self.work.join(format!("{number}-plain-{side}"));
        let assemble = |text: &[u8], side| unit::plain_of_text(compiler, unit, text, &stem(side));
        let tested = unit::with_tested_keys(unit, assembly, &self.prepared.exported);
        Ok(PlainPatched {
            object: assemble(assembly, "patched")?,
            tested: tested.map(|text| assemble(&text, "tested")).transpose()?,
        })
    }
}

struct PatchedSide {
    object: Vec<u8>,
    assembly: Vec<u8>,
    time: Duration,
}

/// A unit once for each module that its object is linked into.
fn for_each_owner(compiled: CompiledUnit) -> Vec<CompiledUnit> {
    let more = compiled.unit.shared_by.clone().into_iter();
    let mut all = vec![compiled];
    for owner in more {
        let of = |first: &CompiledUnit| {
            let unit = Unit { owner, ..first.unit.clone() };
            CompiledUnit { unit, original_was_cached: true, times: Times::default(), ..first.clone() }
        };
        all.extend(all.first().map(of));
    }
    all
}

struct OriginalSide {
    objects: Original,
    was_cached: bool,
    time: Duration,
}

fn failed<T>(side: &Side<T>) -> Option<&[String]> {
    match side {
        Ok(Compiled::Failed(words)) => Some(words),
        _ => None,
    }
}

fn refuse_failed<T>(unit: &Unit, side: &Compiled<T>, why: &str) -> Option<Refusal> {
    let Compiled::Failed(words) = side else { return None };
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

fn compiled_unit(
    unit: &Unit,
    original: OriginalSide,
    patched: PatchedSide,
    plain_patched: Option<PlainPatched>,
    new_file: bool,
) -> CompiledUnit {
    CompiledUnit {
        unit: unit.clone(),
        plain: original.objects.plain,
        original: original.objects.sectioned,
        patched: patched.object,
        plain_patched,
        new_file,
        original_was_cached: original.was_cached,
        times: Times { original: original.time, patched: patched.time },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_gives_the_place() {
        let words = ["fs/a.c: In function 'f':", "fs/a.c:12:3: error: 'x' undeclared"].map(str::to_owned);
        assert_eq!(place(&words), Some(("fs/a.c".to_owned(), Some(12))));
        assert_eq!(place(&[]), None);
    }
}
