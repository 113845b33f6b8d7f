//! `kmend install`

use crate::failure::{End, Failure};
use crate::journal;
use crate::output::Output;
use crate::style::{self, DIM, GREEN, paint};
use clap::Args;
use kmend_install::{InstalledPatch, Installs, Store};
use kmend_live::System;
use serde::Serialize;
use std::path::PathBuf;

/// Have livepatches loaded at every boot of the kernel that they are for
///
/// Copies the modules to /var/lib/kmend/RELEASE, verified by their hash, where RELEASE is the kernel of each; it need not be the
/// one that runs. At boot, before the network, they are loaded in the order in which they were installed. Of those before one
/// that replaces others none is loaded, unless it cannot be. All files of one kernel are installed or none; killed at any
/// moment, the next boot has the old set or the new one.
///
/// A livepatch of a name that is installed with other contents is refused; with --overwrite it takes that place. Nothing
/// is loaded now: `kmend load FILE && kmend install FILE` first tries what then is kept.
///
/// A patch that was built with --engine is installed with kmend's consistency engine (`kmend engine build`), or after it; that is
/// loaded before its patches, and uninstalled with the last of them.
///
/// If the machine goes down while an installed livepatch is being loaded or within a minute after, it is held: it is not loaded at
/// boot until `kmend release`. `kmend.enable=0` on the kernel's command line has no livepatch loaded.
///
/// Needs root. Exit codes: 0 installed, 3 all is installed already, 2 refused, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Install {
    /// The livepatch modules that `kmend build` wrote
    #[arg(value_name = "FILE", required = true)]
    modules: Vec<PathBuf>,
    /// Put a module in the place of an installed one of its name with other contents
    #[arg(long)]
    overwrite: bool,
    /// Make all the checks, and change nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  kmend install livepatch-fix.ko
  kmend load livepatch-fix.ko && kmend install livepatch-fix.ko
  kmend install kmend_engine.ko livepatch-fix.ko
  kmend install livepatch-fix.ko --overwrite --dry-run";

#[derive(Serialize)]
struct Done {
    dry_run: bool,
    #[serde(flatten)]
    installs: Installs,
}

impl Install {
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let store = Store::of(&system);
        let installs = if self.dry_run {
            store.would_install(&system, &self.modules, self.overwrite)
        } else {
            store.install(&system, &self.modules, self.overwrite)
        };
        let installs = installs.map_err(|reasons| {
            Failure::many(reasons.iter().map(|(path, error)| (path.display().to_string(), error)))
        })?;
        for patch in installs.installed.iter().filter(|_| !self.dry_run) {
            journal::changed("install", &patch.name, &format!("installed for {}", patch.release));
        }
        let end = if installs.installed.is_empty() { End::Nothing } else { End::Done };
        output.document(&Done { dry_run: self.dry_run, installs }, text)?;
        Ok(end)
    }
}

fn text(done: &Done) -> String {
    let word = if done.dry_run { "would install" } else { "installed" };
    let one = |patch: &InstalledPatch| {
        let place = if patch.overwrites { ", in place of other contents" } else { "" };
        format!("{} {} for {}{place}\n", paint(GREEN, word), patch.name, patch.release)
    };
    let installed = done.installs.installed.iter().map(one);
    let unchanged =
        done.installs.unchanged.iter().map(|name| format!("{} {name}\n", paint(DIM, "installed before")));
    let notes = done.installs.notes.iter().map(style::note);
    unchanged.chain(installed).chain(notes).collect()
}
