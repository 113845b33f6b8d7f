//! The checks of one unit.

use super::edit;
use super::plain::{self, Plain, Verdict};
use super::random::Random;
use super::renumber::renumbered;
use anyhow::{Context, Result, anyhow, bail, ensure};
use kmend_build::target;
use kmend_compile::{CompiledUnit, Failure, PatchFile, Prepared, Target};
use kmend_diff::{Delta, Fentry, Reason};
use kmend_object::Object;
use kmend_refusal::Refusal;
use kmend_store::{Cache, Kernel};
use std::fs;
use std::os::unix::fs::symlink;

/// Constants that are tried until one changes code.
const TRIES: usize = 6;

/// A kernel in whose units it is looked.
pub(crate) struct Subject {
    pub(crate) cache: Cache,
    pub(crate) kernel: Kernel,
    pub(crate) prepared: Prepared,
    target: Target,
}

/// What was seen in one unit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Constants that changed code, and were found to.
    pub(crate) constants: usize,
    /// Constants whose change was refused.
    pub(crate) refused: usize,
    /// Names of clones that were renumbered.
    pub(crate) clones: usize,
}

/// Both objects of a unit.
struct Pair {
    unit: CompiledUnit,
    original: Object,
    patched: Object,
}

impl Subject {
    pub(crate) fn new(cache: Cache, kernel: Kernel) -> Result<Self> {
        let target = target(&kernel);
        let prepared = kmend_compile::prepare(&target, &|text| crate::narrate::say(text))?;
        Ok(Subject { cache, kernel, prepared, target })
    }

    /// All checks of a source.
    pub(crate) fn check(&self, source: &str, seed: u64) -> Result<Seen> {
        let mut random = Random::new(seed, &self.kernel.release, source);
        let path = self.kernel.source.join(source);
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        let mut seen = Seen::default();
        for pair in self.compile(&edit::meaningless(source, &text, &mut random))? {
            nothing_changes(&pair.original, &pair.patched).context("with comments and blank lines")?;
            self.elsewhere(&pair, &mut random).context("with another folder and random seed")?;
            self.what_counts(&pair.unit).context("with nothing but what counts of the text")?;
            let (other, clones) = renumbered(&pair.original);
            nothing_changes(&pair.original, &other)
                .context("with other numbers in the names of clones and variables")?;
            seen.clones += clones;
        }
        if let Some(patch) = edit::another_function(source, &text) {
            self.one_function_more(&patch).context("with one function more")?;
        }
        for _ in 0..TRIES {
            let Some((patch, what)) = edit::other_constant(source, &text, &mut random) else { break };
            if self.other_constant(&patch, &mut seen).with_context(|| what)? {
                break;
            }
        }
        Ok(seen)
    }

    /// Compiles all units of a patch, before and after it.
    pub(super) fn compiled(&self, patch: &PatchFile) -> Result<Result<Vec<CompiledUnit>, Failure>> {
        let scratch = self.cache.scratch()?;
        let patches = std::slice::from_ref(patch);
        let outcome = kmend_compile::patch_and_compile(
            &self.target,
            &self.prepared,
            patches,
            scratch.path(),
            &|_| {},
            &|_| Vec::new(),
        );
        Ok(outcome.map(|outcome| outcome.units))
    }

    /// Compiles all units of a source, before and after a patch.
    fn compile(&self, patch: &PatchFile) -> Result<Vec<Pair>> {
        let units = self.compiled(patch)?.map_err(declined)?;
        ensure!(!units.is_empty(), "no unit is compiled");
        let pair = |unit: CompiledUnit| {
            let original = Object::parse(&unit.original)?;
            let patched = Object::parse(&unit.patched)?;
            Ok(Pair { unit, original, patched })
        };
        units.into_iter().map(pair).collect()
    }

    /// Compiles the original as a build in another folder does, with another seed for what the compiler draws by lot.
    fn elsewhere(&self, pair: &Pair, random: &mut Random) -> Result<()> {
        let unit = &pair.unit.unit;
        let folder = tempfile::tempdir()?;
        let root = folder.path().join(format!("build-{}", random.below(1000)));
        symlink(&self.prepared.tree, &root)?;
        let seed = format!("-frandom-seed={}", random.below(1_000_000));
        let work = folder.path();
        let object = kmend_compile::compile_at(&self.target, &self.prepared, unit, &root, &[seed], work);
        nothing_changes(&pair.original, &Object::parse(&object.map_err(declined)?)?)
    }

    /// Compiles nothing but that part of the text by which it is decided whether a header's change reaches the unit.
    fn what_counts(&self, unit: &CompiledUnit) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (whole, part) =
            kmend_compile::compile_texts(&self.target, &self.prepared, &unit.unit, folder.path())?;
        nothing_changes(&Object::parse(&whole)?, &Object::parse(&part)?)
    }

    fn one_function_more(&self, patch: &PatchFile) -> Result<()> {
        for pair in self.compile(patch)? {
            let opinion = plain::compare(&pair.original, &pair.patched);
            let delta =
                compare(&pair.original, &pair.patched).map_err(|refusals| anyhow!(Declined(refusals)))?;
            for function in delta.functions.iter().filter(|function| function.name != edit::FUNCTION_NAME) {
                // One more function can make the compiler inline another one less.
                let differs = function.original.as_ref().and_then(|name| opinion.functions.get(name));
                ensure!(
                    differs == Some(&Verdict::Differs),
                    "{} changes: {:?}",
                    function.name,
                    function.reasons
                );
            }
            missed(&delta, &opinion, &pair.original)?;
        }
        Ok(())
    }

    /// Whether the change of a constant changed code, and if so, that it was found where it is and nowhere else.
    fn other_constant(&self, patch: &PatchFile, seen: &mut Seen) -> Result<bool> {
        let pairs = match self.compile(patch) {
            Err(error) if error.is::<Declined>() => return Ok(false),
            pairs => pairs?,
        };
        let mut changed = false;
        for pair in pairs {
            let opinion = plain::compare(&pair.original, &pair.patched);
            let differs =
                opinion.data_differs || opinion.functions.values().any(|verdict| *verdict != Verdict::Same);
            match compare(&pair.original, &pair.patched) {
                Err(refusals) => {
                    ensure!(differs, "the objects are equal, and yet: {}", Declined(refusals));
                    seen.refused += 1;
                }
                Ok(delta) => {
                    missed(&delta, &opinion, &pair.original)?;
                    too_much(&delta, &opinion)?;
                    ensure!(
                        !(delta.is_empty() && opinion.data_differs),
                        "MISSED: data differs, and nothing changes"
                    );
                    seen.constants += usize::from(!delta.is_empty());
                }
            }
            changed |= differs;
        }
        Ok(changed)
    }
}

