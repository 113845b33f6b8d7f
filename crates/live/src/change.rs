//! What can be done to a livepatch that is loaded: wait for it, enable it again, signal its tasks, force it.

use crate::error::LiveError;
use crate::patches::State;
use crate::switch::Switch;
use crate::system::{System, check_name, read};
use crate::tasks::{Blocker, state_of};
use crate::transition::{Wait, Watch, write_value};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long a stopped task may take to stop, and a forced transition to end: the kernel looks once a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the kernel's ways to move tasks are not the engine's.
const WAKES: (&str, &str) = (
    "takes no orders about signals",
    "models that switch threads, such as hybrid, wake sleepers by themselves; `kmend blocking` shows whom to wake else",
);
/// The same of force.
const NO_FORCE: (&str, &str) = (
    "takes no task for moved that is not",
    "turn the transition around with `kmend unload` or `kmend enable`, and try another model",
);

/// A transition that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waited {
    /// The livepatch.
    pub name: String,
    /// What it is now.
    pub state: State,
    /// How long it was awaited.
    pub time: Duration,
}

/// Who signals the tasks that hold a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signaller {
    /// The kernel did, as it was asked (Linux 4.15 to 5.0 have a file for it).
    Asked,
    /// The kernel does so by itself, every 15 s (since Linux 5.1, 0b3d52790e1c).
    ByItself,
}

impl System {
    /// Waits until a livepatch is in no transition. If the time is over, the transition goes on.
    pub fn wait(&self, name: &str, timeout: Duration, watch: &mut Watch<'_>) -> Result<Waited, LiveError> {
        let start = Instant::now();
        match self.await_transition(name, timeout, watch)? {
            Wait::Over => {}
            Wait::TimedOut => return Err(self.stalled(name, timeout)),
            Wait::Left => return Err(self.left(name)),
            Wait::Reversed => {
                if let Some(error) = self.reverse(name, start.elapsed(), timeout, watch)? {
                    return Err(error);
                }
            }
        }
        let state = self.patch(name)?.map_or(State::Disabled, |patch| patch.state());
        Ok(Waited { name: name.to_owned(), state, time: start.elapsed() })
    }

    /// Checks that a livepatch can be enabled: in the kernel only one that is still being disabled can (Linux 958ef1e39d24), in the
    /// consistency engine also one that is disabled.
    pub fn can_enable(&self, name: &str) -> Result<(), LiveError> {
        let patch = self.patch(name)?;
        let engine = patch.as_ref().is_some_and(|patch| patch.engine.is_some());
        match patch.map(|patch| patch.state()) {
            Some(State::Disabled) if engine => Ok(()),
            Some(State::Disabling) => Ok(()),
            Some(State::Enabled | State::Enabling) => Err(LiveError::AlreadyLoaded(name.to_owned())),
            Some(State::Disabled) => {
                Err(LiveError::CannotEnable { name: name.to_owned(), state: "disabled" })
            }
            None if self.module(name).exists() && self.has_livepatch_taint(name)? => {
                Err(LiveError::CannotEnable { name: name.to_owned(), state: "disabled, and in memory only" })
            }
            None => Err(LiveError::CannotEnable { name: name.to_owned(), state: "not loaded" }),
        }
    }

    /// Turns a livepatch that is being disabled around, or enables one of the consistency engine, and waits until every task runs
    /// it.
    pub fn enable(
        &self,
        name: &str,
        switch: &Switch,
        timeout: Duration,
        watch: &mut Watch<'_>,
    ) -> Result<Waited, LiveError> {
        self.can_enable(name)?;
        self.prepare_switch(name, switch)?;
        self.write_enabled(name, true)?;
        self.wait(name, timeout, watch)
    }

    /// Checks that the tasks that hold a transition can be signalled.
    pub fn can_signal(&self, name: &str) -> Result<(), LiveError> {
        self.require_kernel(name, WAKES.0, WAKES.1)
    }

    /// Checks that a transition can be forced.
    pub fn can_force(&self, name: &str) -> Result<(), LiveError> {
        self.require_kernel(name, NO_FORCE.0, NO_FORCE.1)
    }

    /// Has the kernel signal the tasks that hold a transition, where it can be asked to.
    pub fn signal(&self, name: &str) -> Result<Signaller, LiveError> {
        self.can_signal(name)?;
        self.require_transition(Some(name))?;
        let path = self.livepatch(name).join("signal");
        if !path.exists() {
            return Ok(Signaller::ByItself);
        }
        write_value(&path, b"1").map_err(|error| LiveError::at(&path, error))?;
        Ok(Signaller::Asked)
    }

