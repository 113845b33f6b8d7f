//! `kmend engine unload`

use crate::failure::{End, Failure};
use crate::journal;
use crate::output::Output;
use clap::Args;
use kmend_install::{Event, Recorder};
use kmend_live::System;
use serde::Serialize;
use std::time::Duration;

/// Unload the engine
///
/// No patch may use it. A task that was asked to switch and sleeps holds it until it wakes. Needs root. Exit codes: 0 it is gone, 2 it is
/// in use or was not loaded, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Unload {
    /// For how long tasks that hold it are awaited, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Example:
  kmend engine unload";

#[derive(Serialize)]
struct Unloaded {
    dry_run: bool,
    engine: String,
}

impl Unload {
    pub(crate) fn changes(&self) -> bool {
        !self.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let name = kmend_engine::ENGINE;
        if self.dry_run {
            system.can_unload_engine()?;
        } else {
            let timeout = Duration::from_secs(self.timeout);
            Recorder::new(&system).record(Event::Unload, name, |system| system.unload_engine(timeout))?;
            journal::changed("engine unload", name, "unloaded");
        }
        let unloaded = Unloaded { dry_run: self.dry_run, engine: name.into() };
        let verb = if self.dry_run { "would unload" } else { "unloaded" };
        output.document(&unloaded, |unloaded| format!("{verb} {}\n", unloaded.engine))?;
        Ok(End::Done)
    }
}
