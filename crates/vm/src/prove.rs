//! The scenario that every livepatch must pass.

use crate::accelerator::Accelerator;
use crate::error::VmError;
use crate::machine::Machine;
use crate::protocol::StepOutcome;
use crate::scenario::{Scenario, Step, Transcript};
use kmend_kernel::Module;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What is to be proved, and how.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The image of the kernel that the livepatch is for.
    pub image: PathBuf,
    /// Modules to load before it, each after those it depends on. Those that the guest cannot load (their devices are
    /// not there) are loaded after it or not at all: see [`Presence`].
    pub modules: Vec<PathBuf>,
    /// kmend's consistency engine, if the livepatch is for that.
    pub engine: Option<PathBuf>,
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
    /// The `kmend` that compares the livepatch's memory with its file each time it has been loaded; without one that is not done.
    pub auditor: Option<PathBuf>,
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
    /// How the modules of [`Proof::modules`] were there.
    pub modules: Presence,
    /// How often it was loaded and unloaded; once, and only disabled, if it has to stay in memory.
    pub rounds: usize,
    /// The commands in the guest, and their status and output, and the loads and unloads.
    pub transcript: Transcript,
}

/// How the modules that a livepatch patches were there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "loaded")]
pub enum Presence {
    /// They were loaded before the livepatch; or there are none.
    First,
    /// The guest cannot start one of them, most often because its device is missing. They were loaded after the
    /// livepatch as far as that goes: the kernel resolves the livepatch's symbols in a module, and redirects its
    /// functions, before the module is started.
    Late {
        /// What the guest said.
        why: String,
    },
    /// One of them makes the stock kernel complain in the guest without any livepatch. The livepatch was loaded
    /// without them, so that nothing in them was redirected.
    Never {
        /// The complaint.
        why: String,
    },
}

/// Succeeds if no livepatch turned a module away (kernel/livepatch/core.c, `klp_module_coming`; engine/objects.c).
const NONE_TURNED_AWAY: &str =
    "! dmesg | grep -e 'livepatch: .*refusing to load module' -e 'kmend_engine: .*, which is refused'";
/// How often a livepatch is loaded and unloaded.
const ROUNDS: usize = 2;
/// The name of the step that runs it.
const TURNED_AWAY: &str = "does the livepatch take the modules";

impl Proof {
    /// A proof without modules and commands.
    pub fn new(image: impl Into<PathBuf>, livepatch: impl Into<PathBuf>) -> Self {
        Self {
            image: image.into(),
            modules: Vec::new(),
            engine: None,
            livepatch: livepatch.into(),
            before: None,
            after: None,
            unloaded: None,
            kmend: None,
            auditor: None,
            busybox: "busybox".into(),
            accelerator: Accelerator::default(),
            timeout: Duration::from_secs(90),
        }
    }

    /// `rounds` is how often the livepatch is loaded and unloaded.
    fn steps(&self, module: &str, modules: &Presence, rounds: usize) -> Vec<Step> {
        let run = |name: &str, command: &Option<String>| {
            command.clone().map(|command| Step::Run { name: name.into(), command })
        };
        let mut steps: Vec<Step> = self.engine.iter().cloned().map(Step::LoadEngine).collect();
        if *modules == Presence::First {
            steps.extend(self.modules.iter().cloned().map(Step::LoadModule));
        }
        steps.extend(run("before", &self.before));
        for _ in 0..rounds {
            steps.push(Step::Load(self.livepatch.clone()));
            if matches!(modules, Presence::Late { .. }) {
                steps.extend(self.modules.iter().cloned().map(Step::TryModule));
                steps.push(Step::Run { name: TURNED_AWAY.into(), command: NONE_TURNED_AWAY.into() });
            }
            if self.auditor.is_some() {
                steps.push(Step::Audit(self.livepatch.clone()));
            }
            steps.extend(run("loaded", &self.after));
            steps.push(Step::Unload(module.into()));
            steps.extend(run("unloaded", &self.unloaded));
        }
        steps
    }