    /// Stops a process that holds a transition and continues it, so that its threads leave the kernel for a moment. One that
    /// is stopped already is left alone, and so is one that holds no transition.
    pub fn stop_and_continue(&self, name: &str, pid: u32) -> Result<(), LiveError> {
        let refused = |why| LiveError::NotSignalled { pid, why };
        self.can_signal(name)?;
        let blockers = self.blocking(name)?;
        let Some(task) = blockers.iter().find(|task| task.pid == pid) else {
            return Err(refused("it holds no transition"));
        };
        match task {
            Blocker { kernel_thread: true, .. } => return Err(refused("no signal moves a kernel thread")),
            Blocker { task_state: Some('T' | 't'), .. } => return Err(refused("it is stopped already")),
            _ => {}
        }
        let failed = |errno: rustix::io::Errno| {
            let source = errno.into();
            LiveError::Io { path: self.path(&format!("proc/{pid}")), source }
        };
        self.calls.stop(pid).map_err(failed)?;
        // A signal to continue takes back a stop that is still pending (Linux, kernel/signal.c, `prepare_signal`).
        let stat = self.path(&format!("proc/{pid}/stat"));
        let stopped = self.wait_until(PATIENCE, |_| {
            Ok(read(&stat).map_or(true, |stat| matches!(state_of(&stat), Some('T' | 't' | 'Z') | None)))
        });
        // Whatever came in between: it is not to stay stopped.
        self.calls.resume(pid).map_err(failed)?;
        if stopped? { Ok(()) } else { Err(refused("it did not stop: it sleeps where no signal wakes it")) }
    }

    /// Tells the kernel to take all tasks for moved, and waits for the end of the transition.
    pub fn force(&self, name: &str, watch: &mut Watch<'_>) -> Result<Waited, LiveError> {
        check_name(name)?;
        self.can_force(name)?;
        self.require_transition(Some(name))?;
        let path = self.livepatch(name).join("force");
        write_value(&path, b"1").map_err(|error| LiveError::at(&path, error))?;
        self.wait(name, PATIENCE, watch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, patient};

    fn disabling() -> Fake {
        let fake = Fake::new();
        fake.patch("x", false, true);
        fake.module("x", 1);
        fake
    }

    #[test]
    fn a_wait_ends_with_the_state_or_the_tasks() {
        let fake = Fake::new();
        fake.patch("x", true, false);
        let waited = fake.system().wait("x", Duration::ZERO, &mut patient).unwrap();
        assert_eq!(waited.state, State::Enabled);
        fake.patch("x", true, true);
        let error = fake.system().wait("x", Duration::ZERO, &mut patient).unwrap_err();
        assert!(matches!(error, LiveError::TransitionStalled { .. }), "{error}");
    }

    #[test]
    fn only_what_is_being_disabled_is_enabled_again() {
        let fake = disabling();
        let error = fake.system().enable("x", &Switch::default(), Duration::ZERO, &mut patient).unwrap_err();
        assert!(matches!(error, LiveError::TransitionStalled { .. }), "the fake transition goes on: {error}");
        assert_eq!(fake.read("sys/kernel/livepatch/x/enabled"), "1\n");
        assert!(matches!(fake.system().can_enable("x"), Err(LiveError::AlreadyLoaded(_))));
        fake.patch("x", false, false);
        assert!(matches!(fake.system().can_enable("x"), Err(LiveError::CannotEnable { .. })));
        let error = fake.system().can_enable("y").unwrap_err().to_string();
        assert_eq!(error, "y is not loaded");
    }

    #[test]
    fn the_kernel_is_asked_to_signal_where_it_can_be() {
        let fake = disabling();
        assert_eq!(fake.system().signal("x").unwrap(), Signaller::ByItself);
        fake.write("sys/kernel/livepatch/x/signal", "");
        assert_eq!(fake.system().signal("x").unwrap(), Signaller::Asked);
        assert_eq!(fake.read("sys/kernel/livepatch/x/signal"), "1");
        fake.patch("x", true, false);
        assert!(matches!(fake.system().signal("x"), Err(LiveError::NoTransition(_))));
    }

    #[test]
    fn a_task_that_holds_nothing_or_cannot_be_signalled_is_left_alone() {
        let fake = disabling();
        fake.task(5, 5, "kthread", 0x0020_0000, "1\n", "");
        fake.task(6, 6, "cat", 0, "0\n", "");
        fake.task(7, 7, "cat", 0, "1\n", "");
        fake.write("proc/7/stat", "7 (cat) T 1\n");
        for pid in [5, 6, 99] {
            let error = fake.system().stop_and_continue("x", pid).unwrap_err();
            assert!(matches!(error, LiveError::NotSignalled { .. }), "{error}");
        }
        assert!(fake.calls().is_empty());
        fake.system().stop_and_continue("x", 7).unwrap();
        assert_eq!(fake.calls(), ["stop 7", "continue 7"]);
    }

    #[test]
    fn only_a_transition_is_forced() {
        let fake = disabling();
        fake.write("sys/kernel/livepatch/x/force", "");
        fake.patch("x", true, false);
        assert!(matches!(fake.system().force("x", &mut patient), Err(LiveError::NoTransition(_))));
        assert_eq!(fake.read("sys/kernel/livepatch/x/force"), "");
        fake.patch("x", true, true);
        let leave = &mut |_: &crate::Waiting<'_>| crate::Decision::Leave;
        assert!(matches!(fake.system().force("x", leave), Err(LiveError::Interrupted { .. })));
        assert_eq!(fake.read("sys/kernel/livepatch/x/force"), "1");
    }
}
