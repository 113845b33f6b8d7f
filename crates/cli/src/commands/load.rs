//! `kmend load`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::style::{GREEN, paint};
use clap::Args;
use kmend_live::{LoadOptions, System};
use std::path::PathBuf;
use std::time::Duration;

/// Load a livepatch into the running kernel, and wait until every task runs it
///
/// The kernel moves its tasks to the new code one by one, each when it runs none of the old. If tasks hold the
/// transition longer than the timeout, they are named with what they are doing, and the transition goes on by itself.
///
/// A livepatch that was built to replace others (which is what `kmend build` does unless told otherwise) takes the
/// place of all that are loaded; `kmend inspect` tells. What kmend loads is gone after the next boot.
///
/// Needs root. Exit codes: 0 loaded, 3 it is loaded already, 2 refused, 1 failed or not over in time.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Load {
    /// The livepatch module that `kmend build` wrote
    #[arg(value_name = "FILE")]
    module: PathBuf,
    /// How long to wait for the transition, in seconds
    #[arg(long, value_name = "S", default_value_t = LoadOptions::default().timeout.as_secs())]
    timeout: u64,
}

const EXAMPLES: &str = "\
Example:
  kmend load livepatch-fix.ko";

impl Load {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let mut progress = Progress::new();
        progress.begin("load");
        progress.detail("waiting until every task runs the new code");
        let options = LoadOptions { timeout: Duration::from_secs(self.timeout) };
        let loaded = System::running()
            .load(&self.module, options)
            .map_err(|error| Failure::about(self.module.display().to_string(), &error))?;
        drop(progress);
        output.result(&loaded, |loaded| {
            format!("{} {} in {:.2} s\n", paint(GREEN, "loaded"), loaded.name, loaded.time.as_secs_f64())
        })?;
        Ok(End::Done)
    }
}
