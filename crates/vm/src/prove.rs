//! The scenario that every livepatch must pass.

use crate::accelerator::Accelerator;
use crate::error::VmError;
use crate::machine::Machine;
use crate::protocol::StepOutcome;
use crate::scenario::{Scenario, Step, Transcript};
use kmend_kernel::Module;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// What is to be proved, and how.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The image of the kernel that the livepatch is for.
    pub image: PathBuf,
    /// Modules to load before it, each after those it depends on.
    pub modules: Vec<PathBuf>,
    /// The livepatch.
    pub livepatch: PathBuf,
    /// A command to run before the first load.
    pub before: Option<String>,
    /// A command to run each time after it is loaded.
    pub after: Option<String>,
    /// A command to run each time after it is unloaded.
    pub unloaded: Option<String>,
    /// See [`Scenario::kmend`].
    pub kmend: Option<PathBuf>,
    /// See [`Scenario::busybox`].
    pub busybox: PathBuf,
    /// See [`Accelerator::choose`].
    pub accelerator: Accelerator,
    /// From the start of the machine to its end.
    pub timeout: Duration,
}

/// A livepatch that passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProofReport {
    /// The livepatch's module name.
    pub module: String,
    /// The commands in the guest, and their status and output, and the loads and unloads.
    pub transcript: Transcript,
}

impl Proof {
    /// A proof without modules and commands.
    pub fn new(image: impl Into<PathBuf>, livepatch: impl Into<PathBuf>) -> Self {
        Self {
            image: image.into(),
            modules: Vec::new(),
            livepatch: livepatch.into(),
            before: None,
            after: None,
            unloaded: None,
            kmend: None,
            busybox: "busybox".into(),
            accelerator: Accelerator::default(),
            timeout: Duration::from_secs(90),
        }
    }

    fn steps(&self, module: &str) -> Vec<Step> {
        let run = |name: &str, command: &Option<String>| {
            command.clone().map(|command| Step::Run { name: name.into(), command })
        };
        let mut steps: Vec<Step> = self.modules.iter().cloned().map(Step::LoadModule).collect();
        steps.extend(run("before", &self.before));
        for _ in 0..2 {
            steps.push(Step::Load(self.livepatch.clone()));
            steps.extend(run("loaded", &self.after));
            steps.push(Step::Unload(module.into()));
            steps.extend(run("unloaded", &self.unloaded));
        }
        steps
    }
}

impl ProofReport {
    /// The steps of one name (`before`, `loaded`, `unloaded`), in order.
    pub fn steps_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a StepOutcome> {
        self.transcript.steps.iter().filter(move |step| step.name == name)
    }
}

/// Boots the kernel, loads the livepatch, unloads it, and does both again. Any complaint of the kernel fails
/// it; what the commands print is for the caller to judge.
pub fn prove(proof: &Proof) -> Result<ProofReport, VmError> {
    let module = Module::open(&proof.livepatch)?;
    let scenario = Scenario {
        machine: Machine {
            accelerator: proof.accelerator,
            timeout: proof.timeout,
            ..Machine::new(&proof.image)
        },
        busybox: proof.busybox.clone(),
        kmend: proof.kmend.clone(),
        steps: proof.steps(module.name()),
        ..Scenario::new(&proof.image)
    };
    let transcript = scenario.run()?;
    Ok(ProofReport { module: module.name().to_owned(), transcript })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_livepatch_is_loaded_and_unloaded_twice() {
        let proof = Proof {
            modules: vec!["/m/zram.ko".into()],
            before: Some("cat /proc/meminfo".into()),
            after: Some("cat /proc/meminfo".into()),
            ..Proof::new("/boot/vmlinuz", "/tmp/x.ko")
        };
        let names: Vec<String> = proof.steps("x").iter().map(Step::name).collect();
        let once = ["load the livepatch x.ko", "loaded", "unload the livepatch x"];
        let mut expected = vec!["load the module zram.ko", "before"];
        expected.extend(once);
        expected.extend(once);
        assert_eq!(names, expected);
    }
}
