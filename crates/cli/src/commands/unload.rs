//! `kmend unload`

use super::change::{Change, would};
use crate::failure::{End, Failure};
use crate::journal;
use crate::output::Output;
use crate::style::{self, GREEN, paint};
use crate::watcher::Watcher;
use clap::Args;
use kmend_explain::visible;
use kmend_install::{Event, Recorder};
use kmend_live::{Rest, System};
use serde::Serialize;

/// Disable a livepatch, wait until no task runs it, and remove its module
///
/// Afterwards the kernel is as it was before the livepatch was loaded. If tasks hold the transition longer than the
/// timeout, they are named with what they are doing, and the transition goes on by itself; the same command then ends
/// the work.
///
/// A patch for kmend's consistency engine is disabled by the model that it has; --model gives it another.
///
/// Needs root. Exit codes: 0 unloaded, 3 it is not loaded, 2 refused, 1 failed or not over in time.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Unload {
    #[command(flatten)]
    change: Change,
}

const EXAMPLES: &str = "\
Example:
  kmend unload livepatch_fix";

#[derive(Serialize)]
struct Done<'a> {
    unloaded: &'a str,
    /// What stays in memory.
    rest: Rest,
    /// What of it may still be in use, as far as it says.
    pinned_by: Option<String>,
    /// What is to be known.
    notes: Vec<String>,
}

impl Unload {
    /// Whether nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.change.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let (system, name) = (System::running(), &self.change.name);
        if self.change.dry_run {
            system.can_unload(name)?;
            system.can_switch(name, &self.change.switch())?;
            return would("unload", name, output);
        }
        let mut watcher = Watcher::new("unload")?;
        let mut recorder = Recorder::new(&system);
        let rest = recorder.record(Event::Unload, name, |system| {
            system.unload(name, &self.change.switch(), self.change.timeout(), &mut |waiting| {
                watcher.look(waiting)
            })
        })?;
        drop(watcher);
        let done = match rest {
            Rest::Nothing => "unloaded",
            Rest::Module => "disabled; its module stays in memory",
        };
        journal::changed("unload", name, done);
        let notes = recorder.notes();
        let text = |it: &Done<'_>| {
            let done = match it.rest {
                Rest::Nothing => format!("{} {}\n", paint(GREEN, "unloaded"), it.unloaded),
                Rest::Module => format!(
                    "{} {}: it stays in memory, because {} may still be in use\n",
                    paint(GREEN, "disabled"),
                    it.unloaded,
                    it.pinned_by.as_deref().map_or("something of it".into(), visible)
                ),
            };
            it.notes.iter().fold(done, |text, note| text + &style::note(note))
        };
        let pinned_by = system.pinned_by(name).filter(|_| rest == Rest::Module);
        output.document(&Done { unloaded: name, rest, pinned_by, notes }, text)?;
        Ok(End::Done)
    }
}
