//! `kmend engine`

mod build;
mod load;
mod status;
mod unload;

use crate::failure::{End, Failure};
use crate::output::Output;
use clap::Subcommand;

const EXAMPLES: &str = "\
Examples:
  kmend engine build
  kmend engine load kmend_engine.ko
  kmend engine status";

/// The consistency engine: build, load, unload, status
///
/// A kernel module that switches patches by any of several consistency models, where the kernel's own livepatch knows
/// one. Both work beside each other; a function that one has patched is refused by the other. docs/consistency.md says
/// which model is for what.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Engine {
    Build(build::Build),
    Load(load::Load),
    Unload(unload::Unload),
    Status(status::ShowStatus),
}

impl Engine {
    /// The command's name, if it changes the running system.
    pub(crate) fn changes(&self) -> Option<&'static str> {
        match self {
            Engine::Load(load) => load.changes().then_some("engine load"),
            Engine::Unload(unload) => unload.changes().then_some("engine unload"),
            Engine::Build(_) | Engine::Status(_) => None,
        }
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        match self {
            Engine::Build(build) => build.run(output),
            Engine::Load(load) => load.run(output),
            Engine::Unload(unload) => unload.run(output),
            Engine::Status(_) => status::ShowStatus::run(output),
        }
    }
}

/// Why there is no engine for a kernel.
pub(crate) fn failure(error: kmend_engine::EngineError) -> Failure {
    match error.refusals() {
        [] => Failure::about("", &error),
        refusals => Failure::refused(refusals.to_vec()),
    }
}
