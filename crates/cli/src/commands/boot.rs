//! `kmend boot`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::style::{self, DIM, GREEN, RED, YELLOW, paint};
use clap::Args;
use kmend_install::{Boot, BootOutcome, Settled, Store};
use kmend_live::System;
use kmend_refusal::Code;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Load what is installed for the kernel that runs; the service manager does this at boot
///
/// The livepatches are loaded in their order; one that cannot be is told, and the others go on. A transition that is not over after a
/// minute for all of them is left to the kernel. What the machine may have died of is held from now on, and before each load the
/// crash memory says so on the disk. `kmend.enable=0` on the kernel's command line has nothing loaded.
///
/// --settle waits until the machine has run for a minute since the last load, and then clears the crash memory. So does a
/// SIGTERM before that: the machine is being shut down in order.
///
/// Needs root. Exit codes: 0 all is loaded, 3 nothing is installed for this kernel or it is turned off, 2 something is held or
/// refused, 1 something failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BootSet {
    /// Wait for the minute after which a load counts as a good one
    #[arg(long)]
    settle: bool,
    /// Say what would be loaded, and load nothing
    #[arg(long, conflicts_with = "settle")]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Example:
  kmend boot --dry-run";

#[derive(Serialize)]
struct Done {
    dry_run: bool,
    #[serde(flatten)]
    boot: Boot,
}

#[derive(Serialize)]
struct Waited {
    settled: Settled,
}

impl BootSet {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let store = Store::of(&system);
        if self.settle {
            return settle(&store, &system, output);
        }
        let boot = store.boot(&system, self.dry_run)?;
        let end = if boot.livepatches.is_empty() {
            End::Nothing
        } else {
            // What is another build's was told, and is in order.
            let bad = boot.livepatches.iter().filter(|patch| patch.outcome != BootOutcome::Skipped);
            End::of(bad.filter_map(|patch| patch.code))
        };
        output.document(&Done { dry_run: self.dry_run, boot }, text)?;
        Ok(end)
    }
}

fn settle(store: &Store, system: &System, output: &mut Output) -> Result<End, Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register(signal, Arc::clone(&ended))
            .map_err(|error| Failure::new(Code::Internal, "signals", error.to_string()))?;
    }
    let settled = store.settle(system, || ended.load(Ordering::Relaxed))?;
    output.document(&Waited { settled }, |it| match it.settled {
        Settled::Clean => "every load is a minute old\n".to_owned(),
        Settled::ShutDown => "the machine is shut down in order\n".to_owned(),
    })?;
    Ok(End::Done)
}

fn text(done: &Done) -> String {
    let mut text = String::new();
    for patch in &done.boot.livepatches {
        let (style, word) = match patch.outcome {
            BootOutcome::Loaded => (GREEN, "loaded"),
            BootOutcome::WouldLoad => (GREEN, "would load"),
            BootOutcome::AlreadyLoaded => (DIM, "loaded before"),
            BootOutcome::Left => (YELLOW, "still in transition"),
            BootOutcome::Superseded => (DIM, "superseded"),
            BootOutcome::Skipped => (DIM, "skipped"),
            BootOutcome::Held => (YELLOW, "held"),
            BootOutcome::Failed => (RED, "failed"),
        };
        let _ = write!(text, "{} {}", paint(style, word), patch.name);
        if let Some(why) = &patch.why {
            let code = patch.code.map(|code| format!(" [{code}]")).unwrap_or_default();
            let _ = write!(text, "{code}: {why}");
        }
        text.push('\n');
    }
    for note in &done.boot.notes {
        text.push_str(&style::note(note));
    }
    if text.is_empty() {
        text = format!("nothing is installed for {}\n", done.boot.release);
    }
    text
}
