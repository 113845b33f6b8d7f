//! `kmend enable` and `kmend disable`

use super::change::{Change, would};
use super::wait;
use crate::failure::{End, Failure};
use crate::journal;
use crate::output::Output;
use crate::style::{GREEN, paint};
use crate::watcher::Watcher;
use clap::Args;
use kmend_install::{Event, Recorder};
use kmend_live::{LiveError, Switch, System};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Enable a livepatch that is being disabled
///
/// Turns its transition around and waits until every task runs it. Once a livepatch is disabled, the kernel cannot enable it
/// again: load it again then. A patch for kmend's consistency engine can be enabled again, by another model if you like.
///
/// Needs root. Exit codes: 0 enabled, 3 it is enabled already, 2 refused, 1 failed or not over in time.
#[derive(Debug, Args)]
#[command(after_help = ENABLE_EXAMPLES)]
pub(crate) struct Enable {
    #[command(flatten)]
    change: Change,
    /// How the engine is to redirect callers, from now on
    #[arg(long, value_name = "HOW")]
    redirect: Option<String>,
}

/// Disable a livepatch, and leave its module in memory
///
/// Waits until no task runs its code. It cannot be enabled again afterwards, unless it is for kmend's consistency engine; `kmend
/// unload` disables it and removes the module, too.
///
/// Needs root. Exit codes: 0 disabled, 3 it is not loaded, 1 failed or not over in time.
#[derive(Debug, Args)]
#[command(after_help = DISABLE_EXAMPLES)]
pub(crate) struct Disable {
    #[command(flatten)]
    change: Change,
}

const ENABLE_EXAMPLES: &str = "\
Examples:
  kmend enable livepatch_fix
  kmend enable livepatch_fix --model stop-machine";

const DISABLE_EXAMPLES: &str = "\
Example:
  kmend disable livepatch_fix";

/// What was disabled.
#[derive(Serialize)]
struct Disabled<'a> {
    disabled: &'a str,
    time: Duration,
}

impl Enable {
    /// Whether nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.change.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let (system, name) = (System::running(), &self.change.name);
        let switch = Switch { redirect: self.redirect.clone(), ..self.change.switch() };
        if self.change.dry_run {
            system.can_enable(name)?;
            system.can_switch(name, &switch)?;
            return would("enable", name, output);
        }
        let mut watcher = Watcher::new("enable")?;
        let enabled = Recorder::new(&system).record(Event::Enable, name, |system| {
            system.enable(name, &switch, self.change.timeout(), &mut |waiting| watcher.look(waiting))
        })?;
        drop(watcher);
        journal::changed("enable", name, "enabled");
        output.document(&enabled, wait::text)?;
        Ok(End::Done)
    }
}

impl Disable {
    /// Whether nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.change.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let (system, name) = (System::running(), &self.change.name);
        if self.change.dry_run {
            if system.patch(name)?.is_none() {
                return Err(LiveError::NotLoaded(name.clone()).into());
            }
            system.can_switch(name, &self.change.switch())?;
            return would("disable", name, output);
        }
        let start = Instant::now();
        let mut watcher = Watcher::new("disable")?;
        Recorder::new(&system).record(Event::Disable, name, |system| {
            system.disable(name, &self.change.switch(), self.change.timeout(), &mut |waiting| {
                watcher.look(waiting)
            })
        })?;
        drop(watcher);
        journal::changed("disable", name, "disabled");
        output.document(&Disabled { disabled: name, time: start.elapsed() }, |it| {
            format!("{} {} in {:.2} s\n", paint(GREEN, "disabled"), it.disabled, it.time.as_secs_f64())
        })?;
        Ok(End::Done)
    }
}
