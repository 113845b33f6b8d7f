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
use std::process::ExitCode;

fn main() -> ExitCode {
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
