//! A trial of one patch on one kernel: build it, compare the report, and boot a guest.

use super::Bench;
use super::case::{Case, Expected, Patch};
use super::expectation::{ExpectedRefusal, Test};
use super::guest;
use anyhow::{Result, anyhow, bail, ensure};
use kmend_build::{Built, NoteKind, RefusalReport, Report, Request, Status};
use kmend_refusal::Code;
use kmend_store::Kernel;
use std::collections::BTreeSet;
use std::path::Path;

/// Runs a trial. If it shall not boot, it ends with the module.
pub(crate) fn run(bench: &Bench, kernel: &Kernel, case: &Case, boots: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut built = build(bench, kernel, case, &case.patch, folder.path())?;
    if let Some(alternative) = &case.alternative
        && does_not_apply(&built.report)
        && !is_to_misfit(&case.expected)
    {
        built = build(bench, kernel, case, alternative, folder.path())?;
    }
    match &case.expected {
        Expected::Refused(lines) => check_refused(&built, lines),
        Expected::Nothing(texts) => check_nothing(&built).and_then(|()| check_hunks(&built.report, texts)),
        Expected::Works(test) => check_works(bench, kernel, test, &built, boots),
    }
}

fn build(bench: &Bench, kernel: &Kernel, case: &Case, patch: &Patch, output: &Path) -> Result<Built> {
    let request = Request {
        cache: &bench.cache,
        kernel,
        patches: case.patches(patch),
        name: Some(case.name.clone()),
        replace: false,
        fixes: vec![format!("trial:{}", case.name)],
        engine: None,
        output: output.to_owned(),
        explain: false,
        signer: None,
    };
    Ok(kmend_build::build(&request, &|_| {})?)
}

/// Codes of a patch that does not fit the source.
const MISFITS: [Code; 2] = [Code::PatchDoesNotApply, Code::AmbiguousHunk];

/// Whether the trial is about just that.
fn is_to_misfit(expected: &Expected) -> bool {
    let Expected::Refused(lines) = expected else { return false };
    lines.iter().any(|line| MISFITS.iter().any(|code| code.name() == line.code))
}

fn does_not_apply(report: &Report) -> bool {
    report.refusals.iter().any(|refusal| MISFITS.contains(&refusal.code()))
}

fn is_met(line: &ExpectedRefusal, refusal: &RefusalReport) -> bool {
    refusal.code().name() == line.code
        && (refusal.refusal.to_string().contains(&line.text)
            || refusal.refusal.details.iter().any(|detail| detail.contains(&line.text)))
}

fn check_refused(built: &Built, lines: &[ExpectedRefusal]) -> Result<()> {
    let refusals = &built.report.refusals;
    let unmet = |line: &&ExpectedRefusal| !refusals.iter().any(|refusal| is_met(line, refusal));
    let missing: Vec<String> =
        lines.iter().filter(unmet).map(|line| format!("{} {}", line.code, line.text)).collect();
    ensure!(
        missing.is_empty(),
        "it must be refused with {}, but {}",
        missing.join(" and "),
        outcome(&built.report)
    );
    ensure!(built.module.is_none(), "it is refused, and yet there is a module");
    Ok(())
}

fn check_nothing(built: &Built) -> Result<()> {
    let refusals = &built.report.refusals;
    let only = !refusals.is_empty() && refusals.iter().all(|refusal| refusal.code() == Code::NothingChanges);
    ensure!(only, "nothing must change, but {}", outcome(&built.report));
    Ok(())
}

fn check_works(bench: &Bench, kernel: &Kernel, test: &Test, built: &Built, boots: bool) -> Result<()> {
    let refusals = &built.report.refusals;
    let accepted = |refusal: &RefusalReport| test.or_refused.iter().any(|line| is_met(line, refusal));
    if !refusals.is_empty() {
        ensure!(refusals.iter().all(accepted), "it must work, but {}", outcome(&built.report));
        return Ok(());
    }
    let module = built.module.as_deref().ok_or_else(|| anyhow!("there is no module and no refusal"))?;
    check_functions(&built.report, test)?;
    check_notes(&built.report, test)?;
    check_hunks(&built.report, &test.hunks)?;
    if boots { guest::run(kernel, bench.accelerator, &bench.kmend, test, module) } else { Ok(()) }
}

