//! `kmend force`

use super::change::would;
use super::wait;
use crate::failure::{End, Failure};
use crate::journal;
use crate::output::{self, Output};
use crate::style::{RED, paint};
use crate::watcher::Watcher;
use clap::Args;
use kmend_install::{Event, Recorder};
use kmend_live::{LoadedPatch, System};
use kmend_refusal::Code;

/// End a transition by force
///
/// Tells the kernel to take all tasks for moved. Those that are left may be running old code at that moment, and go on with
/// it: old and new code then run side by side, which may corrupt what they share. If tasks were being moved away from a
/// livepatch, its module stays in memory until the next boot, and so do all that it replaces: the kernel cannot know when
/// they leave it. Look at `kmend blocking` first; to reverse the transition (`kmend unload` or `kmend enable`) is safe.
///
/// kmend's consistency engine takes no task for moved that is not: its transitions cannot be forced.
///
/// Needs root, and --yes or an answer on a terminal. Exit codes: 0 it is over, 3 no transition is under way, 2 refused,
/// 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Force {
    /// The livepatch's name; the one in transition if not given
    #[arg(value_name = "NAME", value_parser = crate::arguments::loaded_name)]
    name: Option<String>,
    /// Do it without a question
    #[arg(long)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Example:
  kmend force livepatch_fix";

impl Force {
    /// Whether nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let patch = system.require_transition(self.name.as_deref())?;
        system.can_force(&patch.name)?;
        if self.dry_run {
            return would("force", &patch.name, output);
        }
        output::say(&warning(&system, &patch)?);
        if !(self.yes || output::ask("force it? (yes/no) ").as_deref() == Some("yes")) {
            return Err(Failure::new(Code::NotConfirmed, patch.name, "the transition is left as it is"));
        }
        let mut watcher = Watcher::new("force")?;
        let waited = Recorder::new(&system).record(Event::Force, &patch.name, |system| {
            system.force(&patch.name, &mut |waiting| watcher.look(waiting))
        })?;
        drop(watcher);
        journal::changed("force", &patch.name, "forced");
        output.document(&waited, wait::text)?;
        Ok(End::Done)
    }
}

fn warning(system: &System, patch: &LoadedPatch) -> Result<String, Failure> {
    let tasks = system.blocking(&patch.name)?.len();
    let stays = if patch.enabled {
        "the livepatches that it replaces, if any, stay in memory until the next boot"
    } else {
        "its module stays in memory until the next boot"
    };
    let word = paint(RED, "warning:");
    Ok(format!(
        "{word} {tasks} tasks are taken for moved that may be running old code of {}; {stays}\n",
        patch.name
    ))
}
