//! An operator tried on a unit: what kmend makes of it, and whether that is right.

use super::check::Subject;
use super::listing::{Listing, Opinion};
use super::operators::{Claims, Expected, Operator, Place, TABLE};
use super::plain::Verdict;
use super::random::Random;
use super::source::Source;
use anyhow::{Context, Result, bail, ensure};
use kmend_build::{Built, Report, Request, Status};
use kmend_compile::{Failure, Owner};
use kmend_diff::Reason;
use kmend_process::Command;
use kmend_refusal::{Code, Kind};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// How an operator came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should.
    Right,
    /// Refused with these codes, which is as it should.
    RightlyRefused(String),
    /// Refused with these codes, where it could have been built.
    Refused(String),
    /// What differs was not found, or what lives was doubled: the unforgivable error.
    Missed(String),
    /// Something is exchanged that is the same.
    WronglyChanged(String),
    /// kmend broke.
    Broke(String),
}

impl Outcome {
    /// What fails a run. A refusal that is not needed is a defect too, and counted.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Outcome::Missed(_) | Outcome::WronglyChanged(_) | Outcome::Broke(_))
    }
}

/// An operator that was tried.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub(crate) operator: &'static str,
    /// What it did, in words.
    pub(crate) what: String,
    pub(crate) outcome: Outcome,
    /// The refusals, in kmend's words.
    pub(crate) refusals: Vec<String>,
}

impl Trial {
    /// How it is tried again.
    pub(crate) fn command(&self, release: &str, seed: u64, source: &str) -> String {
        format!(
            "cargo xtask selfcheck --kernel {release} --seed {seed} --operator {} {source}",
            self.operator
        )
    }
}

/// Which operators are tried.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Which<'a> {
    /// All of them.
    All,
    /// Those that kmend comes up to.
    Holding,
    /// The one of this name.
    Named(&'a str),
}

impl Which<'_> {
    fn has(self, operator: &Operator) -> bool {
        match self {
            Which::All => true,
            Which::Holding => operator.holds,
            Which::Named(name) => operator.name == name,
        }
    }
}

/// What kmend says.
enum Said {
    Built(Box<Module>),
    Nothing,
    /// Codes, each once.
    Refused(String),
}

/// A module that kmend made.
struct Module {
    listing: Listing,
    /// Its relocations, those of the livepatch's loader too, as readelf lists them.
    links: String,
}

/// Both objects of every unit of the patch.
struct Objects {
    before: Vec<Listing>,
    after: Vec<Listing>,
}

impl Subject {
    /// Tries operators on a source, in an order of its own, until so many have applied.
    pub(crate) fn operate(
        &self,
        source: &str,
        seed: u64,
        count: usize,
        which: Which<'_>,
    ) -> Result<Vec<Trial>> {
        let mut random = Random::new(seed, &self.kernel.release, source);
        let read = |path: &str| -> Result<Option<Source>> {
            let file = self.kernel.source.join(path);
            Ok(Source::of(path, &fs::read(&file).with_context(|| file.display().to_string())?))
        };
        let Some(own) = read(source)? else { return Ok(Vec::new()) };
        let neighbour = self.neighbour(source).map(|path| read(&path)).transpose()?.flatten();
        let place = Place { source: &own, neighbour: neighbour.as_ref() };
        let mut left: Vec<&Operator> = TABLE.iter().filter(|operator| which.has(operator)).collect();
        let mut trials = Vec::new();
        while trials.len() < count && !left.is_empty() {
            let operator = left.swap_remove(random.below(left.len()));
            // Its own numbers, so that it can be repeated alone.
            let mut random = Random::new(seed, operator.name, source);
            trials.extend(self.try_operator(operator, &place, &mut random)?);
        }
        Ok(trials)
    }

