//! `kmend kernel`

mod fetch;
mod import;
mod list;
mod remove;

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::progress::Progress;
use clap::Subcommand;
use kmend_store::Stage;

const EXAMPLES: &str = "\
Examples:
  kmend kernel fetch debian:cloud-amd64
  kmend kernel list --verbose
  kmend kernel remove 6.1.0-56-cloud-amd64";

/// The kernels to build for: fetch, import, list, remove
///
/// A kernel in the cache is everything that a build needs: the image that runs, the source it was made from, its
/// configuration, its headers and its modules. It is there complete or not at all, whatever happens while it is
/// fetched. What a build derives from it (the prepared tree, the list of compile commands) is kept beside it and
/// goes with it.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Kernel {
    Fetch(fetch::Fetch),
    Import(import::Import),
    List(list::List),
    Remove(remove::Remove),
}

pub(crate) use import::OwnKernel;

impl Kernel {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        match self {
            Kernel::Fetch(fetch) => fetch.run(output),
            Kernel::Import(import) => import.run(output),
            Kernel::List(list) => list.run(output),
            Kernel::Remove(remove) => remove.run(output),
        }
    }
}

/// Shows how far the store is.
fn show(progress: &mut Progress, event: &kmend_store::Progress) {
    if event.stage == Stage::Done {
        return progress.end(None);
    }
    if progress.stage() != Some(event.stage.name()) {
        progress.begin(event.stage.name());
    }
    match &event.stage {
        Stage::Download { package } => progress.detail(package),
        Stage::Wait => progress.detail("another kmend is at work on the same kernel"),
        Stage::Update | Stage::Resolve | Stage::Verify | Stage::Unpack | Stage::Done => {}
    }
    if let Some(total) = event.total {
        progress.bytes(event.done, total);
    }
}
