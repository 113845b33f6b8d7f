//! Loading a livepatch and waiting for its transition.

use crate::candidate::Candidate;
use crate::engine::Switching;
use crate::error::LiveError;
use crate::kernel_log::KernelLog;
use crate::parameters::line;
use crate::patches::State;
use crate::system::System;
use crate::transition::{Wait, Watch};
use kmend_sign::CertificateFacts;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long the module of a livepatch that is disabled may still be held: the kernel frees it in a worker.
const MODULE_PATIENCE: Duration = Duration::from_secs(5);

/// How to load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// How long to wait for the transition.
    pub timeout: Duration,
    /// What becomes of a transition that is not over then.
    pub late: Late,
    /// How long to wait for the transition back: tasks that were moved must be moved again.
    pub way_back: Duration,
}

/// What becomes of a transition that is not over in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It is turned around, and the livepatch is unloaded again.
    Reverse,
    /// It is left to the kernel, and the load counts as failed.
    Leave,
    /// It is left to the kernel: whoever loads does not need it to be over.
    Accept,
}

impl Default for LoadOptions {
    /// The kernel signals the tasks that hold a transition after 15 s (Linux, kernel/livepatch/transition.c,
    /// `SIGNALS_TIMEOUT`): a minute more.
    fn default() -> Self {
        let minute_more = Duration::from_secs(75);
        Self { timeout: minute_more, late: Late::Reverse, way_back: minute_more }
    }
}

/// A livepatch that is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// The name of its module.
    pub name: String,
    /// `Enabled` if every task runs it, `Enabling` if its transition was left to the kernel.
    pub state: State,
    /// From the system call to the end of the transition, or to the time at which it was left.
    pub time: Duration,
    /// The trusted certificate by which its signature is valid; `None` if this machine trusts nobody in particular.
    pub signed_by: Option<CertificateFacts>,
    /// How kmend's consistency engine switched it; `None` if the kernel's own livepatch did.
    pub engine: Option<Switching>,
}

