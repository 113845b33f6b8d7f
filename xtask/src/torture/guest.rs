//! A guest with the two livepatches, and the rounds that it does under the load.

use super::sample::Sample;
use anyhow::{Context, Result, ensure};
use kmend_build::Request;
use kmend_compile::PatchFile;
use kmend_store::{Cache, Kernel};
use kmend_vm::{Accelerator, GuestFile, Machine, Scenario, Step, StepOutcome};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest that a round may take; kmend itself gives a transition up sooner.
const LONGEST_ROUND: Duration = Duration::from_secs(100);
/// From power on to the first round, and from the last to the end.
const AROUND: Duration = Duration::from_secs(120);
/// Rounds, and replaces, before the first look at the memory: what the first ones allocate stays.
const WARM_UP: u32 = 1;

/// What guests are made of.
pub(crate) struct Workshop<'a> {
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// What runs it.
    pub(crate) accelerator: Accelerator,
    /// The `kmend` in it.
    pub(crate) kmend: &'a Path,
    /// What it is given.
    pub(crate) supplies: Supplies,
}

/// The two livepatches of a torture, which change functions that tasks are in all the time, in as many places, and the program
/// that keeps a processor busy meanwhile.
pub(crate) struct Supplies {
    one: PathBuf,
    two: PathBuf,
    hog: PathBuf,
}

impl Supplies {
    /// Builds them in a folder.
    pub(crate) fn build(cache: &Cache, kernel: &Kernel, folder: &Path) -> Result<Self> {
        let build = |which: &str| -> Result<PathBuf> {
            let file = format!("tests/torture/{which}.patch");
            let bytes = fs::read(crate::root().join(&file)).with_context(|| format!("cannot read {file}"))?;
            let request = Request {
                cache,
                kernel,
                patches: vec![PatchFile::new(file, bytes)],
                name: Some(format!("torture_{which}")),
                replace: true,
                fixes: Vec::new(),
                engine: None,
                output: folder.to_owned(),
                explain: false,
                signer: None,
            };
            let built = kmend_build::build(&request, &|_| {})?;
            built.module.with_context(|| format!("{which} is refused: {:?}", built.report.refusals))
        };
        let hog = crate::built::program(&kernel.compiler, "tests/torture/hog.c", folder)?;
        Ok(Supplies { one: build("one")?, two: build("two")?, hog })
    }
}

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount {
    /// Loads and unloads.
    pub(crate) rounds: u32,
    /// Atomic replaces.
    pub(crate) replaces: u32,
}

impl Amount {
    pub(crate) fn all(self) -> u32 {
        self.rounds + self.replaces
    }

    /// The same in so many guests, as evenly as can be.
    pub(crate) fn split(self, guests: u32) -> Vec<Amount> {
        let share = |of: u32, guest: u32| of / guests + u32::from(guest < of % guests);
        let amount =
            |guest| Amount { rounds: share(self.rounds, guest), replaces: share(self.replaces, guest) };
        (0..guests).map(amount).collect()
    }
}

/// How long each load, unload and replace took, in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) loads: Vec<f64>,
    pub(crate) unloads: Vec<f64>,
    pub(crate) replaces: Vec<f64>,
}

impl Times {
    pub(crate) fn extend(&mut self, more: Times) {
        self.loads.extend(more.loads);
        self.unloads.extend(more.unloads);
        self.replaces.extend(more.replaces);
    }

    /// Reads the lines that begin with `round`.
    fn parse(text: &str) -> Result<Times> {
        let mut times = Times::default();
        for line in text.lines().filter(|line| line.starts_with("round ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let took = |begin: &str, end: &str| -> Result<f64> {
                let seconds = |word: &str| word.parse::<f64>().with_context(|| format!("no number: {line}"));
                Ok(seconds(end)? - seconds(begin)?)
            };
            match words[..] {
                [_, _, "load", a, b, "unload", c, d] => {
                    times.loads.push(took(a, b)?);
                    times.unloads.push(took(c, d)?);
                }
                [_, _, "replace", a, b] => times.replaces.push(took(a, b)?),
                _ => anyhow::bail!("the guest's line is not understood: {line}"),
            }
        }
        Ok(times)
    }
}

