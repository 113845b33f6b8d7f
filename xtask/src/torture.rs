//! Livepatches loaded, unloaded and replaced under a load, and kmend killed at random moments, until something breaks.

mod engine;
mod guest;
mod kept;
mod kills;
mod sample;

pub(crate) use engine::sample as engine_sample;
pub(crate) use guest::{Amount, Supplies, Workshop};

use crate::selfcheck::SEED;
use crate::several::several;
use crate::{built, kernels, narrate, packages};
use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::Table;
use guest::Times;
use kept::Kept;
use kills::{Kill, Seen};
use kmend_store::Cache;
use kmend_vm::Accelerator;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

/// Rounds and replaces that one guest does at most: as many as it takes to tell a leak from what comes and goes.
const MOST_ROUNDS: u32 = 300;
/// Kills in one guest.
const MOST_KILLS: usize = 100;

/// What the guests run besides kmend, below the workspace's folder.
const INPUTS: [&str; 5] = [
    "xtask/src/torture/guest.sh",
    "xtask/src/torture/kills.sh",
    "tests/torture/hog.c",
    "tests/torture/one.patch",
    "tests/torture/two.patch",
];

/// How much, and of which kernels.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    of: Option<Of>,
    #[command(flatten)]
    kernels: kernels::Wanted,
    /// Loads and unloads of each kernel
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rounds: u32,
    /// Atomic replaces of each kernel
    #[arg(long, value_name = "N", default_value_t = 200)]
    replaces: u32,
    /// Kills of each kernel, of each of load, unload, install and uninstall
    #[arg(long, value_name = "N", default_value_t = 50)]
    kills: u32,
    /// Where the random moments of the kills start
    #[arg(long, value_name = "N", default_value_t = SEED)]
    seed: u64,
    /// Guests at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Do not go on with what an earlier run has done
    #[arg(long)]
    fresh: bool,
}

/// What else there is to torture.
#[derive(Debug, Subcommand)]
enum Of {
    /// The consistency engine: every model under the load, with tracers at the patched functions
    Engine(engine::Options),
}

/// What one guest does.
#[derive(Debug)]
enum Job {
    Rounds(Amount),
    Kills(Vec<Kill>),
}

/// What became of the guests of a kernel.
#[derive(Debug, Default)]
struct Results {
    guests: usize,
    failed: usize,
    times: Times,
    seen: Seen,
}

/// Tortures all kernels and prints the tables. Fails if a guest does.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(Of::Engine(options)) = &options.of {
        return engine::run(options);
    }
    packages::ensure()?;
    let (cache, kmend) = (Cache::open()?, built::kmend()?);
    let mut rounds = narrate::table(&[
        "kernel", "guests", "failed", "rounds", "replaces", "load", "unload", "replace", "time",
    ]);
    let mut kills = narrate::table(&["kernel", "killed", "times", "what was left"]);
    let mut failed = 0;
    for kernel in options.kernels.names() {
        let start = Instant::now();
        let kernel = kernels::choose(&cache, kernel)?;
        let inputs = INPUTS.iter().map(|input| crate::root().join(input)).chain([kmend.clone()]);
        let kept = Kept::open(&kernel, "livepatch", inputs)?;
        if options.fresh {
            kept.forget()?;
        }
        let folder = tempfile::tempdir()?;
        let supplies = Supplies::build(&cache, &kernel, folder.path())?;
        let accelerator = Accelerator::choose(&kernel.image, Some(cache.root()));
        let workshop = Workshop { kernel: &kernel, accelerator, kmend: &kmend, supplies };
        let results = all(&workshop, &kept, &jobs(options, &kernel.release), options)?;
        failed += results.failed;
        let time = narrate::seconds(start.elapsed());
        add_rows(&mut rounds, &mut kills, &kernel.release, results, time);
    }
    println!("\n{rounds}\ntimes: median, and the longest\n\n{kills}\nseed {}", options.seed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is to be done with a kernel, a guest each.
fn jobs(options: &Options, release: &str) -> Vec<Job> {
    let amount = Amount { rounds: options.rounds, replaces: options.replaces };
    let rounds = amount.split(amount.all().div_ceil(MOST_ROUNDS)).into_iter().map(Job::Rounds);
    let plan = kills::plan(options.seed, release, options.kills);
    let kills = plan.chunks(MOST_KILLS).map(|kills| Job::Kills(kills.to_vec()));
    rounds.chain(kills).collect()
}

/// Does what is not done yet, several guests at a time. One that fails is told of at once.
fn all(workshop: &Workshop<'_>, kept: &Kept, jobs: &[Job], options: &Options) -> Result<Results> {
    let done = several(options.threads, jobs, |number, job| {
        let start = Instant::now();
        let result = job.run(workshop, kept, &format!("{number} {job:?}"));
        let (guest, time, what) = (number + 1, narrate::seconds(start.elapsed()), job.what());
        match &result {
            Ok(_) => narrate::say(&format!("guest {guest}/{} ok ({time}): {what}", jobs.len())),
            Err(error) => {
                let release = &workshop.kernel.release;
                println!("\nFAILED on {release}: guest {guest} ({time}): {what}: {error:#}");
            }
        }
        result.ok()
    })?;
    let mut results = Results { guests: done.len(), ..Results::default() };
    for done in done {
        let Some((times, seen)) = done else {
            results.failed += 1;
            continue;
        };
        results.times.extend(times);
        results.seen.extend(&seen);
    }
    Ok(results)
}

impl Job {
    /// Boots the guest, unless an earlier run did so for the same.
    fn run(&self, workshop: &Workshop<'_>, kept: &Kept, name: &str) -> Result<(Times, Seen)> {
        if let Some(done) = kept.find(name) {
            return Ok(done);
        }
        let done = match self {
            Job::Rounds(amount) => (workshop.rounds(*amount)?, Seen::default()),
            Job::Kills(kills) => (Times::default(), workshop.kills(kills)?),
        };
        kept.keep(name, &done)?;
        Ok(done)
    }

    fn what(&self) -> String {
        match self {
            Job::Rounds(amount) => format!("{} rounds, {} replaces", amount.rounds, amount.replaces),
            Job::Kills(kills) => format!("{} kills", kills.len()),
        }
    }
}

fn add_rows(rounds: &mut Table, kills: &mut Table, release: &str, results: Results, time: String) {
    let times = results.times;
    rounds.add_row([
        release.to_owned(),
        results.guests.to_string(),
        results.failed.to_string(),
        times.loads.len().to_string(),
        times.replaces.len().to_string(),
        spread(times.loads),
        spread(times.unloads),
        spread(times.replaces),
        time,
    ]);
    for (kind, states) in &results.seen.0 {
        let count = states.values().sum::<u32>();
        kills.add_row([release.to_owned(), kind.name().to_owned(), count.to_string(), counts(states)]);
    }
}

/// How often what was seen.
fn counts(states: &BTreeMap<String, u32>) -> String {
    states.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join("; ")
}

/// The median and the longest, for people.
fn spread(mut seconds: Vec<f64>) -> String {
    seconds.sort_by(f64::total_cmp);
    match (seconds.get(seconds.len() / 2), seconds.last()) {
        (Some(median), Some(longest)) => format!("{median:.1} s, {longest:.1} s"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), "2.0 s, 3.0 s");
        assert_eq!(spread(Vec::new()), "-");
    }
}
