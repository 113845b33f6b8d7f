//! The consistency engine under the load: patches enabled and disabled under every model, with tracers at the same functions.

use super::guest::{Amount, file, run as boot};
use super::kept::Kept;
use super::sample::Sample;
use super::spread;
use crate::several::several;
use crate::trial::{ENGINE_PRELUDE, engine_modules};
use crate::{kernels, narrate, packages};
use anyhow::{Context, Result, ensure};
use clap::Args;
use clap::builder::PossibleValuesParser;
use kmend_store::{Cache, Kernel};
use kmend_vm::{Accelerator, GuestFile, Machine, Scenario, Step, StepOutcome};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Rounds of one guest at most: what a leak of one object a round needs to be told from what comes and goes.
const MOST_ROUNDS: u32 = 250;
/// The longest that a round may take: two transitions, each of which the guest gives up after this time at the latest.
const LONGEST_ROUND: Duration = Duration::from_secs(200);
/// From power on to the first round, and from the last to the end.
const AROUND: Duration = Duration::from_secs(240);
/// Rounds under one tracer, of few rounds and of many. Each patch has its turn.
const SPANS: [u32; 2] = [3, 21];
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
    /// Do not go on with what an earlier run has done
    #[arg(long)]
    fresh: bool,
}

/// What one guest does.
#[derive(Debug)]
struct Job {
    model: String,
    rounds: u32,
}

/// What the rounds of a guest took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    /// Seconds.
    enable: Vec<f64>,
    /// Seconds.
    disable: Vec<f64>,
    /// Seconds for which all CPUs, or all of user space, were held.
    held: Vec<f64>,
    /// Seconds from power on to power off.
    guest: f64,
}