impl System {
    /// Loads a livepatch that was checked, and waits until every task runs it. One that is being enabled, because whoever
    /// began that was ended, is waited for.
    ///
    /// If the time runs out first, the error names the tasks. The livepatch is then unloaded again, or stays loaded
    /// and the transition goes on, as the options say.
    pub fn load(
        &self,
        candidate: &Candidate,
        options: LoadOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Loaded, LiveError> {
        let name = &candidate.module.name;
        let is_new = self.make_room(candidate)?;
        let start = Instant::now();
        if is_new {
            let log = KernelLog::from_now(&self.path("dev/kmsg"));
            if let Err(errno) = self.calls.insert(&candidate.bytes, &line(&candidate.parameters)) {
                return Err(self.refused(name.clone(), errno, &log));
            }
        }
        if is_new && candidate.module.engine.is_some() {
            self.begin(candidate, options)?;
        }
        let loaded = |state| Loaded {
            name: name.clone(),
            state,
            time: start.elapsed(),
            signed_by: candidate.signed_by.clone(),
            engine: self.patch(name).ok().flatten().and_then(|patch| patch.engine),
        };
        match (self.await_transition(name, options.timeout, watch)?, options.late) {
            (Wait::Over, _) if candidate.module.engine.is_some() && !self.is_enabled(name)? => {
                // Nobody looked for so long that the engine did what is done below.
                let stays = self.keeps_itself(name)?;
                self.remove_reversed(name)?;
                let (name, seconds, state) = (name.clone(), start.elapsed().as_secs(), State::Disabled);
                Err(LiveError::Reversed { name, seconds, state, stays, blockers: Vec::new() })
            }
            (Wait::Over, _) => Ok(loaded(State::Enabled)),
            (Wait::Left, _) => Err(self.left(name)),
            (Wait::TimedOut, Late::Accept) => Ok(loaded(State::Enabling)),
            (Wait::TimedOut, Late::Leave) => Err(self.stalled(name, options.timeout)),
            (Wait::TimedOut, Late::Reverse) | (Wait::Reversed, _) => {
                match self.reverse(name, start.elapsed(), options.way_back, watch)? {
                    None => Ok(loaded(State::Enabled)),
                    Some(error) => {
                        if matches!(error, LiveError::Reversed { state: State::Disabled, .. }) {
                            self.remove_reversed(name)?;
                        }
                        Err(error)
                    }
                }
            }
        }
    }

    /// Enables a patch that the consistency engine has just got; one that cannot be enabled is unloaded again.
    fn begin(&self, candidate: &Candidate, options: LoadOptions) -> Result<(), LiveError> {
        let name = &candidate.module.name;
        let late = (options.late == Late::Reverse).then_some(options.timeout);
        let begun =
            self.set_switch(name, &candidate.switch, late).and_then(|()| self.write_enabled(name, true));
        if begun.is_err() {
            // Why it was not enabled is what is to be told.
            let _ = self.remove_reversed(name);
        }
        begun
    }

    /// Removes the module of a load that was turned back, unless some task ran its code for long enough to give away an
    /// address of it.
    fn remove_reversed(&self, name: &str) -> Result<(), LiveError> {
        if self.keeps_itself(name)? { Ok(()) } else { self.remove_module(name, MODULE_PATIENCE) }
    }

    /// Whether a livepatch is there and enabled.
    fn is_enabled(&self, name: &str) -> Result<bool, LiveError> {
        Ok(self.patch(name)?.is_some_and(|patch| patch.enabled))
    }

    /// Makes sure that a livepatch can be loaded now; `false` if it is, and is being enabled. A module of that name that was
    /// disabled and left is removed: a disabled livepatch cannot be enabled again (Linux 958ef1e39d24).
    fn make_room(&self, candidate: &Candidate) -> Result<bool, LiveError> {
        let name = candidate.module.name.as_str();
        if let Some(other) = self.busy_with(candidate.module.engine.is_some())? {
            // Whether it has the same parameters is not known.
            if other.name == name && other.enabled && candidate.parameters.is_empty() {
                return Ok(false);
            }
            return Err(LiveError::TransitionBusy { name: name.to_owned(), other: other.name });
        }
        if self.patch(name)?.is_some_and(|patch| patch.enabled) {
            return Err(LiveError::AlreadyLoaded(name.to_owned()));
        }
        if self.module(name).exists() {
            if self.keeps_itself(name)? {
                return Err(LiveError::StaysInMemory { name: name.to_owned(), by: self.pinned_by(name) });
            }
            self.remove_module(name, MODULE_PATIENCE)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, RELEASE, module, module_with};
    use crate::transition::Decision;
    use std::path::PathBuf;

    const NOW: LoadOptions =
        LoadOptions { timeout: Duration::ZERO, late: Late::Leave, way_back: Duration::ZERO };

    fn livepatch(fake: &Fake) -> PathBuf {
        fake.file("x.ko", &module("livepatch_x", RELEASE, true))
    }

    fn load_with(fake: &Fake, options: LoadOptions, decision: Decision) -> Result<Loaded, LiveError> {
        let system = fake.system();
        let candidate = system.check(&[livepatch(fake)]).remove(0).map_err(|mut errors| errors.remove(0))?;
        system.load(&candidate, options, &mut |_| decision)
    }

    fn load(fake: &Fake) -> Result<Loaded, LiveError> {
        load_with(fake, NOW, Decision::Wait)
    }

    #[test]
    fn a_livepatch_is_loaded_and_seen() {
        let fake = Fake::new();
        assert_eq!(load(&fake).unwrap().name, "livepatch_x");
        assert_eq!(fake.calls(), ["insert livepatch_x"]);
        let error = load(&fake).unwrap_err();
        assert!(matches!(error, LiveError::AlreadyLoaded(_)), "{error}");
    }

    #[test]
    fn a_stalled_transition_names_its_tasks() {
        let fake = Fake::new();
        fake.stall();
        fake.task(84, 84, "cat", 0, "0\n", "[<0>] slow_read+0x1a/0x30\n");
        let error = load(&fake).unwrap_err();
        assert!(error.to_string().ends_with("after 0 s\n  task 84 (cat) is in slow_read"), "{error}");
        assert!(fake.path("sys/kernel/livepatch/livepatch_x").exists());
    }

    #[test]
    fn a_transition_that_nobody_waits_for_is_no_error() {
        let fake = Fake::new();
        fake.stall();
        let options = LoadOptions { late: Late::Accept, ..NOW };
        assert_eq!(load_with(&fake, options, Decision::Wait).unwrap().state, State::Enabling);
        assert_eq!(fake.calls(), ["insert livepatch_x"]);
    }

    #[test]
    fn the_module_gets_its_parameters() {
        let fake = Fake::new();
        let module = module_with("livepatch_x", RELEASE, true, "parmtype=replace:int\0");
        let path = fake.file("x.ko", &module);
        let system = fake.system();
        let mut candidate = system.check(&[path]).remove(0).unwrap();
        let errors = candidate.give(&["reptile=1".parse().unwrap()]).unwrap_err();
        assert_eq!(errors[0].to_string(), "livepatch_x has no parameter `reptile`: it has replace");
        candidate.give(&["replace=1".parse().unwrap()]).unwrap();
        system.load(&candidate, NOW, &mut |_| Decision::Wait).unwrap();
        assert_eq!(fake.calls(), ["insert livepatch_x replace=1"]);
    }

    #[test]
    fn a_stalled_transition_is_turned_around_and_what_is_left_is_unloaded() {
        let fake = Fake::new();
        fake.stall();
        fake.task(84, 84, "cat", 0, "0\n", "[<0>] slow_read+0x1a/0x30\n");
        fake.reverses("livepatch_x");
        let options = LoadOptions { timeout: Duration::from_millis(200), ..LoadOptions::default() };
        let error = load_with(&fake, options, Decision::Wait).unwrap_err();
        assert!(
            matches!(&error, LiveError::Reversed { blockers, state: crate::State::Disabled, .. } if blockers.len() == 1),
            "{error}"
        );
        assert!(error.to_string().contains("it is unloaded again"), "{error}");
        assert_eq!(fake.calls(), ["insert livepatch_x", "remove livepatch_x"]);
    }

    #[test]
    fn a_reversed_load_leaves_what_may_be_in_use() {
        let fake = Fake::new();
        fake.stall();
        fake.reverses("livepatch_x");
        fake.write("sys/module/livepatch_x/parameters/pinned", "Y\n");
        fake.write("sys/module/livepatch_x/parameters/pinned_by", "late_fn\n");
        let options = LoadOptions { timeout: Duration::from_millis(200), ..LoadOptions::default() };
        let system = fake.system();
        let candidate = system.check(&[livepatch(&fake)]).remove(0).unwrap();
        let again = system.load(&candidate, options, &mut |_| Decision::Wait).unwrap_err();
        assert_eq!(
            again.to_string(),
            "a disabled livepatch livepatch_x stays in memory: late_fn may still be in use"
        );
        std::fs::remove_dir_all(fake.path("sys/module/livepatch_x")).unwrap();
        let folder = fake.path("sys/module/livepatch_x/parameters");
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                // The module says so as soon as it is enabled.
                while !folder.parent().is_some_and(std::path::Path::exists) {
                    std::thread::yield_now();
                }
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join("pinned"), "Y\n").unwrap();
            });
            system.load(&candidate, options, &mut |_| Decision::Wait).unwrap_err()
        });
        assert!(matches!(error, LiveError::Reversed { stays: true, .. }), "{error}");
        assert!(error.to_string().contains("disabled, and stays in memory, again"), "{error}");
        assert_eq!(fake.calls(), ["insert livepatch_x"]);
    }

    #[test]
    fn a_reversal_that_stalls_as_well_is_told_and_nothing_is_unloaded() {
        let fake = Fake::new();
        fake.stall();
        let error = load_with(&fake, LoadOptions { late: Late::Reverse, ..NOW }, Decision::Wait).unwrap_err();
        assert!(matches!(error, LiveError::TransitionStalled { .. }), "{error}");
        assert_eq!(fake.read("sys/kernel/livepatch/livepatch_x/enabled"), "0\n");
        assert_eq!(fake.calls(), ["insert livepatch_x"]);
    }

    #[test]
    fn who_breaks_off_the_wait_is_told_how_it_stands() {
        let fake = Fake::new();
        fake.stall();
        let error = load_with(&fake, LoadOptions::default(), Decision::Leave).unwrap_err();
        assert_eq!(error.to_string(), "livepatch_x is left as it is: enabling");
        assert_eq!(fake.read("sys/kernel/livepatch/livepatch_x/enabled"), "1\n");
    }

    #[test]
    fn a_disabled_rest_is_removed_first() {
        let fake = Fake::new();
        fake.module("livepatch_x", 0);
        load(&fake).unwrap();
        assert_eq!(fake.calls(), ["remove livepatch_x", "insert livepatch_x"]);
    }

    #[test]
    fn what_an_ended_load_has_begun_is_waited_for() {
        let fake = Fake::new();
        fake.stall();
        load(&fake).unwrap_err();
        let goes_on = load(&fake).unwrap_err();
        assert!(matches!(goes_on, LiveError::TransitionStalled { .. }), "{goes_on}");
        let over = fake.path("sys/kernel/livepatch/livepatch_x/transition");
        let mut looks = 0;
        let system = fake.system();
        let candidate = system.check(&[livepatch(&fake)]).remove(0).unwrap();
        let options = LoadOptions { timeout: Duration::from_secs(60), ..NOW };
        let loaded = system.load(&candidate, options, &mut |_| {
            looks += 1;
            std::fs::write(&over, "0\n").unwrap();
            Decision::Wait
        });
        assert_eq!((loaded.unwrap().name.as_str(), looks), ("livepatch_x", 1));
        assert_eq!(fake.calls(), ["insert livepatch_x"], "once");
        assert!(matches!(load(&fake), Err(LiveError::AlreadyLoaded(_))));
    }
}