impl Workshop<'_> {
    /// Boots a guest and loads, unloads and replaces under the load. Any complaint of the kernel, a transition that does not end,
    /// and anything that is left is an error.
    pub(crate) fn rounds(&self, amount: Amount) -> Result<Times> {
        let mut scenario = self.scenario(AROUND + LONGEST_ROUND * amount.all());
        scenario.steps = vec![
            step("warm up", format!("settle && torture {WARM_UP} {WARM_UP}")),
            step("before", "sample".into()),
            step("torture", format!("torture {} {}", amount.rounds, amount.replaces)),
            step("after", "sample".into()),
        ];
        let outcomes = run(&scenario)?;
        let [_, before, torture, after] = &outcomes[..] else {
            anyhow::bail!("the guest did {} steps", outcomes.len());
        };
        let (before, after) = (Sample::parse(&before.text())?, Sample::parse(&after.text())?);
        let leaks = before.leaks(&after, u64::from(amount.all()));
        ensure!(leaks.is_empty(), "something is left:\n  {}", leaks.join("\n  "));
        let times = Times::parse(&torture.text())?;
        ensure!(
            times.loads.len() == amount.rounds as usize && times.replaces.len() == amount.replaces as usize,
            "{} rounds and {} replaces were done of {amount:?}",
            times.loads.len(),
            times.replaces.len()
        );
        Ok(times)
    }

    /// A guest with the livepatches and guest.sh.
    pub(super) fn scenario(&self, timeout: Duration) -> Scenario {
        let mut scenario = Scenario::new(&self.kernel.image);
        scenario.machine =
            Machine { accelerator: self.accelerator, timeout, ..Machine::new(&self.kernel.image) };
        scenario.kmend = Some(self.kmend.to_owned());
        scenario.files = vec![
            file(crate::root().join("xtask/src/torture/guest.sh"), "/torture.sh"),
            file(self.supplies.one.clone(), "/torture_one.ko"),
            file(self.supplies.two.clone(), "/torture_two.ko"),
            GuestFile { host: self.supplies.hog.clone(), guest: "/hog".to_owned(), program: true },
        ];
        scenario
    }
}

/// A file that is no program.
pub(super) fn file(host: PathBuf, guest: &str) -> GuestFile {
    GuestFile { host, guest: guest.to_owned(), program: false }
}

/// A step that knows what guest.sh defines.
pub(super) fn step(name: &str, command: String) -> Step {
    Step::Run { name: name.into(), command: format!(". /torture.sh\n{command}\n") }
}

/// Boots a guest. A step that fails is an error.
pub(super) fn run(scenario: &Scenario) -> Result<Vec<StepOutcome>> {
    let transcript = scenario.run()?;
    for step in &transcript.steps {
        ensure!(step.status == 0, "{} failed ({}):\n{}", step.name, step.status, tail(step));
    }
    Ok(transcript.steps)
}

/// The last lines of what a step printed.
fn tail(step: &StepOutcome) -> String {
    let text = step.text();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_what_the_guest_prints() {
        let text = "loaded x\nround 1 load 10.00 11.50 unload 11.50 14.00\nround 1 replace 20.00 21.00\n";
        let times = Times::parse(text).unwrap();
        assert_eq!((times.loads, times.unloads, times.replaces), (vec![1.5], vec![2.5], vec![1.0]));
        assert!(Times::parse("round 1 load 10.00\n").is_err());
        assert!(Times::parse("round 1 replace x 1.0\n").is_err());
    }

    #[test]
    fn nothing_is_lost_when_the_work_is_shared() {
        let shares = Amount { rounds: 10, replaces: 3 }.split(4);
        assert_eq!(shares.iter().map(|share| share.rounds).collect::<Vec<_>>(), [3, 3, 2, 2]);
        assert_eq!(shares.iter().map(|share| share.replaces).sum::<u32>(), 3);
    }
}
