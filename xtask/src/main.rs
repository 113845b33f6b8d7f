//! The developer's tool: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`.
//!
//! It uses the stages' crates directly, so that a trial sees the values that a command would print; what a
//! user types is run with the `kmend` of this workspace.

mod bench;
mod built;
mod demo;
mod kernels;
mod narrate;
mod packages;
mod test;
mod trial;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::Path;
use std::process::ExitCode;

/// kmend's developer tool
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The main job on real input: a stock kernel is mended while it runs
    Demo,
    /// What kmend costs, as ratios
    Bench,
    /// Every test: the code's own, the documents, and the trials on stock kernels
    Test {
        /// More null tests
        #[arg(long)]
        all: bool,
        /// Trials at a time
        #[arg(long, value_name = "N", default_value_t = 2)]
        threads: usize,
        /// Only the part of this name (format, lints, dependencies, rustdoc, code, documents), or only the trials
        /// whose name holds this text
        filter: Option<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo => demo::run().map(|()| ExitCode::SUCCESS),
        Command::Bench => bench::run().map(|()| ExitCode::SUCCESS),
        Command::Test { all, threads, filter } => test::run(all, threads, filter),
    }
}

/// The workspace's folder.
fn root() -> &'static Path {
    const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");
    Path::new(MANIFEST).parent().unwrap_or(Path::new(MANIFEST))
}
