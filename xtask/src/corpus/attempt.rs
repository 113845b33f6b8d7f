//! One fix on its way: applied, built, proven.

use super::index::Fix;
use super::outcome::{Outcome, Record, Refused, functions};
use crate::narrate;
use anyhow::{Context, Result, anyhow};
use kmend_build::{Built, RefusalReport, Report, Request, target};
use kmend_compile::{PatchFile, Prepared};
use kmend_kernel::ModuleTree;
use kmend_refusal::{Code, Kind};
use kmend_store::{Cache, Kernel};
use kmend_vm::{Accelerator, Proof, VmError};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// From power on to power off: modules such as amdgpu take an emulated guest long to load.
const GUEST_TIMEOUT: Duration = Duration::from_secs(180);

/// How the guest begins to tell which tasks hold a transition.
const IN_THE_OLD_STATE: &str = "tasks in the old state";

/// What all fixes share.
pub(crate) struct Workshop {
    pub(crate) cache: Cache,
    pub(crate) kernel: Kernel,
    prepared: Prepared,
    modules: ModuleTree,
    accelerator: Accelerator,
    /// The `kmend` that compares memory in guests.
    kmend: PathBuf,
}

impl Workshop {
    /// Prepares a kernel.
    pub(crate) fn new(cache: Cache, kernel: Kernel) -> Result<Self> {
        let prepared = kmend_compile::prepare(&target(&kernel), &|text| narrate::say(text))?;
        let modules = ModuleTree::open(&kernel.modules)?;
        let accelerator = Accelerator::choose(&kernel.image, Some(cache.root()));
        let kmend = crate::built::kmend()?;
        Ok(Workshop { cache, kernel, prepared, modules, accelerator, kmend })
    }
}

/// How far a fix is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// Its module is built.
    Module,
    /// Its module is proven in a guest.
    Proof,
}

/// Tries a fix. Whatever goes wrong is its outcome.
pub(crate) fn attempt(workshop: &Workshop, fix: &Fix, patch: &[u8], aim: Aim) -> Record {
    let mut record = Record {
        file: fix.file.clone(),
        kind: fix.kind.clone(),
        reversed: false,
        outcome: Outcome::DoesNotApply,
        functions: BTreeSet::new(),
        build: 0.0,
        proof: 0.0,
    };
    // A panic of one fix is its failure, and not the end of the run.
    let result = catch_unwind(AssertUnwindSafe(|| go(workshop, fix, patch, aim, &mut record)));
    record.outcome = match result {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed { error: format!("{error:#}") },
        Err(_) => Outcome::Failed { error: "a panic".into() },
    };
    record
}

fn go(workshop: &Workshop, fix: &Fix, patch: &[u8], aim: Aim, record: &mut Record) -> Result<Outcome> {
    let patch = PatchFile::new(&fix.file, patch);
    let Some(patch) = fitting(workshop, patch, &mut record.reversed)? else {
        return Ok(Outcome::DoesNotApply);
    };
    let output = tempfile::tempdir()?;
    let start = Instant::now();
    let built = build(workshop, patch, output.path());
    record.build = start.elapsed().as_secs_f64();
    let built = built?;
    let refusals = &built.report.refusals;
    // What was added since may need what the fix added.
    if record.reversed && refusals.iter().any(|refusal| refusal.code() == Code::CompileFailed) {
        return Ok(Outcome::DoesNotApply);
    }
    if !refusals.is_empty() {
        return Ok(declined(&built));
    }
    let module = built.module.as_deref().context("there is no module and no refusal")?;
    record.functions = functions(&built.report);
    if aim == Aim::Module {
        return Ok(Outcome::Built);
    }
    let start = Instant::now();
    let outcome = prove(workshop, module, &built.report);
    record.proof = start.elapsed().as_secs_f64();
    outcome
}

/// The patch in the direction in which it applies.
fn fitting(workshop: &Workshop, patch: PatchFile, is_reversed: &mut bool) -> Result<Option<PatchFile>> {
    if kmend_compile::applies(&workshop.prepared, &patch)? {
        return Ok(Some(patch));
    }
    let reversed = kmend_compile::reversed(&patch).map_err(|refusal| anyhow!("{refusal}"))?;
    *is_reversed = kmend_compile::applies(&workshop.prepared, &reversed)?;
    Ok(is_reversed.then_some(reversed))
}

fn build(workshop: &Workshop, patch: PatchFile, output: &Path) -> Result<Built> {
    let request = Request {
        cache: &workshop.cache,
        kernel: &workshop.kernel,
        patches: vec![patch],
        name: None,
        replace: false,
        fixes: Vec::new(),
        engine: None,
        output: output.to_owned(),
        explain: true,
        signer: None,
    };
    Ok(kmend_build::build(&request, &|_| {})?)
}

/// A refusal, or the proof that there is nothing to mend: no object of the file, or the same code.
fn declined(built: &Built) -> Outcome {
    let refusals = &built.report.refusals;
    let text = |refusal: &RefusalReport| refusal.refusal.to_string();
    let is_nothing = |refusal: &RefusalReport| {
        refusal.code().kind() == Kind::Nothing || refusal.code() == Code::NotInKernel
    };
    if refusals.iter().all(is_nothing) {
        return Outcome::Nothing { why: refusals.iter().map(text).collect() };
    }
    let refused =
        |refusal: &RefusalReport| Refused { code: refusal.code().name().into(), text: text(refusal) };
    let reasons = refusals.iter().map(refused).collect();
    // The explanation lists the functions that differ and could be replaced.
    let nothing_else = built.explanation.as_ref().is_some_and(|explanation| explanation.functions.is_empty());
    if nothing_else && refusals.iter().all(|refusal| refusal.code() == Code::ChangedInit) {
        return Outcome::OnlyInit { refusals: reasons };
    }
    Outcome::Refused { refusals: reasons }
}

fn prove(workshop: &Workshop, module: &Path, report: &Report) -> Result<Outcome> {
    let names = kmend_inspect::inspect(module)?.modules();
    let proof = Proof {
        modules: workshop.modules.load_order_of(&names)?,
        accelerator: workshop.accelerator,
        auditor: Some(workshop.kmend.clone()),
        timeout: GUEST_TIMEOUT,
        ..Proof::new(&workshop.kernel.image, module)
    };
    match kmend_vm::prove(&proof) {
        Ok(proven) => Ok(Outcome::Proven { modules: proven.modules }),
        Err(VmError::StepFailed { output, .. }) if output.contains(IN_THE_OLD_STATE) => {
            let tasks: Vec<&str> = output.lines().filter(|line| !line.contains(IN_THE_OLD_STATE)).collect();
            let told = tasks.iter().any(|task| is_told(report, task));
            Ok(Outcome::Stalls { tasks: tasks.join("; "), told })
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a note of the build says that a changed function on a task's stack may hold the transition.
fn is_told(report: &Report, task: &str) -> bool {
    let functions = report.units.iter().flat_map(|unit| &unit.functions);
    let sleeps_in = |name: &str| task.contains(&format!(" {name}+"));
    let names: Vec<&str> =
        functions.map(|function| function.name.as_str()).filter(|name| sleeps_in(name)).collect();
    report.notes.iter().any(|note| {
        note.text.contains("transition")
            && names.iter().any(|name| note.subject == **name || note.text.contains(name))
    })
}