/// The report's functions are those that the test names, by their names in the source.
fn check_functions(report: &Report, test: &Test) -> Result<()> {
    let Some(expected) = &test.changed else { return Ok(()) };
    let named = |status: Status| -> BTreeSet<String> {
        let functions = report.units.iter().flat_map(|unit| &unit.functions);
        functions.filter(|function| function.status == status).map(|function| plain(&function.name)).collect()
    };
    let changed = named(Status::Changed);
    let new: BTreeSet<String> = named(Status::New).difference(&changed).cloned().collect();
    if (&changed, &new) != (expected, &test.new) {
        bail!(
            "the report has changed {changed:?} and new {new:?}; expected are {expected:?} and {:?}\n{}",
            test.new,
            outcome(report)
        );
    }
    Ok(())
}

/// Each of these texts is in what a hunk comes to, by its file, effect, names and reason.
fn check_hunks(report: &Report, texts: &[String]) -> Result<()> {
    let given: Vec<String> = report
        .hunks
        .iter()
        .map(|hunk| {
            let names: Vec<&str> = hunk.functions.iter().chain(&hunk.variables).map(String::as_str).collect();
            let why = hunk.why.as_deref().unwrap_or_default();
            format!("{} {} {}: {why}", hunk.file, hunk.effect.name(), names.join(" "))
        })
        .collect();
    for text in texts {
        ensure!(given.iter().any(|given| given.contains(text)), "no hunk comes to `{text}`: {given:?}");
    }
    Ok(())
}

/// The report gives the advice, and holds the notes, that the test names, and not the advice that it rules out.
fn check_notes(report: &Report, test: &Test) -> Result<()> {
    let given = |kind: NoteKind| -> Vec<String> {
        let notes = report.notes.iter().filter(|note| note.kind == kind);
        notes.map(|note| format!("{}: {}", note.subject, note.text)).collect()
    };
    for (kind, texts) in [(NoteKind::Advice, &test.advice), (NoteKind::Fact, &test.notes)] {
        let given = given(kind);
        for text in texts {
            ensure!(given.iter().any(|given| given.contains(text)), "no {kind:?} holds `{text}`: {given:?}");
        }
    }
    for advice in given(NoteKind::Advice) {
        let is_ruled_out = test.no_advice.iter().any(|text| advice.contains(text));
        ensure!(!is_ruled_out, "advice that should not be given: {advice}");
    }
    Ok(())
}

/// A function's name in the source: names of C have no dot, so all from the first is the compiler's.
fn plain(name: &str) -> String {
    name.split('.').next().unwrap_or(name).to_owned()
}

/// What became of a build, for a message.
fn outcome(report: &Report) -> String {
    if report.refusals.is_empty() {
        let functions = report.units.iter().flat_map(|unit| &unit.functions);
        let lines: Vec<String> = functions
            .map(|function| format!("  {:?} {}: {:?}", function.status, function.name, function.reasons))
            .collect();
        return format!("it was built with\n{}", lines.join("\n"));
    }
    let text = |refusal: &RefusalReport| {
        let mut lines = vec![format!("  {}", refusal.refusal)];
        lines.extend(refusal.refusal.details.iter().map(|detail| format!("      {detail}")));
        lines.join("\n")
    };
    let refusals: Vec<String> = report.refusals.iter().map(text).collect();
    format!("it was refused:\n{}", refusals.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_endings_are_taken_off() {
        assert_eq!(plain("do_sysinfo.isra.0.cold"), "do_sysinfo");
        assert_eq!(plain("show"), "show");
    }
}
