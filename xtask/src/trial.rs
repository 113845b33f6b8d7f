//! Trials: what kmend does with real patches to real kernels, each kernel and patch in its own guest.

mod case;
mod corpus;
mod debian;
pub(crate) mod engine;
mod engine_build;
mod expectation;
mod guest;
mod kallsyms;
mod page;
mod patch;
mod signed;
mod whole;

pub(crate) use engine::{PRELUDE as ENGINE_PRELUDE, modules as engine_modules};

pub(crate) use case::Case;

use crate::selfcheck::{self, Subject};
use crate::test::Count;
use crate::{kernels, narrate};
use anyhow::Result;
use kmend_store::{Cache, Kernel};
use kmend_vm::Accelerator;
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From power on to power off. A guest takes 4 to 8 s where nothing hangs and nobody else is at work.
const GUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Units of each kernel that the differ's own checks always look at.
const UNITS: usize = 12;
/// The same with `--all`.
const ALL_UNITS: usize = 200;
/// Units of each kernel on which one operator is always tried.
const OPERATED: usize = 6;
/// Operators for each unit with `--all`.
const ALL_OPERATORS: usize = 3;

/// What all trials share.
pub(crate) struct Bench {
    /// Where the kernels are.
    pub(crate) cache: Cache,
    /// What runs the guests.
    pub(crate) accelerator: Accelerator,
    /// The `kmend` of this workspace.
    pub(crate) kmend: PathBuf,
    /// A real system with kmend's package; only for all the trials, because it takes minutes to make.
    debian: Option<debian::Debian>,
}

/// Which trials to run, and how.
pub(crate) struct Choice {
    /// Only those whose name holds this.
    pub(crate) filter: Option<String>,
    /// More units for the differ's own checks, and the package on a real system.
    pub(crate) all: bool,
    /// How many at a time.
    pub(crate) threads: usize,
    /// The `kmend` of this workspace.
    pub(crate) kmend: PathBuf,
}

/// How the trials ended.
pub(crate) struct Conclusion {
    /// How many passed and failed.
    pub(crate) count: Count,
    /// Every trial's name and time.
    pub(crate) times: Vec<(String, Duration)>,
}

/// The time of each trial that has ended.
type Times = Arc<Mutex<Vec<(String, Duration)>>>;

/// What a trial does.
type Run = Box<dyn FnOnce(&Bench, &Kernel) -> Result<()> + Send>;

/// Fetches the kernels and runs the trials.
pub(crate) fn run(choice: &Choice) -> Result<Conclusion> {
    let cache = Cache::open()?;
    let found = kernels::ALL.iter().map(|spec| kernels::obtain(&cache, spec)).collect::<Result<Vec<_>>>()?;
    let accelerator = found
        .first()
        .map_or_else(Accelerator::default, |kernel| Accelerator::choose(&kernel.image, Some(cache.root())));
    narrate::say(&format!("guests run on {}, {} trials at a time", accelerator.name(), choice.threads));
    let debian = choice.all.then(|| debian::Debian::prepare(&cache)).transpose()?;
    let bench = Arc::new(Bench { cache, accelerator, kmend: choice.kmend.clone(), debian });
    let times = Times::default();
    let mut trials = Vec::new();
    for (number, kernel) in found.into_iter().enumerate() {
        trials.extend(of_kernel(&bench, &times, number, &Arc::new(kernel), choice)?);
    }
    trials.extend(corpus::trials(&bench, &times)?);
    let arguments = Arguments {
        filter: choice.filter.clone(),
        test_threads: Some(choice.threads),
        ..Arguments::default()
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    let times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Conclusion { count: Count { passed: conclusion.num_passed, failed: conclusion.num_failed }, times })
}

