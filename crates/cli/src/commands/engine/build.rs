//! `kmend engine build`

use crate::failure::{End, Failure};
use crate::kernel_choice;
use crate::output::Output;
use clap::Args;
use kmend_store::Cache;
use serde::Serialize;
use std::path::PathBuf;

/// Build the engine for a kernel
///
/// The engine's source travels with kmend. What it uses of the kernel that is not exported is looked up in the kernel's image,
/// and must be there exactly once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Build {
    /// The kernel of the cache, by its release; else the one that runs, or the only one
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<String>,
    /// The folder to put kmend_engine.ko into
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    output: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  kmend engine build
  kmend engine build --kernel 6.1.0-56-cloud-amd64 --output modules";

#[derive(Serialize)]
struct Built {
    release: String,
    module: PathBuf,
}

impl Build {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let cache = Cache::open()?;
        let kernel = kernel_choice::choose(&cache, self.kernel.as_deref())?;
        let module = kmend_engine::build(&cache, &kernel, &self.output).map_err(super::failure)?;
        let built = Built { release: kernel.release, module };
        output.document(&built, |built| format!("{} for {}\n", built.module.display(), built.release))?;
        Ok(End::Done)
    }
}
