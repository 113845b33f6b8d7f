//! What kmend costs, as ratios in one run: the machine's own speed then does not matter.
//!
//! Nothing is asserted. docs/performance.md explains the numbers.

mod by_hand;
mod cold;
mod engine;
mod headers;
mod memory;

use crate::selfcheck::lines_at_the_top;
use crate::{built, kernels, narrate, packages};
use anyhow::{Context, Result};
use clap::ValueEnum;
use kmend_build::target;
use kmend_build::{Built, Request, Stage};
use kmend_compile::{Database, PatchFile};
use kmend_store::{Cache, Kernel};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// The patch of one unit, from the workspace's folder, and the unit.
const PATCH: &str = "examples/meminfo.patch";
const UNIT: &str = "fs/proc/meminfo.c";
/// Each time is the median of so many.
const ROUNDS: usize = 5;
/// Sources among which the unit that takes the differ longest is looked for: those with the most functions.
const CANDIDATES: usize = 6;

/// A number, how it compares, and what it should be.
type Row = [String; 4];

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A patch of one unit
    Unit,
    /// The match and the differ on the unit on which they take longest
    Differ,
    /// A patch to a header that reaches many units
    Header,
    /// The consistency engine, in instructions
    Engine,
}

/// Measures everything, or a part, and prints each part's table as soon as it is measured.
pub(crate) fn run(part: Option<Part>) -> Result<()> {
    packages::ensure()?;
    if part != Some(Part::Engine) {
        of_the_build(part)?;
    }
    if part.is_none_or(|part| part == Part::Engine) {
        narrate::heading("the consistency engine");
        print("the consistency engine", engine::run(&Cache::open()?)?);
    }
    Ok(())
}

/// What a build costs, all or a part, on a kernel that is fetched anew.
fn of_the_build(part: Option<Part>) -> Result<()> {
    let wants = |one: Part| part.is_none_or(|part| part == one);
    let kmend = built::kmend()?;
    narrate::heading("cold start");
    let folder = tempfile::tempdir_in(kmend.parent().context("a program is in a folder")?)?;
    let cache = Cache::at(folder.path())?;
    let (kernel, rows) = cold::run(&cache, kernels::FIRST)?;
    let print = |part: &str, rows| {
        print(&format!("{part}: {} on {} processors", kernel.release, crate::processors()), rows);
    };
    print("cold start", rows);
    if wants(Part::Unit) {
        narrate::heading("one unit");
        print(&format!("one unit, medians of {ROUNDS}"), one_unit(&cache, &kernel, &kmend)?);
    }
    if wants(Part::Differ) {
        narrate::heading("the unit that takes the differ longest");
        print(&format!("the differ, medians of {ROUNDS}"), slowest_unit(&cache, &kernel)?);
    }
    if wants(Part::Header) {
        narrate::heading("a header that reaches many units");
        print("a header", headers::run(&cache, &kernel)?);
    }
    Ok(())
}

fn print(heading: &str, rows: Vec<Row>) {
    let mut table = narrate::table(&["what", "measured", "ratio", "aim"]);
    table.add_rows(rows);
    println!("\n{heading}\n{table}");
}

fn row(what: &str, measured: &str, ratio: &str, aim: &str) -> Row {
    [what, measured, ratio, aim].map(str::to_owned)
}

/// Builds the example by hand and by kmend in turns, so that what else goes on hits both.
fn one_unit(cache: &Cache, kernel: &Kernel, kmend: &Path) -> Result<Vec<Row>> {
    let hand = by_hand::ByHand::new(cache, kernel, UNIT)?;
    let output = tempfile::tempdir()?;
    let output = output.path().to_str().context("the temporary folder's name is no text")?;
    let build = ["build", PATCH, "--kernel", &kernel.release, "--output", output];
    let command = built::line(kmend, &build).0.env("KMEND_CACHE", cache.root());
    let source = kernel.source.join(UNIT);
    let (mut by_hand, mut first, mut second, mut peak) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 1..=ROUNDS {
        narrate::say(&format!("round {round} of {ROUNDS}: by hand, first build, second build"));
        by_hand.push(time(|| hand.run())?);
        // What is kept of the original is not used when a file it came from is newer.
        File::options().append(true).open(&source)?.set_modified(SystemTime::now())?;
        let (result, memory) = memory::peak_of("kmend", || time(|| Ok(command.run()?)));
        first.push(result?);
        peak = peak.max(memory);
        second.push(time(|| Ok(command.run()?))?);
    }
    let [hand, first, second] = [by_hand, first, second].map(median);
    let ratio = |time: Duration| format!("{:.2}", time.as_secs_f64() / hand.as_secs_f64());
    let mut rows = vec![
        row("two compiles and the module step by hand", &narrate::seconds(hand), "1", ""),
        row("kmend build, the unit's first", &narrate::seconds(first), &ratio(first), "2.5, and 5 s"),
        row("kmend build, the unit's second", &narrate::seconds(second), &ratio(second), ""),
    ];
    rows.extend(stages(cache, kernel)?);
    rows.push(row("memory of kmend build at its peak", &format!("{} MiB", peak / 1024), "", "1024 MiB"));
    Ok(rows)
}

