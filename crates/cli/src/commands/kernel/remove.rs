//! `kmend kernel remove`

use crate::failure::{End, Failure};
use crate::output::Output;
use clap::Args;
use kmend_store::Cache;
use serde::Serialize;

/// Remove a kernel from the cache
///
/// Removes it with all that was derived from it. Of an imported kernel, the folders that it was imported from are
/// not touched.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Remove {
    /// The kernel's release, as `kmend kernel list` shows it
    #[arg(value_name = "RELEASE")]
    release: String,
}

const EXAMPLES: &str = "\
Example:
  kmend kernel remove 6.1.0-56-cloud-amd64";

#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a str,
}

impl Remove {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        Cache::open()?.remove(&self.release)?;
        output.document(&Removed { removed: &self.release }, |it| format!("removed {}\n", it.removed))?;
        Ok(End::Done)
    }
}
