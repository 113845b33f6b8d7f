//! The differ on real units: it takes nothing for a change that is none, and misses none that is.
//!
//! For each unit, picked evenly over the tree:
//!
//! 1. comments and blank lines at many places change nothing;
//! 2. neither do another folder and another `-frandom-seed`;
//! 3. one constant in one function changes that function and those that hold it, as a simpler comparison of the two
//!    objects sees it too;
//! 4. other numbers in the names of clones and static variables change nothing, nor does a function that is added;
//! 5. the part of its preprocessed text by which kmend decides whether a header's change reaches the unit makes the same code
//!    without the rest.

mod check;
mod constants;
mod edit;
mod plain;
mod random;
mod renumber;
mod units;

pub(crate) use check::Subject;
pub(crate) use edit::lines_at_the_top;
pub(crate) use random::Random;
pub(crate) use units::{evenly, pick, shares};

use crate::several::several;
use crate::{kernels, narrate, packages};
use anyhow::Result;
use check::Seen;
use clap::Args;
use kmend_store::Cache;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The seed unless another is given, so that a run can be repeated.
pub(crate) const SEED: u64 = 1;

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    kernels: kernels::Wanted,
    /// Units of each kernel
    #[arg(long, value_name = "N", default_value_t = 400)]
    units: usize,
    /// Where the random numbers start
    #[arg(long, value_name = "N", default_value_t = SEED)]
    seed: u64,
    /// Units at a time
    #[arg(long, value_name = "N", default_value_t = crate::processors())]
    threads: usize,
    /// Only units whose source holds this text
    filter: Option<String>,
}

/// A unit's source, and what was seen or went wrong.
type Result1 = (String, Result<Seen>);

/// Looks at all units and prints a table. Fails if a unit does.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure()?;
    let cache = Cache::open()?;
    let columns =
        ["kernel", "units", "failed", "constants found", "constants refused", "clones renumbered", "time"];
    let mut table = narrate::table(&columns);
    let mut failures = Vec::new();
    for kernel in options.kernels.names() {
        let start = Instant::now();
        let subject = Subject::new(cache.clone(), kernels::choose(&cache, kernel)?)?;
        let release = subject.kernel.release.clone();
        let results = all(&subject, options)?;
        let count = |of: &dyn Fn(&Seen) -> usize| {
            results.iter().filter_map(|(_, seen)| seen.as_ref().ok().map(of)).sum::<usize>().to_string()
        };
        let failed = results.iter().filter(|(_, seen)| seen.is_err()).count();
        table.add_row([
            release.clone(),
            results.len().to_string(),
            failed.to_string(),
            count(&|seen| seen.constants),
            count(&|seen| seen.refused),
            count(&|seen| seen.clones),
            narrate::seconds(start.elapsed()),
        ]);
        let failed = results.into_iter().filter_map(|(source, seen)| seen.err().map(|error| (source, error)));
        failures.extend(failed.map(|(source, error)| (release.clone(), source, error)));
    }
    for (release, source, error) in &failures {
        println!("\nFAILED on {release}: {error:#}");
        narrate::say(&format!("cargo xtask selfcheck --kernel {release} --seed {} {source}", options.seed));
    }
    println!("\n{table}\nseed {}", options.seed);
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Looks at the units of a kernel, several at a time.
fn all(subject: &Subject, options: &Options) -> Result<Vec<Result1>> {
    let mut sources = pick(subject, options.units);
    if let Some(text) = &options.filter {
        // A unit that is asked for is looked at, whether it would be picked or not.
        sources = pick(subject, usize::MAX);
        sources.retain(|source| source.contains(text));
    }
    let done = AtomicUsize::new(0);
    several(options.threads, &sources, |_, source| {
        let start = Instant::now();
        let seen = subject.check(source, options.seed);
        let word = if seen.is_ok() { "ok" } else { "FAILED" };
        let number = done.fetch_add(1, Ordering::Relaxed) + 1;
        let time = narrate::seconds(start.elapsed());
        narrate::say(&format!("{number}/{} {source} {word} ({time})", sources.len()));
        (source.clone(), seen)
    })
}
