//! `kmend wait`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::watcher::Watcher;
use clap::Args;
use kmend_live::{System, Waited};
use std::time::Duration;

/// Wait until no transition is under way
///
/// Shows the number of tasks that are left. If the time is over, the tasks are named, and the transition goes on. Ctrl-C asks
/// on a terminal whether to reverse the transition or to leave it; elsewhere it leaves it.
///
/// Exit codes: 0 it is over, 3 there was none, 1 it is not over in time.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Await {
    /// The livepatch's name; the one in transition if not given
    #[arg(value_name = "NAME", value_parser = crate::arguments::loaded_name)]
    name: Option<String>,
    /// How long to wait, in seconds; for ever if not given
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
}

const EXAMPLES: &str = "\
Examples:
  kmend wait
  kmend wait livepatch_fix --timeout 60";

impl Await {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let patch = system.require_transition(self.name.as_deref())?;
        let timeout = self.timeout.map_or(Duration::MAX, Duration::from_secs);
        let mut watcher = Watcher::new("wait")?;
        let waited = system.wait(&patch.name, timeout, &mut |waiting| watcher.look(waiting))?;
        drop(watcher);
        output.document(&waited, text)?;
        Ok(End::Done)
    }
}

/// How a transition ended.
pub(super) fn text(waited: &Waited) -> String {
    let state = super::list::state(waited.state);
    format!("{state} {} after {:.2} s\n", waited.name, waited.time.as_secs_f64())
}
