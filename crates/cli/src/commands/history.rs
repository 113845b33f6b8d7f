//! `kmend history`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::style::{BOLD, DIM, GREEN, RED, YELLOW, paint};
use clap::Args;
use kmend_install::{Event, History, Outcome, Record, Store};
use kmend_live::System;
use std::fmt::Write;

/// Show what was done with livepatches on this machine
///
/// Loads, unloads, installs, holds and the rest, oldest first, with the time (UTC), the boot, and what came of each. Some ten
/// thousand lines are kept. What was done with other tools is not there.
///
/// Needs no root. Exit codes: 0 shown, 3 there is nothing to show, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowHistory {
    /// Show what concerns this livepatch alone
    #[arg(value_name = "NAME", value_parser = crate::arguments::loaded_name)]
    name: Option<String>,
    /// Show the last N lines alone
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

const EXAMPLES: &str = "\
Examples:
  kmend history --last 20
  kmend history livepatch_fix --json | jq -r '.records[] | [.at, .event, .outcome] | @tsv'";

impl ShowHistory {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let mut history = Store::of(&System::running()).history()?;
        if let Some(name) = &self.name {
            history.records.retain(|record| record.livepatch == *name);
        }
        let surplus = self.last.map_or(0, |last| history.records.len().saturating_sub(last));
        history.records.drain(..surplus);
        let end = if history.records.is_empty() { End::Nothing } else { End::Done };
        output.document(&history, text)?;
        Ok(end)
    }
}

fn text(history: &History) -> String {
    let mut text = String::new();
    let mut boot = None;
    for record in &history.records {
        if boot != Some(&record.boot) {
            let id = record.boot.as_deref().unwrap_or("unknown");
            let release = record.release.as_deref().unwrap_or_default();
            let _ = writeln!(text, "{}", paint(DIM, format!("boot {id} {release}")));
            boot = Some(&record.boot);
        }
        add(&mut text, record);
    }
    if history.unreadable > 0 {
        let _ = writeln!(text, "{} lines could not be read", history.unreadable);
    }
    if text.is_empty() { "nothing was done yet\n".into() } else { text }
}

fn add(text: &mut String, record: &Record) {
    let event = match record.event {
        Event::Load => "load",
        Event::Boot => "load at boot",
        Event::Unload => "unload",
        Event::Enable => "enable",
        Event::Disable => "disable",
        Event::Force => "force",
        Event::Install => "install",
        Event::Uninstall => "uninstall",
        Event::Hold => "hold",
        Event::WentDown => "went down",
        Event::Release => "release",
    };
    let outcome = match record.outcome {
        Outcome::Done => paint(GREEN, "done"),
        Outcome::Reversed => paint(YELLOW, "reversed"),
        Outcome::Left => paint(YELLOW, "left to the kernel"),
        Outcome::Failed => paint(RED, "failed"),
    };
    let _ = write!(text, "  {} {event} {}", record.at, paint(BOLD, &record.livepatch));
    for parameter in &record.parameters {
        let _ = write!(text, " {parameter}");
    }
    if let Some(model) = &record.model {
        let _ = write!(text, " by model {model}");
    }
    for code in &record.despite {
        let _ = write!(text, " despite {code}");
    }
    let _ = write!(text, " {outcome}");
    if let Some(code) = &record.code {
        let _ = write!(text, " [{code}]");
    }
    match &record.why {
        Some(why) => {
            let _ = writeln!(text, ": {why}");
        }
        None => text.push('\n'),
    }
}
