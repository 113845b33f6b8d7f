//! One file a command: its arguments, the call, and how the result looks.

pub(crate) mod audit;
pub(crate) mod blocking;
pub(crate) mod boot;
pub(crate) mod build;
pub(crate) mod change;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod enable;
pub(crate) mod engine;
pub(crate) mod force;
pub(crate) mod generate;
pub(crate) mod history;
pub(crate) mod inspect;
pub(crate) mod install;
pub(crate) mod kernel;
pub(crate) mod list;
pub(crate) mod load;
pub(crate) mod prove;
pub(crate) mod sign;
pub(crate) mod signal;
pub(crate) mod status;
pub(crate) mod uninstall;
pub(crate) mod unload;
pub(crate) mod verify;
pub(crate) mod wait;

use crate::arguments::Command;
use crate::failure::{End, Failure};
use crate::journal;
use crate::output::Output;

/// Runs a command. If one that is to change the running system fails, the journal says so.
pub(crate) fn run(command: Command, output: &mut Output) -> Result<End, Failure> {
    let changes = changes(&command);
    let ended = run_it(command, output);
    if let (Some(what), Err(failure)) = (changes, &ended) {
        journal::failed(what, failure);
    }
    ended
}

/// The command's name, if it is to change the running system or what it loads at boot.
fn changes(command: &Command) -> Option<&'static str> {
    let (what, dry_run) = match command {
        Command::Load(load) => ("load", load.is_dry_run()),
        Command::Replace(replace) => ("replace", replace.is_dry_run()),
        Command::Unload(unload) => ("unload", unload.is_dry_run()),
        Command::Enable(enable) => ("enable", enable.is_dry_run()),
        Command::Disable(disable) => ("disable", disable.is_dry_run()),
        Command::Signal(signal) => ("signal", signal.is_dry_run()),
        Command::Force(force) => ("force", force.is_dry_run()),
        Command::Install(install) => ("install", install.is_dry_run()),
        Command::Uninstall(uninstall) => ("uninstall", uninstall.is_dry_run()),
        Command::Release(release) => ("release", release.is_dry_run()),
        Command::Engine(engine) => (engine.changes()?, false),
        _ => return None,
    };
    (!dry_run).then_some(what)
}

fn run_it(command: Command, output: &mut Output) -> Result<End, Failure> {
    match command {
        Command::Build(build) => build.run(output),
        Command::Diff(diff) => diff.run(output),
        Command::Inspect(inspect) => inspect.run(output),
        Command::Audit(audit) => audit.run(output),
        Command::Prove(prove) => prove.run(output),
        Command::Sign(sign) => sign.run(output),
        Command::Verify(verify) => verify.run(output),
        Command::Load(load) => load.run(output),
        Command::Replace(replace) => replace.run(output),
        Command::Unload(unload) => unload.run(output),
        Command::Enable(enable) => enable.run(output),
        Command::Disable(disable) => disable.run(output),
        Command::Wait(wait) => wait.run(output),
        Command::Signal(signal) => signal.run(output),
        Command::Force(force) => force.run(output),
        Command::Status(status) => status.run(output),
        Command::Blocking(blocking) => blocking.run(output),
        Command::List(_) => list::List::run(output),
        Command::Doctor(doctor) => doctor.run(output),
        Command::Install(install) => install.run(output),
        Command::Uninstall(uninstall) => uninstall.run(output),
        Command::Release(release) => release.run(output),
        Command::History(history) => history.run(output),
        Command::Boot(boot) => boot.run(output),
        Command::Kernel(kernel) => kernel.run(output),
        Command::Engine(engine) => engine.run(output),
        Command::Generate(generate) => generate.run(output),
    }
}
