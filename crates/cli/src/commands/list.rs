//! `kmend list`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::style::{BOLD, DIM, GREEN, YELLOW, paint};
use clap::Args;
use kmend_live::{LoadedPatch, PatchedObject, State, System};
use serde::Serialize;
use std::fmt::Write;

/// List the livepatches of the running kernel
///
/// Shows every livepatch that is loaded, whoever built it: its state, and the functions that it replaces by object. An
/// object that is not loaded (a module) is patched when it is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {}

const EXAMPLES: &str = "\
Examples:
  kmend list
  kmend list --json | jq -r '.livepatches[] | select(.transition) | .name'";

#[derive(Serialize)]
struct Livepatches {
    livepatches: Vec<LoadedPatch>,
}

impl List {
    pub(crate) fn run(output: &mut Output) -> Result<End, Failure> {
        let patches = System::running().patches()?;
        output.document(&Livepatches { livepatches: patches }, |all| text(&all.livepatches))?;
        Ok(End::Done)
    }
}

fn text(patches: &[LoadedPatch]) -> String {
    if patches.is_empty() {
        return "no livepatch is loaded\n".into();
    }
    let mut text = String::new();
    for patch in patches {
        let state = state(patch.state());
        let replaces = if patch.replace == Some(true) { ", replaces those before it" } else { "" };
        let _ = writeln!(text, "{} {state}{replaces}", paint(BOLD, &patch.name));
        for object in &patch.objects {
            add_object(&mut text, object);
        }
    }
    text
}

/// A state in its colour.
pub(super) fn state(state: State) -> String {
    let style = match state {
        State::Enabled => GREEN,
        State::Enabling | State::Disabling => YELLOW,
        State::Disabled => DIM,
    };
    paint(style, state.name())
}

fn add_object(text: &mut String, object: &PatchedObject) {
    let absent = if object.patched == Some(false) { " (not patched now)" } else { "" };
    let _ = writeln!(text, "  {}{absent}", object.name);
    for function in &object.functions {
        let position =
            if function.position > 1 { format!(" (position {})", function.position) } else { String::new() };
        let _ = writeln!(text, "    {}{position}", function.name);
    }
}
