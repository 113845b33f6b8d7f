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
//!    without the rest;
//! 6. some of the operators change what their row says, or are refused where that is right ([`operators`]).

mod check;
mod constants;
mod edit;
mod listing;
mod operators;
mod plain;
mod random;
mod renumber;
mod source;
mod tally;
mod trial;
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
use trial::Which;

/// The seed unless another is given, so that a run can be repeated.
pub(crate) const SEED: u64 = 1;

/// Stands for all operators.
const EVERY: &str = "all";

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
    /// Operators for each unit: edits of its source whose right outcome is known
    #[arg(long, value_name = "N", default_value_t = 3)]
    operators: usize,
    /// Nothing but the operators, or the one of this name
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = EVERY)]
    operator: Option<String>,
    /// Only units whose source holds this text
    filter: Option<String>,
}

/// What was seen in a unit.
#[derive(Default)]
struct Looked {
    seen: Seen,
    trials: Vec<trial::Trial>,
}

/// A unit's source, and what was seen or went wrong.
type Result1 = (String, Result<Looked>);

/// Looks at all units and prints tables. Fails if a unit does.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure()?;
    if let Which::Named(name) = options.which() {
        operators::check_name(name)?;
    }
    let cache = Cache::open()?;
    let columns =
        ["kernel", "units", "failed", "constants found", "constants refused", "clones renumbered", "time"];
    let mut table = narrate::table(&columns);
    let (mut failures, mut tried) = (Vec::new(), tally::Tally::default());
    for kernel in options.kernels.names() {
        let start = Instant::now();
        let subject = Subject::new(cache.clone(), kernels::choose(&cache, kernel)?)?;
        let release = subject.kernel.release.clone();
        let results = all(&subject, options)?;
        let count = |of: &dyn Fn(&Seen) -> usize| {
            let looked = results.iter().filter_map(|(_, looked)| looked.as_ref().ok());
            looked.map(|looked| of(&looked.seen)).sum::<usize>().to_string()
        };
        let failed = results.iter().filter(|(_, looked)| looked.is_err()).count();
        table.add_row([
            release.clone(),
            results.len().to_string(),
            failed.to_string(),
            count(&|seen| seen.constants),
            count(&|seen| seen.refused),
            count(&|seen| seen.clones),
            narrate::seconds(start.elapsed()),
        ]);
        for (source, looked) in results {
            match looked {
                Ok(looked) => tried.add(&release, &source, options.seed, looked.trials),
                Err(error) => failures.push((release.clone(), source, error)),
            }
        }
    }
    for (release, source, error) in &failures {
        println!("\nFAILED on {release}: {error:#}");
        narrate::say(&format!("cargo xtask selfcheck --kernel {release} --seed {} {source}", options.seed));
    }
    tried.print_failures();
    println!("\n{table}\n{}\nseed {}", tried.table(), options.seed);
    Ok(if failures.is_empty() && tried.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Looked {
    fn is_good(&self) -> bool {
        self.trials.iter().all(|trial| !trial.outcome.is_failure())
    }
}

impl Options {
    fn which(&self) -> Which<'_> {
        self.operator.as_deref().filter(|name| *name != EVERY).map_or(Which::All, Which::Named)
    }

    fn look(&self, subject: &Subject, source: &str) -> Result<Looked> {
        let seen =
            if self.operator.is_some() { Seen::default() } else { subject.check(source, self.seed)? };
        let trials = subject.operate(source, self.seed, self.operators, self.which())?;
        for trial in trials.iter().filter(|trial| !trial.refusals.is_empty() && self.operator.is_some()) {
            narrate::say(&format!("{}, {}: {}", trial.operator, trial.what, trial.refusals.join("; ")));
        }
        Ok(Looked { seen, trials })
    }
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
        let looked = options.look(subject, source);
        let word = if looked.as_ref().is_ok_and(Looked::is_good) { "ok" } else { "FAILED" };
        let number = done.fetch_add(1, Ordering::Relaxed) + 1;
        let time = narrate::seconds(start.elapsed());
        narrate::say(&format!("{number}/{} {source} {word} ({time})", sources.len()));
        (source.clone(), looked)
    })
}
