//! The consistency engine under the load: patches enabled and disabled under every model, with tracers at the same functions.

use super::guest::{file, run as boot};
use super::sample::Sample;
use super::spread;
use crate::trial::{ENGINE_PRELUDE, engine_modules};
use crate::{kernels, narrate, packages};
use anyhow::{Context, Result, ensure};
use clap::Args;
use clap::builder::PossibleValuesParser;
use kmend_store::{Cache, Kernel};
use kmend_vm::{Accelerator, Machine, Scenario, Step};
use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that a round may take: two transitions, each of which the guest gives up after this time at the latest.
const LONGEST_ROUND: Duration = Duration::from_secs(200);
/// From power on to the first round, and from the last to the end.
const AROUND: Duration = Duration::from_secs(240);
/// Rounds before the first look at the memory: each patch under each of the tracers, because what the first ones allocate stays.
const WARM_UP: u32 = 12;

/// How much, of which kernels and models.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    kernels: kernels::Wanted,
    /// Consistency models [default: all]
    #[arg(long = "model", value_name = "M", value_parser = PossibleValuesParser::new(kmend_engine::models()))]
    models: Vec<String>,
    /// Rounds of each model on each kernel: a patch is enabled and disabled
    #[arg(long, value_name = "N", default_value_t = 500)]
    rounds: u32,
    /// Guests at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
}

/// What the rounds of a guest took.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Times {
    /// Seconds.
    enable: Vec<f64>,
    /// Seconds.
    disable: Vec<f64>,
    /// Seconds for which all CPUs, or all of user space, were held.
    held: Vec<f64>,
}

impl Times {
    /// Reads the lines that begin with `round`.
    fn parse(text: &str) -> Result<Times> {
        let mut times = Times::default();
        for line in text.lines().filter(|line| line.starts_with("round ")) {
            let number = |word: &str| word.parse::<f64>().with_context(|| format!("no number: {line}"));
            match line.split(' ').collect::<Vec<_>>()[..] {
                [_, _, "enable", a, b, "disable", c, d, "held", first, second] => {
                    times.enable.push(number(b)? - number(a)?);
                    times.disable.push(number(d)? - number(c)?);
                    times.held.extend([number(first)? / 1e9, number(second)? / 1e9]);
                }
                _ => anyhow::bail!("the guest's line is not understood: {line}"),
            }
        }
        Ok(times)
    }
}

/// Tortures all models on all kernels and prints the table. Fails if a guest does.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure()?;
    let cache = Cache::open()?;
    let mut table =
        narrate::table(&["kernel", "model", "rounds", "enable", "disable", "held, longest", "time"]);
    let mut failed = 0;
    for kernel in options.kernels.names() {
        let kernel = kernels::choose(&cache, kernel)?;
        let accelerator = Accelerator::choose(&kernel.image, Some(cache.root()));
        for (model, time, result) in all(&kernel, accelerator, options)? {
            match result {
                Ok(times) => drop(table.add_row(row(&kernel.release, &model, time, times))),
                Err(error) => {
                    failed += 1;
                    println!("\nFAILED on {}: {model}: {error:#}", kernel.release);
                }
            }
        }
    }
    println!("\n{table}\ntimes: median, and the longest; {failed} guests failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(release: &str, model: &str, time: Duration, times: Times) -> [String; 7] {
    let held = times.held.iter().copied().fold(0.0, f64::max);
    [
        release.to_owned(),
        model.to_owned(),
        times.enable.len().to_string(),
        spread(times.enable),
        spread(times.disable),
        if held > 0.0 { format!("{:.1} ms", held * 1e3) } else { "-".to_owned() },
        narrate::seconds(time),
    ]
}

/// How a model's guest ended, and after how long.
type Outcome = (String, Duration, Result<Times>);

/// A guest for each model, several at a time.
fn all(kernel: &Kernel, accelerator: Accelerator, options: &Options) -> Result<Vec<Outcome>> {
    let models = if options.models.is_empty() {
        kmend_engine::models().into_iter().map(str::to_owned).collect()
    } else {
        options.models.clone()
    };
    let folder = tempfile::tempdir()?;
    let modules = folder.path();
    let files = engine_modules(kernel, modules)?;
    let (queue, outcomes) = (Mutex::new(VecDeque::from(models)), Mutex::new(Vec::new()));
    let work = || {
        while let Some(model) = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
            let start = Instant::now();
            let mut scenario = Scenario::new(&kernel.image);
            scenario.machine = Machine { accelerator, ..Machine::new(&kernel.image) };
            scenario.files.clone_from(&files);
            let result = torture(scenario, &[&model], options.rounds);
            narrate::say(&format!("{} {model}: {}", kernel.release, narrate::seconds(start.elapsed())));
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((model, start.elapsed(), result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(outcomes)
}

/// A few rounds of every model in one guest.
pub(crate) fn sample(kernel: &Kernel, accelerator: Accelerator, rounds: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut scenario = Scenario::new(&kernel.image);
    scenario.machine = Machine { accelerator, ..Machine::new(&kernel.image) };
    scenario.files = engine_modules(kernel, folder.path())?;
    torture(scenario, &kmend_engine::models(), rounds).map(drop)
}

/// Boots the guest. Any complaint of the kernel, a transition that does not end or ends otherwise, a tracer that does not see what
/// it should, and anything that is left is an error.
fn torture(mut scenario: Scenario, models: &[&str], rounds: u32) -> Result<Times> {
    let all = u32::try_from(models.len()).context("too many models")? * rounds;
    scenario.machine.timeout = AROUND + LONGEST_ROUND * (WARM_UP + all);
    let script = |name: &str, guest: &str| file(crate::root().join("xtask/src/torture").join(name), guest);
    scenario.files.extend([script("guest.sh", "/torture.sh"), script("engine.sh", "/engine.sh")]);
    let step = |name: &str, command: &str| Step::Run {
        name: name.into(),
        command: format!("{ENGINE_PRELUDE}\n. /torture.sh\n. /engine.sh\n{command}\n"),
    };
    let each = models.iter().map(|model| step(model, &format!("engine_torture {model} {rounds}")));
    scenario.steps = [
        step("load", "settle && engine_load"),
        step("warm up", &format!("engine_torture {} {WARM_UP}", models.first().context("no model")?)),
        step("before", "sample"),
    ]
    .into_iter()
    .chain(each)
    .chain([step("after", "sample"), step("unload", "engine_unload")])
    .collect();
    let outcomes = boot(&scenario)?;
    let [_, _, before, rest @ .., after, _] = &outcomes[..] else {
        anyhow::bail!("the guest did {} steps", outcomes.len());
    };
    let leaks = Sample::parse(&before.text())?.leaks(&Sample::parse(&after.text())?, u64::from(all));
    ensure!(leaks.is_empty(), "something is left:\n  {}", leaks.join("\n  "));
    let times = Times::parse(&rest.iter().map(kmend_vm::StepOutcome::text).collect::<String>())?;
    ensure!(times.enable.len() == all as usize, "{} of {all} rounds were done", times.enable.len());
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_what_the_guest_prints() {
        let text = "x\nround 1 enable 10.00 11.50 disable 12.00 14.00 held 0 2000000\n";
        let times = Times::parse(text).unwrap();
        assert_eq!(times, Times { enable: vec![1.5], disable: vec![2.0], held: vec![0.0, 0.002] });
        assert!(Times::parse("round 1 enable 10.00\n").is_err());
        assert!(Times::parse("round 1 enable x 1 disable 1 2 held 0 0\n").is_err());
    }
}