fn of_kernel(
    bench: &Arc<Bench>,
    times: &Times,
    number: usize,
    kernel: &Arc<Kernel>,
    choice: &Choice,
) -> Result<Vec<Trial>> {
    let series = kernels::series(&kernel.release);
    let mut trials = Vec::new();
    let mut add = |name: String, run: Run| {
        let name = format!("{series}/{name}");
        let (bench, kernel, times) = (Arc::clone(bench), Arc::clone(kernel), Arc::clone(times));
        trials.push(Trial::test(name.clone(), move || timed(&times, name, || run(&bench, &kernel))));
    };
    for (turn, case) in cases()?.into_iter().enumerate() {
        // Guests are most of the time: one that is not asked for is booted on one of the kernels, unless these differ.
        let boots =
            choice.all || choice.filter.is_some() || case.differs() || turn % kernels::ALL.len() == number;
        let name = format!("patch/{}", case.name);
        add(name, Box::new(move |bench, kernel| patch::run(bench, kernel, &case, boots)));
    }
    add("kallsyms".into(), Box::new(kallsyms::run));
    add("prove".into(), Box::new(whole::prove));
    add("page".into(), Box::new(page::run));
    let all = choice.all;
    add("torture".into(), Box::new(move |bench, kernel| whole::torture(bench, kernel, all)));
    add("engine-torture".into(), Box::new(move |bench, kernel| whole::engine_torture(bench, kernel, all)));
    add("mutants".into(), Box::new(move |bench, kernel| crate::mutants::trial(&bench.cache, kernel, all)));
    add("same-bytes".into(), Box::new(whole::same_bytes));
    add("headers".into(), Box::new(whole::headers));
    add("signed".into(), Box::new(signed::run));
    add("engine".into(), Box::new(engine::run));
    add("engine-build".into(), Box::new(engine_build::run));
    // What takes minutes is run with all, or when it is asked for.
    let asked = choice.filter.as_deref().and_then(|filter| filter.rsplit('/').next());
    let long: [(&str, Run); 3] = [
        ("litmus", Box::new(engine::litmus)),
        ("engine-selftests", Box::new(engine::selftests)),
        ("engine-bpf", Box::new(engine::bpf)),
    ];
    for (name, run) in long {
        if choice.all || asked == Some(name) {
            add(name.into(), run);
        }
    }
    if bench.debian.is_some() {
        add("debian/package".into(), with_debian(debian::package));
        add("debian/installed".into(), with_debian(debian::boot::installed));
        add("debian/crash".into(), with_debian(debian::boot::crash));
        add("debian/upgrade".into(), with_debian(debian::boot::upgrade));
        add("selftests".into(), with_debian(debian::selftests::run));
    }
    let subject = Arc::new(Subject::new(bench.cache.clone(), Kernel::clone(kernel))?);
    for source in selfcheck::pick(&subject, if choice.all { ALL_UNITS } else { UNITS }) {
        let subject = Arc::clone(&subject);
        let name = format!("selfcheck/{source}");
        add(name, Box::new(move |_, _| subject.check(&source, selfcheck::SEED).map(drop)));
    }
    let (units, operators) = if choice.all { (ALL_UNITS, ALL_OPERATORS) } else { (OPERATED, 1) };
    for source in selfcheck::pick(&subject, units) {
        let subject = Arc::clone(&subject);
        let name = format!("operators/{source}");
        add(name, Box::new(move |_, _| subject.sample(&source, selfcheck::SEED, operators)));
    }
    Ok(trials)
}

/// All patches of the trials.
pub(crate) fn cases() -> Result<Vec<Case>> {
    case::read_cases(&crate::root().join("tests/patches"))
}

/// A trial on the real system.
fn with_debian(trial: fn(&Bench, &debian::Debian, &Kernel) -> Result<()>) -> Run {
    Box::new(move |bench, kernel| match &bench.debian {
        Some(debian) => trial(bench, debian, kernel),
        None => Ok(()),
    })
}

/// Runs a trial and keeps its time.
fn timed(times: &Times, name: String, run: impl FnOnce() -> Result<()>) -> Result<(), Failed> {
    let start = Instant::now();
    let result = run();
    times.lock().unwrap_or_else(PoisonError::into_inner).push((name, start.elapsed()));
    result.map_err(|error| {
        // All failures are listed at the end, which is minutes away.
        eprintln!("{error:#}");
        Failed::from(format!("{error:#}"))
    })
}