fn declined(failure: Failure) -> anyhow::Error {
    match failure {
        Failure::Refused { refusals } => anyhow!(Declined(refusals)),
        Failure::Failed(error) => anyhow!(error),
    }
}

fn compare(original: &Object, patched: &Object) -> Result<Delta, Vec<Refusal>> {
    kmend_diff::compare(original, patched, Fentry::Required)
}

fn nothing_changes(original: &Object, other: &Object) -> Result<()> {
    let delta = compare(original, other).map_err(|refusals| anyhow!(Declined(refusals)))?;
    let changed: Vec<String> =
        delta.functions.iter().map(|function| format!("{} {:?}", function.name, function.reasons)).collect();
    ensure!(changed.is_empty(), "nothing must change, but {}", changed.join("; "));
    Ok(())
}

/// The unforgivable error: code or data that differs and was not found to.
fn missed(delta: &Delta, opinion: &Plain, original: &Object) -> Result<()> {
    let is_found = |name: &str| {
        delta.functions.iter().any(|function| function.original.as_deref().unwrap_or(&function.name) == name)
    };
    for (name, _) in opinion.functions.iter().filter(|(_, verdict)| **verdict == Verdict::Differs) {
        let hot = name.split(".cold").next().unwrap_or(name);
        if !is_found(name) && !is_found(hot) {
            let section = plain::section_of(original, name).unwrap_or_default();
            bail!("MISSED: {name} in {section} differs, and is not among the changed: {:?}", names(delta));
        }
    }
    Ok(())
}

/// Functions that were taken for changed and are the same.
fn too_much(delta: &Delta, opinion: &Plain) -> Result<()> {
    for function in delta.changed() {
        let Some(name) = &function.original else { continue };
        let of_cold = opinion.functions.get(&format!("{name}.cold")).copied().unwrap_or(Verdict::Same);
        let is_same = opinion.functions.get(name) == Some(&Verdict::Same) && of_cold == Verdict::Same;
        let calls = function.reasons.iter().any(|reason| matches!(reason, Reason::Callee { .. }));
        ensure!(
            !is_same || calls || opinion.data_differs,
            "{name} is the same, and yet changed: {:?}",
            function.reasons
        );
    }
    Ok(())
}

fn names(delta: &Delta) -> Vec<&str> {
    delta.functions.iter().map(|function| function.name.as_str()).collect()
}

/// Refusals as an error.
#[derive(Debug)]
struct Declined(Vec<Refusal>);

impl std::fmt::Display for Declined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<String> = self.0.iter().map(Refusal::to_string).collect();
        f.write_str(&texts.join("; "))
    }
}

impl std::error::Error for Declined {}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_diff::{FunctionChange, Sides};
    use kmend_object::SymbolId;

    fn opinion(functions: &[(&str, Verdict)]) -> Plain {
        let functions = functions.iter().map(|(name, verdict)| ((*name).to_owned(), *verdict)).collect();
        Plain { functions, data_differs: false }
    }

    fn delta(names: &[&str]) -> Delta {
        let change = |name: &&str| FunctionChange {
            name: (*name).to_owned(),
            original: Some((*name).to_owned()),
            home: None,
            carried: false,
            jumps: false,
            reasons: vec![Reason::Code { offset: 0 }],
            sides: Sides { original: None, patched: SymbolId::NULL },
            symbol: SymbolId::NULL,
        };
        Delta { functions: names.iter().map(change).collect(), ..Delta::default() }
    }

    #[test]
    fn a_difference_that_is_not_found_is_told() {
        let opinion =
            opinion(&[("f", Verdict::Differs), ("g.cold", Verdict::Differs), ("h", Verdict::Unknown)]);
        assert!(missed(&delta(&["f", "g"]), &opinion, &Object::new()).is_ok());
        let error = missed(&delta(&["g"]), &opinion, &Object::new()).unwrap_err();
        assert!(error.to_string().starts_with("MISSED: f "), "{error}");
        assert!(missed(&delta(&["f"]), &opinion, &Object::new()).is_err());
    }

    #[test]
    fn what_is_the_same_must_not_change() {
        let same = opinion(&[("f", Verdict::Same), ("g", Verdict::Unknown)]);
        assert!(too_much(&delta(&["g"]), &same).is_ok());
        assert!(too_much(&delta(&["f", "g"]), &same).is_err());
        let with_cold = opinion(&[("f", Verdict::Same), ("f.cold", Verdict::Differs)]);
        assert!(too_much(&delta(&["f"]), &with_cold).is_ok());
    }
}