/// Where the time of a second build goes.
fn stages(cache: &Cache, kernel: &Kernel) -> Result<Vec<Row>> {
    let patch = fs::read(crate::root().join(PATCH))?;
    let mut builds = Vec::new();
    for _ in 0..ROUNDS {
        builds.push(build(cache, kernel, PatchFile::new("meminfo.patch", patch.clone()))?);
    }
    let stages: Vec<Stage> =
        builds.first().map(|built| built.times.iter().map(|time| time.0).collect()).unwrap_or_default();
    let of = |stage: &Stage| {
        let name = format!("  of which {}", format!("{stage:?}").to_lowercase());
        row(&name, &format!("{:.2} s", median_of(&builds, *stage).as_secs_f64()), "", "")
    };
    Ok(stages.iter().map(of).collect())
}

/// The match and the differ on the unit on which the differ is slowest.
fn slowest_unit(cache: &Cache, kernel: &Kernel) -> Result<Vec<Row>> {
    let database = kmend_compile::prepare(&target(kernel), &|_| {})?.database;
    let mut slowest = (String::new(), Duration::ZERO);
    for source in richest_sources(&database, kernel, CANDIDATES) {
        let time = median_of(&[build(cache, kernel, null_patch(kernel, &source)?)?], Stage::Diff);
        narrate::say(&format!("{source}: {:.3} s", time.as_secs_f64()));
        if time > slowest.1 {
            slowest = (source, time);
        }
    }
    let source = slowest.0;
    let mut builds = Vec::new();
    for _ in 0..ROUNDS {
        builds.push(build(cache, kernel, null_patch(kernel, &source)?)?);
    }
    let seconds = |stage| format!("{:.2} s", median_of(&builds, stage).as_secs_f64());
    let count = builds.iter().flat_map(|built| &built.report.units).map(|unit| unit.functions_matched).max();
    let name = |stage: &str| format!("{stage} of {source} ({} functions)", count.unwrap_or_default());
    Ok(vec![
        row(&name("diff"), &seconds(Stage::Diff), "", "0.5 s"),
        row(&name("match"), &seconds(Stage::Match), "", ""),
    ])
}

/// The sources of the kernel's units that hold the most functions. The largest files are tables of characters.
fn richest_sources(database: &Database, kernel: &Kernel, count: usize) -> Vec<String> {
    let sources: BTreeSet<&str> = database.units().iter().map(|unit| unit.source.as_str()).collect();
    let functions = |source: &str| {
        let text = fs::read(kernel.source.join(source)).unwrap_or_default();
        // The kernel's style has the brace that opens a function's body alone on its line.
        text.split(|&byte| byte == b'\n').filter(|line| line == b"{").count()
    };
    let mut counts: Vec<(usize, &str)> = sources
        .into_iter()
        .filter(|source| Path::new(source).extension().is_some_and(|extension| extension == "c"))
        .map(|source| (functions(source), source))
        .collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts.into_iter().take(count).map(|(_, source)| source.to_owned()).collect()
}

fn null_patch(kernel: &Kernel, source: &str) -> Result<PatchFile> {
    let text = fs::read(kernel.source.join(source))?;
    Ok(PatchFile { name: "null.patch".into(), ..lines_at_the_top(source, &text) })
}

fn build(cache: &Cache, kernel: &Kernel, patch: PatchFile) -> Result<Built> {
    let output = tempfile::tempdir()?;
    let request = Request {
        cache,
        kernel,
        patches: vec![patch],
        name: None,
        replace: false,
        fixes: Vec::new(),
        engine: None,
        output: output.path().to_owned(),
        explain: false,
        signer: None,
    };
    Ok(kmend_build::build(&request, &|_| {})?)
}

fn time<T>(run: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

/// The median of a stage's times.
fn median_of(builds: &[Built], stage: Stage) -> Duration {
    let times = |built: &Built| built.times.iter().filter(|time| time.0 == stage).map(|time| time.1).sum();
    median(builds.iter().map(times).collect())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let seconds = |numbers: &[u64]| numbers.iter().map(|&number| Duration::from_secs(number)).collect();
        assert_eq!(median(seconds(&[9, 1, 2])), Duration::from_secs(2));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }
}
