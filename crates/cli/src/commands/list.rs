//! `kmend list`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::style::{BOLD, DIM, GREEN, YELLOW, paint};
use clap::Args;
use kmend_explain::visible;
use kmend_install::{Overview, Place, Store};
use kmend_live::{LoadedPatch, PatchedObject, State, Switching, System};
use serde::Serialize;
use std::fmt::Write;

/// List the livepatches of the running kernel
///
/// Shows every livepatch that is loaded, whoever built it: its state, and the functions that it replaces by object. An
/// object that is not loaded (a module) is patched when it is. Patches of kmend's consistency engine are among them, with their
/// model. Then what is installed, and whether it is loaded at boot.
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
    #[serde(flatten)]
    overview: Overview,
}

impl List {
    pub(crate) fn run(output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let livepatches = system.patches()?;
        let overview = Store::of(&system).overview(&system.release()?, &livepatches);
        output.document(&Livepatches { livepatches, overview }, |all| {
            text(&all.livepatches) + &installed(&all.overview)
        })?;
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
        let engine = patch.engine.as_ref().map(engine).unwrap_or_default();
        let _ = writeln!(text, "{} {state}{replaces}{engine}", paint(BOLD, &patch.name));
        for object in &patch.objects {
            add_object(&mut text, object);
        }
    }
    text
}

/// That the consistency engine switches a livepatch, and how.
pub(super) fn engine(switching: &Switching) -> String {
    format!(", by kmend's engine ({}, {})", visible(&switching.model), visible(&switching.redirect))
}

/// What is installed, by kernel; empty if nothing is.
pub(super) fn installed(overview: &Overview) -> String {
    let mut text = String::new();
    let mut release = None;
    for place in &overview.installed {
        if release != Some(&place.release) {
            let other = if place.running { "" } else { ", which does not run" };
            let _ = writeln!(text, "\n{} {}{other}", paint(BOLD, "installed for"), place.release);
            release = Some(&place.release);
        }
        let _ = writeln!(text, "  {} {}", place.module.name, fate(place));
    }
    for why in &overview.installed_unreadable {
        let _ = writeln!(text, "\n{} {why}", paint(YELLOW, "installed, and cannot be read:"));
    }
    text
}

/// What becomes of an installed livepatch at the next boot.
fn fate(place: &Place) -> String {
    let name = &place.module.name;
    match (&place.module.held, &place.superseded_by) {
        (Some(held), _) => {
            format!(
                "{}: {}; `kmend release {name}` lets it be loaded again",
                paint(YELLOW, "held"),
                held.why()
            )
        }
        (None, Some(by)) => paint(DIM, format!("superseded by {by}")),
        (None, None) if place.running && !place.loaded => {
            format!("loaded at every boot, and {}", paint(YELLOW, "not now"))
        }
        (None, None) => paint(GREEN, "loaded at every boot"),
    }
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
        let state = function.state.as_ref().map(|state| format!(" {}", visible(state))).unwrap_or_default();
        let _ = writeln!(text, "    {}{position}{state}", visible(&function.name));
    }
}
