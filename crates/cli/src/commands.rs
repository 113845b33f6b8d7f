//! One file a command: its arguments, the call, and how the result looks.

pub(crate) mod blocking;
pub(crate) mod build;
pub(crate) mod diff;
pub(crate) mod inspect;
pub(crate) mod kernel;
pub(crate) mod list;
pub(crate) mod load;
pub(crate) mod prove;
pub(crate) mod unload;

use crate::arguments::Command;
use crate::failure::{End, Failure};
use crate::output::Output;

/// Runs a command.
pub(crate) fn run(command: Command, output: &mut Output) -> Result<End, Failure> {
    match command {
        Command::Build(build) => build.run(output),
        Command::Diff(diff) => diff.run(output),
        Command::Inspect(inspect) => inspect.run(output),
        Command::Prove(prove) => prove.run(output),
        Command::Load(load) => load.run(output),
        Command::Replace(replace) => replace.run(output),
        Command::Unload(unload) => unload.run(output),
        Command::Blocking(blocking) => blocking.run(output),
        Command::List(_) => list::List::run(output),
        Command::Kernel(kernel) => kernel.run(output),
    }
}
