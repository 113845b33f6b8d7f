//! Waiting for a transition, and turning it around.

use crate::error::LiveError;
use crate::kernel_log::KernelLog;
use crate::patches::State;
use crate::refused::engine_refused;
use crate::system::{LOOK, System};
use rustix::io::Errno;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two counts of the tasks: each reads a file of every task.
const COUNT: Duration = Duration::from_millis(500);

/// A transition that is awaited.
#[derive(Debug, Clone, Serialize)]
pub struct Waiting<'a> {
    /// The livepatch.
    pub name: &'a str,
    /// Since it is awaited.
    pub elapsed: Duration,
    /// How many tasks are in the old state; `None` until they are counted, or without the right to see them.
    pub tasks: Option<usize>,
}

/// What to do about a transition that is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on waiting.
    Wait,
    /// Leave it to the kernel, which goes on with it.
    Leave,
    /// Turn it around.
    Reverse,
}

/// Is told at every look how a transition stands, and decides.
pub type Watch<'a> = dyn FnMut(&Waiting<'_>) -> Decision + 'a;

/// How the wait for a transition ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The transition is over.
    Over,
    /// The time is.
    TimedOut,
    /// The watcher decided to leave it.
    Left,
    /// The watcher decided to turn it around.
    Reversed,
}

impl System {
    /// Waits until a livepatch is in no transition. At least one look is taken.
    pub(crate) fn await_transition(
        &self,
        name: &str,
        timeout: Duration,
        watch: &mut Watch<'_>,
    ) -> Result<Wait, LiveError> {
        let start = Instant::now();
        let (mut counted, mut tasks) = (start, None);
        loop {
            if self.patch(name)?.is_none_or(|patch| !patch.transition) {
                return Ok(Wait::Over);
            }
            if counted.elapsed() >= COUNT {
                tasks = self.count_blocking(name).ok();
                counted = Instant::now();
            }
            match watch(&Waiting { name, elapsed: start.elapsed(), tasks }) {
                Decision::Wait => {}
                Decision::Leave => return Ok(Wait::Left),
                Decision::Reverse => return Ok(Wait::Reversed),
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(Wait::TimedOut);
            }
            std::thread::sleep(LOOK.min(left));
        }
    }

    /// The error that says that a transition is not over, with the tasks that hold it.
    pub(crate) fn stalled(&self, name: &str, timeout: Duration) -> LiveError {
        // Without the right to look at the tasks, the stall is still to be told.
        let blockers = self.blocking(name).unwrap_or_default();
        LiveError::TransitionStalled { name: name.to_owned(), seconds: timeout.as_secs(), blockers }
    }

    /// The error that says that the wait was broken off, and how the livepatch stands.
    pub(crate) fn left(&self, name: &str) -> LiveError {
        let state = self.patch(name).ok().flatten().map_or(State::Disabled, |patch| patch.state());
        LiveError::Interrupted { name: name.to_owned(), state }
    }

    /// Turns a transition around and waits for its end. The error that it returns says how that ended; `None` if the
    /// transition was over before.
    ///
    /// The kernel knows no "turn around only if it is not over": a transition that ends between the look and the write
    /// is followed by one in the other direction, which leads to the same state.
    pub(crate) fn reverse(
        &self,
        name: &str,
        waited: Duration,
        timeout: Duration,
        watch: &mut Watch<'_>,
    ) -> Result<Option<LiveError>, LiveError> {
        let Some(patch) = self.patch(name)?.filter(|patch| patch.transition) else { return Ok(None) };
        let blockers = self.blocking(name).unwrap_or_default();
        self.write_enabled(name, !patch.enabled)?;
        Ok(Some(match self.await_transition(name, timeout, watch)? {
            Wait::Over => {
                let state = if patch.enabled { State::Disabled } else { State::Enabled };
                let stays = state == State::Disabled && self.keeps_itself(name)?;
                let (name, seconds) = (name.to_owned(), waited.as_secs());
                LiveError::Reversed { name, seconds, state, stays, blockers }
            }
            Wait::TimedOut => self.stalled(name, timeout),
            Wait::Left | Wait::Reversed => self.left(name),
        }))
    }

    /// Enables or disables a livepatch, or turns its transition around.
    pub(crate) fn write_enabled(&self, name: &str, enabled: bool) -> Result<(), LiveError> {
        let engine = self.engine_patch(name)?.is_some();
        let folder = if engine { self.engine_folder(name) } else { self.livepatch(name) };
        let path = folder.join("enabled");
        let log = KernelLog::from_now(&self.path("dev/kmsg"));
        let Err(error) = write_value(&path, if enabled { b"1" } else { b"0" }) else { return Ok(()) };
        let busy = error.raw_os_error() == Some(Errno::BUSY.raw_os_error());
        let other = self.busy_with(engine)?;
        match other {
            Some(other) if busy => {
                Err(LiveError::TransitionBusy { name: name.to_owned(), other: other.name })
            }
            // Without the engine, there is nothing else that the kernel says so for.
            None if busy && !engine => {
                Err(LiveError::TransitionBusy { name: name.to_owned(), other: "another livepatch".into() })
            }
            // Someone else was faster: the kernel says EINVAL for the value that is there already.
            _ if self.patch(name)?.map_or(!enabled, |patch| patch.enabled == enabled) => Ok(()),
            _ if engine && error.kind() != io::ErrorKind::PermissionDenied => {
                Err(engine_refused(name, enabled, error, &log))
            }
            _ => Err(LiveError::at(&path, error)),
        }
    }
}

/// Writes a value in one call: a file of sysfs takes a value, not a stream.
pub(crate) fn write_value(path: &Path, value: &[u8]) -> io::Result<()> {
    let written = OpenOptions::new().write(true).open(path)?.write(value)?;
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
