//! The command `kmend`: parses arguments, calls the stages, prints what they found.
//!
//! Results go to standard output, as text or (`--json`) as the stages' own values; progress and reasons go to
//! standard error.
//!
//! Architecture invariant: no decision about a kernel, a patch or a module is made here. What a command
//! prints is the typed value that a stage returned.

mod arguments;
mod commands;
mod explanation;
mod failure;
mod journal;
mod kernel_choice;
mod output;
mod progress;
mod signing;
mod style;
mod watcher;

use arguments::Arguments;
use clap::Parser;
use output::Output;
use signal_hook::consts::SIGXFSZ;
use signal_hook::flag;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    // A limit on the size of files (`ulimit -f`) is then an error where the file is written, and nothing is left half done. It can
    // only fail for signals that cannot be handled.
    let _ = flag::register(SIGXFSZ, Arc::default());
    let (mut output, ended) = match Arguments::try_parse() {
        Ok(Arguments { command, json }) => {
            let mut output = Output::new(json);
            let ended = commands::run(command, &mut output);
            (output, ended)
        }
        Err(error) => {
            let mut output = Output::new(arguments::asks_for_json());
            let ended = arguments::answer(&error, &mut output);
            (output, ended)
        }
    };
    let end = ended.unwrap_or_else(|failure| {
        output.failure(&failure);
        failure.end()
    });
    end.into()
}