    /// Tries one of the operators that kmend comes up to. An error tells what is wrong.
    pub(crate) fn sample(&self, source: &str, seed: u64, count: usize) -> Result<()> {
        let trials = self.operate(source, seed, count, Which::Holding)?;
        let wrong: Vec<String> = trials
            .iter()
            .filter(|trial| trial.outcome.is_failure())
            .map(|trial| {
                let command = trial.command(&self.kernel.release, seed, source);
                format!("{} ({}): {:?}\n    {command}", trial.operator, trial.what, trial.outcome)
            })
            .collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    /// Another source of the same folder that becomes a part of the same.
    fn neighbour(&self, source: &str) -> Option<String> {
        let units = self.prepared.database.units();
        let own = units.iter().find(|unit| unit.source == source)?;
        let folder = Path::new(source).parent()?;
        let fits = |unit: &&kmend_compile::Unit| {
            unit.source != source
                && Path::new(&unit.source).parent() == Some(folder)
                && Path::new(&unit.source).extension().is_some_and(|end| end == "c")
                && match (&unit.owner, &own.owner) {
                    (Owner::Vmlinux, Owner::Vmlinux) => true,
                    (Owner::Module { name, .. }, Owner::Module { name: other, .. }) => name == other,
                    _ => false,
                }
                && self.kernel.source.join(&unit.source).is_file()
        };
        units.iter().find(fits).map(|unit| unit.source.clone())
    }

    /// `None` where it does not apply: it finds no place, its text does not compile, or nothing of it reaches an object.
    fn try_operator(
        &self,
        operator: &Operator,
        place: &Place<'_>,
        random: &mut Random,
    ) -> Result<Option<Trial>> {
        let Some(mut change) = (operator.edit)(place, random) else { return Ok(None) };
        let (what, claims) = (std::mem::take(&mut change.what), std::mem::take(&mut change.claims));
        let patch = change.patch(place);
        let Some(objects) = self.objects(&patch)? else { return Ok(None) };
        let opinions: Vec<Opinion> =
            objects.before.iter().zip(&objects.after).map(|(one, two)| one.compare(two)).collect();
        let is_shipped =
            claims.ships.as_ref().is_none_or(|bytes| objects.after.iter().any(|one| one.holds(bytes)));
        let is_there = claims
            .exists
            .as_ref()
            .is_none_or(|name| opinions.iter().any(|opinion| opinion.functions.contains_key(name)));
        let reaches = opinions.iter().any(|opinion| opinion.differs) && is_shipped && is_there;
        if operator.expected != Expected::Nothing && !reaches {
            return Ok(None);
        }
        let output = tempfile::tempdir()?;
        let mut refusals = Vec::new();
        let outcome = match self.build(&patch, output.path()) {
            Err(error) => Outcome::Broke(format!("{error:#}")),
            Ok(built) => {
                refusals.extend(built.report.refusals.iter().map(|refusal| refusal.refusal.to_string()));
                match said(&built) {
                    Err(error) => Outcome::Broke(format!("{error:#}")),
                    Ok(said) => judge(operator.expected, &claims, &opinions, &built.report, &said),
                }
            }
        };
        Ok(Some(Trial { operator: operator.name, what, outcome, refusals }))
    }

    /// Both objects of each unit as the differ gets them; `None` if the text does not compile.
    fn objects(&self, patch: &kmend_compile::PatchFile) -> Result<Option<Objects>> {
        let units = match self.compiled(patch)? {
            Ok(units) => units,
            Err(Failure::Refused { .. }) => return Ok(None),
            Err(Failure::Failed(error)) => return Err(error.into()),
        };
        let listing = |bytes: &[u8]| Listing::of(bytes);
        Ok(Some(Objects {
            before: units.iter().map(|unit| listing(&unit.original)).collect::<Result<_>>()?,
            after: units.iter().map(|unit| listing(&unit.patched)).collect::<Result<_>>()?,
        }))
    }

    fn build(&self, patch: &kmend_compile::PatchFile, output: &Path) -> Result<Built> {
        let request = Request {
            cache: &self.cache,
            kernel: &self.kernel,
            patches: vec![patch.clone()],
            name: None,
            replace: false,
            fixes: Vec::new(),
            engine: None,
            output: output.to_owned(),
            explain: false,
            signer: None,
        };
        Ok(kmend_build::build(&request, &|_| {})?)
    }
}

fn said(built: &Built) -> Result<Said> {
    let codes: BTreeSet<Code> = built.report.refusals.iter().map(kmend_build::RefusalReport::code).collect();
    if let Some(error) = built.report.refusals.iter().find(|refusal| refusal.code().kind() == Kind::Error) {
        bail!("{}", error.refusal);
    }
    if !codes.is_empty() && codes.iter().all(|code| code.kind() == Kind::Nothing) {
        return Ok(Said::Nothing);
    }
    if !codes.is_empty() {
        let names: Vec<&str> = codes.iter().map(|code| code.name()).collect();
        return Ok(Said::Refused(names.join(" ")));
    }
    let module = built.module.as_deref().context("there is no module and no refusal")?;
    let links = Command::new("readelf").args(["-r", "-W"]).arg(module).run()?.text();
    Ok(Said::Built(Box::new(Module { listing: Listing::of(&fs::read(module)?)?, links })))
}

/// Whether what kmend says is right.
fn judge(expected: Expected, claims: &Claims, opinions: &[Opinion], report: &Report, said: &Said) -> Outcome {
    let module = match said {
        Said::Refused(codes) if expected == Expected::Refused => {
            return Outcome::RightlyRefused(codes.clone());
        }
        Said::Refused(codes) => return Outcome::Refused(codes.clone()),
        Said::Nothing => None,
        Said::Built(module) => Some(module),
    };
    if let Some(missed) = missed(expected, claims, opinions, report, module.map(AsRef::as_ref)) {
        return Outcome::Missed(missed);
    }
    match too_much(opinions, report) {
        Some(much) => Outcome::WronglyChanged(much),
        None => Outcome::Right,
    }
}

fn names(report: &Report, status: Status) -> BTreeSet<String> {
    let functions = report.units.iter().flat_map(|unit| &unit.functions);
    let of = functions.filter(|function| function.status == status);
    of.map(|function| kmend_diff::source_function(&function.name)).collect()
}

/// What should have been found, or refused.
fn missed(
    expected: Expected,
    claims: &Claims,
    opinions: &[Opinion],
    report: &Report,
    module: Option<&Module>,
) -> Option<String> {
    let is_constant = |name: &String| opinions.iter().any(|opinion| opinion.constants.contains(name));
    if expected == Expected::Refused && !claims.renamed.as_ref().is_some_and(is_constant) {
        return Some(format!(
            "it must be refused, and {}",
            if module.is_some() { "is built" } else { "nothing changes" }
        ));
    }
    let (changed, new) = (names(report, Status::Changed), names(report, Status::New));
    for opinion in opinions {
        let differs = opinion.functions.iter().filter(|(_, verdict)| **verdict == Verdict::Differs);
        for (name, _) in differs.filter(|(name, _)| !changed.contains(*name) && !new.contains(*name)) {
            if !claims.gone.contains(name) && !claims.lives.contains(name) {
                let first = opinion.firsts.get(name).map_or("", String::as_str);
                return Some(format!("{name} differs ({first}), and is not among the changed: {changed:?}"));
            }
        }
        let is_told = |name: &str| {
            report.units.iter().flat_map(|unit| &unit.updates).any(|update| update.variable == name)
        };
        if let Some((name, how)) = opinion.variables.iter().find(|(name, _)| !is_told(name)) {
            return Some(format!("{name} changes {how}, and that is not refused"));
        }
    }
    if let Some(gone) = claims.gone.iter().find(|name| changed.contains(*name)) {
        return Some(format!("{gone} is redirected, and its memory has been freed"));
    }
    let Some(module) = module else {
        return (expected == Expected::Changed)
            .then(|| "something changes, and nothing is said to".to_owned());
    };
    let defined = module.listing.defined();
    // A function that lives is in the module if it is redirected to it.
    let is_doubled = |name: &&String| defined.contains(*name) && !changed.contains(*name);
    if let Some(name) = claims.lives.iter().find(is_doubled) {
        return Some(format!("{name} lives in the kernel, and the module has its own"));
    }
    if let Some(name) = &claims.ends
        && !opinions
            .iter()
            .filter_map(|opinion| opinion.sizes.get(name))
            .any(|&size| leads(&module.links, name, size))
    {
        return Some(format!("nothing leads to the end of the living {name}"));
    }
    let lacks = claims.ships.as_ref().filter(|bytes| !module.listing.holds(bytes));
    lacks.map(|bytes| format!("the module lacks what is new: {:?}", String::from_utf8_lossy(bytes)))
}

/// Whether a relocation leads to a variable's end, from an instruction that counts from its own end or not.
fn leads(links: &str, name: &str, size: u64) -> bool {
    let ends = [
        format!(".{name},0 + {size:x}"),
        format!(".{name},1 + {size:x}"),
        format!(".{name},0 + {:x}", size - 4),
    ];
    links.lines().any(|line| ends.iter().any(|end| line.trim_end().ends_with(end)))
}

/// What is exchanged and the same.
fn too_much(opinions: &[Opinion], report: &Report) -> Option<String> {
    for function in report.units.iter().flat_map(|unit| &unit.functions) {
        let name = kmend_diff::source_function(&function.name);
        let is_same = opinions.iter().any(|opinion| opinion.functions.get(&name) == Some(&Verdict::Same));
        let calls = function.reasons.iter().any(|reason| matches!(reason, Reason::Callee { .. }));
        if function.status == Status::Changed && is_same && !calls {
            return Some(format!("{name} is the same, and yet changed: {:?}", function.reasons));
        }
    }
    None
}
