//! The command line as a whole.

use crate::commands;
use crate::failure::{End, Failure};
use crate::output::{self, Output};
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use kmend_refusal::{Code, Refusal};

const MANUAL: &str = "\
kmend takes a source patch, works out which functions it changes in a kernel, builds a livepatch module from \
just those functions, proves the module in a virtual machine, and loads it without a reboot. It compiles only \
what the patch reaches, and trusts nothing but a kernel image that equals what it compiled.

Only what changes or looks into the running kernel needs root: load, unload, install and the like. Kernels are kept in $KMEND_CACHE, else $XDG_CACHE_HOME/kmend, else \
~/.cache/kmend.";

const EPILOG: &str = "\
From a patch to a mended kernel:
  kmend kernel fetch debian:cloud-amd64     get the kernel, its source and its headers
  kmend build fix.patch --prove             build livepatch-fix.ko and try it in a virtual machine
  kmend doctor                              what this machine lacks
  kmend load livepatch-fix.ko               as root, on a machine that runs that kernel
  kmend list                                what is loaded
  kmend install livepatch-fix.ko            at every boot of that kernel from now on
  kmend unload livepatch_fix                back to the kernel as it was

Results go to standard output, progress and reasons to standard error. Every reason has a code, such as KM0401, that \
never changes its meaning; docs/refusals.md has a page for each.

Exit codes: 0 done, 1 failed, 2 refused or bad usage, 3 nothing to do.";

/// Mends a running Linux kernel.
#[derive(Debug, Parser)]
#[command(name = "kmend", version, long_about = MANUAL, after_long_help = EPILOG, after_help = EPILOG)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print the result, or the reasons why there is none, as JSON on standard output
    #[arg(long, global = true, display_order = 500)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Build(Box<commands::build::Build>),
    Diff(commands::diff::Diff),
    Inspect(commands::inspect::Inspect),
    Audit(commands::audit::AuditModule),
    Prove(commands::prove::Prove),
    Sign(commands::sign::Sign),
    Verify(commands::verify::Verify),
    Load(commands::load::Load),
    Replace(commands::load::Replace),
    Unload(commands::unload::Unload),
    Enable(commands::enable::Enable),
    Disable(commands::enable::Disable),
    List(commands::list::List),
    Status(commands::status::ShowStatus),
    Wait(commands::wait::Await),
    Blocking(commands::blocking::Blocking),
    Signal(commands::signal::SendSignal),
    Force(commands::force::Force),
    Doctor(commands::doctor::Doctor),
    Install(commands::install::Install),
    Uninstall(commands::uninstall::Uninstall),
    Release(commands::uninstall::Release),
    History(commands::history::ShowHistory),
    #[command(hide = true)]
    Boot(commands::boot::BootSet),
    #[command(subcommand)]
    Kernel(commands::kernel::Kernel),
    #[command(subcommand)]
    Engine(commands::engine::Engine),
    #[command(hide = true)]
    Generate(commands::generate::Generate),
}

/// Whether a command line that is not understood asks for JSON.
pub(crate) fn asks_for_json() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// What clap has to say instead of a command: help, the version, or that the command line is not understood.
pub(crate) fn answer(error: &clap::Error, output: &mut Output) -> Result<End, Failure> {
    let text = error.render().ansi().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output.text(&text)?;
            Ok(End::Done)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !output.is_json() => {
            output::say(&text);
            Ok(End::Refused)
        }
        _ => Err(bad_usage(error)),
    }
}

/// A command line that is not understood, in clap's words.
fn bad_usage(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned);
    let first = lines.next().unwrap_or_default();
    let why = first.strip_prefix("error: ").unwrap_or(&first);
    // Where to find help is the way out already.
    let details = lines.filter(|line| !line.starts_with("For more information")).collect();
    Failure::refused(vec![Refusal::new(Code::Usage, "", why).with_details(details)])
}

/// For clap: the name of a loaded module. The kernel writes `_` for `-` in it.
pub(crate) fn loaded_name(text: &str) -> Result<String, String> {
    module_name(text).map(|name| name.replace('-', "_"))
}

/// For clap: a module's name as the kernel and the file system take it.
pub(crate) fn module_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !text.is_empty() && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("a name consists of letters, digits, `-` and `_`".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_every_command_prints_as_json_is_described() {
        const DESCRIBED: &str = include_str!("../../../docs/json.md");
        fn check(command: &clap::Command, above: &str) {
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                let name = format!("{above} {}", inner.get_name());
                if inner.has_subcommands() {
                    check(inner, &name);
                } else {
                    assert!(DESCRIBED.contains(&format!("`{name}`")), "docs/json.md does not have {name}");
                }
            }
        }
        check(&Arguments::command(), "kmend");
    }

    #[test]
    fn every_command_has_a_manual_with_an_example() {
        fn check(command: &clap::Command) {
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                let manual = inner.clone().render_long_help().to_string();
                assert!(manual.contains("Example"), "{} has no example:\n{manual}", inner.get_name());
                check(inner);
            }
        }
        check(&Arguments::command());
    }
}
