//! What the commands that change one loaded livepatch have in common.

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::style::{GREEN, paint};
use clap::Args;
use kmend_live::{LoadOptions, Switch};
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Change {
    /// The livepatch's name, as `kmend list` shows it
    #[arg(value_name = "NAME", value_parser = crate::arguments::loaded_name)]
    pub(crate) name: String,
    /// How long to wait for the transition, in seconds
    #[arg(long, value_name = "S", default_value_t = LoadOptions::default().timeout.as_secs())]
    timeout: u64,
    /// By which model kmend's consistency engine is to switch it, if that does; from now on
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Make the checks, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Change {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    pub(crate) fn switch(&self) -> Switch {
        Switch { model: self.model.clone(), redirect: None }
    }
}

/// What a command would do.
#[derive(Serialize)]
struct Intent<'a> {
    dry_run: bool,
    /// The command.
    would: &'static str,
    livepatch: &'a str,
}

/// Prints what a command would do.
pub(crate) fn would(what: &'static str, name: &str, output: &mut Output) -> Result<End, Failure> {
    let would = Intent { dry_run: true, would: what, livepatch: name };
    output.document(&would, |would| format!("{} {what} {}\n", paint(GREEN, "would"), would.livepatch))?;
    Ok(End::Done)
}
