//! `kmend uninstall` and `kmend release`

use crate::failure::{End, Failure};
use crate::journal;
use crate::output::Output;
use crate::style::{self, GREEN, paint};
use clap::Args;
use kmend_install::{InstallError, Store};
use kmend_live::System;
use serde::Serialize;

/// Have livepatches no longer loaded at boot
///
/// Takes them out of the set of the kernel that runs, or of another one. What is loaded stays loaded: `kmend unload NAME` takes it out
/// of the running kernel. All the names are taken out, or none if one is not installed.
///
/// Needs root. Exit codes: 0 done, 3 not installed, 2 refused, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = UNINSTALL_EXAMPLES)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    which: Which,
}

/// Let livepatches that are held after a crash be loaded at boot again
///
/// A livepatch is held if the machine went down while it was being loaded or within a minute after, whatever the cause; `kmend status`
/// shows it. It is held until it is released, or another module takes its place (`kmend install --overwrite`). It is not loaded
/// now: `kmend load NAME` does that.
///
/// Needs root. Exit codes: 0 done, 3 not installed or not held, 2 refused, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = RELEASE_EXAMPLES)]
pub(crate) struct Release {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// The livepatches' names, as `kmend status` shows them
    #[arg(value_name = "NAME", required = true, value_parser = crate::arguments::loaded_name)]
    names: Vec<String>,
    /// The kernel for which they are installed, if it is not the one that runs
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<String>,
    /// Make the checks, and change nothing
    #[arg(long)]
    dry_run: bool,
}

const UNINSTALL_EXAMPLES: &str = "\
Examples:
  kmend uninstall livepatch_fix
  kmend uninstall livepatch_fix --kernel 6.1.0-56-cloud-amd64";

const RELEASE_EXAMPLES: &str = "\
Example:
  kmend release livepatch_fix";

/// What was, or would be, done.
#[derive(Serialize)]
struct Done {
    dry_run: bool,
    release: String,
    #[serde(flatten)]
    names: Names,
    notes: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Names {
    Uninstalled(Vec<String>),
    Released(Vec<String>),
}

impl Uninstall {
    pub(crate) fn is_dry_run(&self) -> bool {
        self.which.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let (system, store, release, names) = self.which.parts()?;
        let done = if self.which.dry_run {
            store.would_uninstall(&release, &names)
        } else {
            store.uninstall(&system, &release, &names)
        };
        done.map_err(reasons)?;
        let loaded = system.patches().unwrap_or_default().into_iter().map(|patch| patch.name);
        let notes = loaded.filter(|name| names.contains(name)).map(|name| {
            format!("{name} stays loaded: `kmend unload {name}` takes it out of the running kernel")
        });
        let notes = notes.collect();
        self.which.say(release, Names::Uninstalled(names), notes, output)
    }
}

impl Release {
    pub(crate) fn is_dry_run(&self) -> bool {
        self.which.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let (system, store, release, names) = self.which.parts()?;
        let done = if self.which.dry_run {
            store.would_release(&release, &names)
        } else {
            store.release(&system, &release, &names)
        };
        done.map_err(reasons)?;
        self.which.say(release, Names::Released(names), Vec::new(), output)
    }
}

impl Which {
    fn parts(&self) -> Result<(System, Store, String, Vec<String>), Failure> {
        let system = System::running();
        let store = Store::of(&system);
        let release = self.kernel.clone().map_or_else(|| system.release(), Ok)?;
        Ok((system, store, release, self.names.clone()))
    }

    fn say(
        &self,
        release: String,
        names: Names,
        notes: Vec<String>,
        output: &mut Output,
    ) -> Result<End, Failure> {
        let (command, done, changed) = match &names {
            Names::Uninstalled(names) => ("uninstall", "uninstalled", names),
            Names::Released(names) => ("release", "released", names),
        };
        for name in changed.iter().filter(|_| !self.dry_run) {
            journal::changed(command, name, &format!("{done} for {release}"));
        }
        output.document(&Done { dry_run: self.dry_run, release, names, notes }, text)?;
        Ok(End::Done)
    }
}

fn reasons(errors: Vec<InstallError>) -> Failure {
    Failure::all("", &errors)
}

fn text(done: &Done) -> String {
    let (word, would, names) = match &done.names {
        Names::Uninstalled(names) => ("uninstalled", "would uninstall", names),
        Names::Released(names) => ("released", "would release", names),
    };
    let word = if done.dry_run { would } else { word };
    let names = names.iter().map(|name| format!("{} {name} for {}\n", paint(GREEN, word), done.release));
    names.chain(done.notes.iter().map(style::note)).collect()
}