    fn run(&self, module: &Module, modules: Presence) -> Result<ProofReport, VmError> {
        let rounds = if module.stays() { 1 } else { ROUNDS };
        let scenario = Scenario {
            machine: Machine {
                accelerator: self.accelerator,
                timeout: self.timeout,
                ..Machine::new(&self.image)
            },
            busybox: self.busybox.clone(),
            kmend: self.kmend.clone(),
            auditor: self.auditor.clone(),
            steps: self.steps(module.name(), &modules, rounds),
            ..Scenario::new(&self.image)
        };
        let transcript = scenario.run()?;
        if let Some(step) = transcript.steps.iter().find(|step| step.name == TURNED_AWAY && step.status != 0)
        {
            return Err(VmError::StepFailed {
                step: step.name.clone(),
                status: step.status,
                output: step.text(),
                tail: transcript.console.join("\n"),
            });
        }
        Ok(ProofReport { module: module.name().to_owned(), modules, rounds, transcript })
    }
}

/// How to go on without modules that could not be loaded first; `None` if something else went wrong.
fn without_modules(error: &VmError) -> Option<Presence> {
    let is_load = |step: &str| step.starts_with("load the module ");
    match error {
        VmError::StepFailed { step, output, .. } if is_load(step) => {
            Some(Presence::Late { why: format!("{step}: {}", output.trim()) })
        }
        VmError::Fault { fault, step: Some(step), .. } if is_load(step) => {
            Some(Presence::Never { why: format!("{step}: {fault}") })
        }
        _ => None,
    }
}

impl ProofReport {
    /// The steps of one name (`before`, `loaded`, `unloaded`), in order.
    pub fn steps_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a StepOutcome> {
        self.transcript.steps.iter().filter(move |step| step.name == name)
    }
}

/// Boots the kernel, loads the livepatch, unloads it, and does both again if it can leave memory. Any complaint of the kernel fails
/// it; what the commands print is for the caller to judge.
pub fn prove(proof: &Proof) -> Result<ProofReport, VmError> {
    let module = Module::open(&proof.livepatch)?;
    match proof.run(&module, Presence::First) {
        Err(error) => match without_modules(&error) {
            Some(presence) => proof.run(&module, presence),
            None => Err(error),
        },
        proven => proven,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_livepatch_is_loaded_and_unloaded_twice() {
        let proof = Proof {
            modules: vec!["/m/zram.ko".into()],
            engine: Some("/e/kmend_engine.ko".into()),
            before: Some("cat /proc/meminfo".into()),
            after: Some("cat /proc/meminfo".into()),
            ..Proof::new("/boot/vmlinuz", "/tmp/x.ko")
        };
        let names: Vec<String> = steps(&proof, &Presence::First);
        let once = ["load the livepatch x.ko", "loaded", "unload the livepatch x"];
        let mut expected =
            vec!["load the consistency engine kmend_engine.ko", "load the module zram.ko", "before"];
        expected.extend(once);
        expected.extend(once);
        assert_eq!(names, expected);
    }

    fn steps(proof: &Proof, modules: &Presence) -> Vec<String> {
        proof.steps("x", modules, ROUNDS).iter().map(Step::name).collect()
    }

    #[test]
    fn modules_that_cannot_be_started_are_loaded_after_the_livepatch() {
        let proof =
            Proof { modules: vec!["/m/kvm_amd.ko".into()], ..Proof::new("/boot/vmlinuz", "/tmp/x.ko") };
        let failed = VmError::StepFailed {
            step: "load the module kvm_amd.ko".into(),
            status: 1,
            output: "No such device\n".into(),
            tail: String::new(),
        };
        let late = without_modules(&failed).unwrap();
        assert_eq!(late, Presence::Late { why: "load the module kvm_amd.ko: No such device".into() });
        let once = [
            "load the livepatch x.ko",
            "try to load the module kvm_amd.ko",
            TURNED_AWAY,
            "unload the livepatch x",
        ];
        assert_eq!(steps(&proof, &late), [once, once].concat());
        let never = Presence::Never { why: String::new() };
        assert_eq!(steps(&proof, &never), [[once[0], once[3]], [once[0], once[3]]].concat());
    }

    #[test]
    fn a_livepatch_that_fails_is_not_tried_again() {
        let failed = VmError::StepFailed {
            step: "load the livepatch x.ko".into(),
            status: 1,
            output: String::new(),
            tail: String::new(),
        };
        assert_eq!(without_modules(&failed), None);
    }
}