impl Times {
    fn extend(&mut self, more: Times) {
        self.enable.extend(more.enable);
        self.disable.extend(more.disable);
        self.held.extend(more.held);
        self.guest += more.guest;
    }

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
        narrate::table(&["kernel", "model", "rounds", "enable", "disable", "held, longest", "guests' time"]);
    let jobs = jobs(options);
    let mut failed = 0;
    for kernel in options.kernels.names() {
        let kernel = kernels::choose(&cache, kernel)?;
        let kept = Kept::open(&kernel, "engine", inputs()?)?;
        if options.fresh {
            kept.forget()?;
        }
        let accelerator = Accelerator::choose(&kernel.image, Some(cache.root()));
        let results = all(&kernel, accelerator, &kept, &jobs, options.threads)?;
        let done: Vec<_> = jobs.iter().zip(results).filter_map(|(job, times)| Some((job, times?))).collect();
        failed += jobs.len() - done.len();
        for model in models(options) {
            let mut times = Times::default();
            done.iter()
                .filter(|(job, _)| job.model == model)
                .for_each(|(_, more)| times.extend(more.clone()));
            table.add_row(row(&kernel.release, model, times));
        }
    }
    println!("\n{table}\ntimes: median, and the longest; {failed} guests failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn models(options: &Options) -> Vec<&str> {
    if options.models.is_empty() {
        kmend_engine::models()
    } else {
        options.models.iter().map(String::as_str).collect()
    }
}

/// What is to be done with a kernel, a guest each.
fn jobs(options: &Options) -> Vec<Job> {
    let amount = Amount { rounds: options.rounds, replaces: 0 };
    let shares = amount.split(options.rounds.div_ceil(MOST_ROUNDS));
    let of = |model: &str| {
        shares.iter().map(|share| Job { model: model.to_owned(), rounds: share.rounds }).collect()
    };
    models(options).into_iter().flat_map(|model| -> Vec<Job> { of(model) }).collect()
}

/// The files that the guests run, besides what is in this program.
fn inputs() -> Result<Vec<PathBuf>> {
    let folder = crate::root().join("engine/test");
    let entries = folder.read_dir().with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    files.extend(["guest.sh", "engine.sh"].map(script));
    Ok(files)
}

fn script(name: &str) -> PathBuf {
    crate::root().join("xtask/src/torture").join(name)
}

fn row(release: &str, model: &str, times: Times) -> [String; 7] {
    let held = times.held.iter().copied().fold(0.0, f64::max);
    [
        release.to_owned(),
        model.to_owned(),
        times.enable.len().to_string(),
        spread(times.enable),
        spread(times.disable),
        if held > 0.0 { format!("{:.1} ms", held * 1e3) } else { "-".to_owned() },
        narrate::seconds(Duration::from_secs_f64(times.guest)),
    ]
}

/// Does what is not done yet, several guests at a time. One that fails is told of at once.
fn all(
    kernel: &Kernel,
    accelerator: Accelerator,
    kept: &Kept,
    jobs: &[Job],
    threads: usize,
) -> Result<Vec<Option<Times>>> {
    let folder = tempfile::tempdir()?;
    let files = engine_modules(kernel, folder.path())?;
    several(threads, jobs, |number, job| {
        let release = &kernel.release;
        let what = format!("guest {}/{}, {}, {} rounds", number + 1, jobs.len(), job.model, job.rounds);
        match job.run(number, kernel, accelerator, &files, kept) {
            Ok(times) => {
                narrate::say(&format!("{release}: {what}: ok ({:.1} s)", times.guest));
                Some(times)
            }
            Err(error) => {
                println!("\nFAILED on {release}: {what}: {error:#}");
                None
            }
        }
    })
}

impl Job {
    /// Boots the guest, unless an earlier run did so for the same.
    fn run(
        &self,
        number: usize,
        kernel: &Kernel,
        accelerator: Accelerator,
        files: &[GuestFile],
        kept: &Kept,
    ) -> Result<Times> {
        let name = format!("{number} {self:?}");
        if let Some(done) = kept.find(&name) {
            return Ok(done);
        }
        let start = Instant::now();
        let mut times = torture(scenario(kernel, accelerator, files.to_vec()), &[&self.model], self.rounds)?;
        times.guest = start.elapsed().as_secs_f64();
        kept.keep(&name, &times)?;
        Ok(times)
    }
}

fn scenario(kernel: &Kernel, accelerator: Accelerator, files: Vec<GuestFile>) -> Scenario {
    let mut scenario = Scenario::new(&kernel.image);
    scenario.machine = Machine { accelerator, ..Machine::new(&kernel.image) };
    scenario.files = files;
    scenario
}

/// A few rounds of every model in one guest.
pub(crate) fn sample(kernel: &Kernel, accelerator: Accelerator, rounds: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = engine_modules(kernel, folder.path())?;
    torture(scenario(kernel, accelerator, files), &kmend_engine::models(), rounds).map(drop)
}

/// Boots the guest. Any complaint of the kernel, a transition that does not end or ends otherwise, a tracer that does not see what
/// it should, and anything that is left is an error.
fn torture(mut scenario: Scenario, models: &[&str], rounds: u32) -> Result<Times> {
    let all = u32::try_from(models.len()).context("too many models")? * rounds;
    scenario.machine.timeout = AROUND + LONGEST_ROUND * (WARM_UP + all);
    scenario.files.extend([file(script("guest.sh"), "/torture.sh"), file(script("engine.sh"), "/engine.sh")]);
    let step = |name: &str, command: &str| Step::Run {
        name: name.into(),
        command: format!("{ENGINE_PRELUDE}\n. /torture.sh\n. /engine.sh\n{command}\n"),
    };
    let [few, many] = SPANS;
    let span = if rounds < 4 * many { few } else { many };
    let each = models.iter().map(|model| step(model, &format!("engine_torture {model} {rounds} {span}")));
    scenario.steps = [
        step("load", "settle && engine_load"),
        step("warm up", &format!("engine_torture {} {WARM_UP} {few}", models.first().context("no model")?)),
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
    let times = Times::parse(&rest.iter().map(StepOutcome::text).collect::<String>())?;
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
        assert_eq!(
            times,
            Times { enable: vec![1.5], disable: vec![2.0], held: vec![0.0, 0.002], guest: 0.0 }
        );
        assert!(Times::parse("round 1 enable 10.00\n").is_err());
        assert!(Times::parse("round 1 enable x 1 disable 1 2 held 0 0\n").is_err());
    }
}
