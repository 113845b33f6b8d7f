//! `kmend engine status`

use crate::commands::list::state;
use crate::failure::{End, Failure};
use crate::output::Output;
use crate::style::{BOLD, paint};
use clap::Args;
use kmend_live::{Engine, EnginePatch, System};
use serde::Serialize;
use std::fmt::Write;

/// Show the engine and its patches
///
/// Of each patch: its state, its model, its functions, who holds its transition up, how long the last one took and for how
/// long it held all CPUs. Ends with 3 if the engine is not loaded.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowStatus {}

const EXAMPLES: &str = "\
Examples:
  kmend engine status
  kmend engine status --json | jq -r '.engine.patches[] | select(.transition) | .blocking[]'";

#[derive(Serialize)]
struct Document {
    engine: Option<Engine>,
}

impl ShowStatus {
    pub(crate) fn run(output: &mut Output) -> Result<End, Failure> {
        let document = Document { engine: System::running().engine()? };
        output.document(&document, text)?;
        Ok(if document.engine.is_some() { End::Done } else { End::Nothing })
    }
}

fn text(document: &Document) -> String {
    let Some(engine) = &document.engine else { return "the engine is not loaded\n".into() };
    if engine.patches.is_empty() {
        return "the engine is loaded, and has no patch\n".into();
    }
    engine.patches.iter().fold(String::new(), |mut text, patch| {
        add_patch(&mut text, patch);
        text
    })
}

fn add_patch(text: &mut String, patch: &EnginePatch) {
    let (name, state) = (paint(BOLD, &patch.name), state(patch.state()));
    let how = &patch.switching;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{name} {state}, model {}, redirect {}", how.model, how.redirect);
    for function in &patch.functions {
        let _ = writeln!(text, "  {} {}: {}", function.object, function.name, function.state);
    }
    for task in &patch.blocking {
        let _ = writeln!(text, "  held up by {task}");
    }
    if how.switch_ns > 0 {
        let (took, held) = (micros(how.switch_ns), micros(how.pause_ns));
        let _ = writeln!(text, "  the last transition took {took} µs and held all CPUs for {held} µs");
    }
    if how.error != 0 {
        let _ = writeln!(text, "  the last transition was reversed (error {})", -how.error);
    }
}

/// Nanoseconds in whole microseconds.
fn micros(nanos: u64) -> u64 {
    nanos.div_ceil(1000)
}
