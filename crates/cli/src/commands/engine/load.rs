//! `kmend engine load`

use crate::failure::{End, Failure};
use crate::journal;
use crate::output::Output;
use crate::style;
use clap::Args;
use kmend_install::Recorder;
use kmend_live::System;
use serde::Serialize;
use std::path::PathBuf;

/// Load the engine into the running kernel
///
/// The module changes nothing until a patch that uses it is enabled. Needs root. Exit codes: 0 it is loaded, 3 it was already,
/// 2 refused, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Load {
    /// The engine's module
    #[arg(value_name = "FILE", default_value = "kmend_engine.ko")]
    module: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Example:
  kmend engine load kmend_engine.ko";

#[derive(Serialize)]
struct Loaded {
    dry_run: bool,
    engine: String,
    notes: Vec<String>,
}

impl Load {
    pub(crate) fn changes(&self) -> bool {
        !self.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let engine = system
            .check_engine(&self.module)
            .map_err(|errors| Failure::all(&self.module.display().to_string(), &errors))?;
        let mut recorder = Recorder::new(&system);
        if !self.dry_run {
            recorder.load_engine(&engine)?;
            journal::changed("engine load", &engine.module.name, "loaded");
        }
        let loaded = Loaded { dry_run: self.dry_run, engine: engine.module.name, notes: recorder.notes() };
        let verb = if self.dry_run { "would load" } else { "loaded" };
        let notes = |loaded: &Loaded| loaded.notes.iter().map(style::note).collect::<String>();
        output.document(&loaded, |loaded| format!("{verb} {}\n{}", loaded.engine, notes(loaded)))?;
        Ok(End::Done)
    }
}
