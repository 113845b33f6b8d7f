//! `kmend blocking`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::style::{BOLD, DIM, GREEN, paint};
use clap::Args;
use kmend_live::{Blocker, System};
use serde::Serialize;
use std::fmt::Write;

/// Show the tasks that hold a transition, and what would free each
///
/// A task is moved when none of the functions in question is on its stack. For each that is left: what it is, the
/// patched function in which it sleeps, the kernel's function in which it waits, and what would free it. Idle tasks hold
/// transitions too, for a moment, but cannot be seen.
///
/// Needs root. Exit codes: 0 shown, 3 no transition is under way, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Blocking {
    /// The livepatch's name; the one in transition if not given
    #[arg(value_name = "NAME", value_parser = crate::arguments::loaded_name)]
    name: Option<String>,
    /// Show the tasks' whole stacks in the kernel
    #[arg(long)]
    stacks: bool,
}

const EXAMPLES: &str = "\
Examples:
  kmend blocking
  kmend blocking livepatch_fix --stacks
  kmend blocking --json | jq -r '.tasks[] | \"\\(.tid) \\(.command_line)\"'";

#[derive(Serialize)]
struct Blockers {
    /// The livepatch in transition.
    livepatch: String,
    /// Whether tasks are moved to it or away from it.
    state: kmend_live::State,
    tasks: Vec<Blocker>,
}

impl Blocking {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let patch = system.require_transition(self.name.as_deref())?;
        let tasks = system.blocking(&patch.name)?;
        let state = patch.state();
        let blockers = Blockers { livepatch: patch.name, state, tasks };
        output.document(&blockers, |blockers| text(blockers, self.stacks))?;
        Ok(End::Done)
    }
}

fn text(blockers: &Blockers, stacks: bool) -> String {
    let (name, state) = (paint(BOLD, &blockers.livepatch), super::list::state(blockers.state));
    let mut text = match blockers.tasks.len() {
        0 => format!("{name} {state}: no task that can be seen holds it\n"),
        1 => format!("{name} {state}: 1 task holds it\n"),
        count => format!("{name} {state}: {count} tasks hold it\n"),
    };
    for task in &blockers.tasks {
        add_task(&mut text, task, stacks);
    }
    text
}

fn add_task(text: &mut String, task: &Blocker, stacks: bool) {
    let _ = write!(text, "  {task}");
    let patched = task.patched_function_on_stack.as_ref();
    if let Some(function) = task.waits_in.as_ref().filter(|waits| patched.is_some_and(|it| it != *waits)) {
        let _ = write!(text, ", waits in {function}");
    }
    text.push('\n');
    if !task.command_line.is_empty() {
        let _ =
            writeln!(text, "    {} {}", paint(DIM, format!("process {}:", task.pid)), task.shown_command());
    }
    for frame in task.stack.iter().filter(|_| stacks) {
        let _ = writeln!(text, "    {} {frame}", paint(DIM, "|"));
    }
    let _ = writeln!(text, "    {} {}", paint(GREEN, "way out:"), task.way_out);
}
