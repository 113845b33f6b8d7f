//! The developer's tool: `cargo xtask demo`, `test`, `bench`, `corpus`, `selfcheck`, `mutants`, `torture`.
//!
//! It uses the stages' crates directly, so that a trial sees the values that a command would print; what a
//! user types is run with the `kmend` of this workspace.

mod bench;
mod built;
mod corpus;
mod demo;
mod kernels;
mod mutants;
mod narrate;
mod package;
mod packages;
mod selfcheck;
mod several;
mod test;
mod torture;
mod trial;
mod userland;

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
    /// The Debian package, in target/package
    Package,
    /// What kmend costs, as ratios
    Bench {
        /// Only this part, after a cold start
        part: Option<bench::Part>,
    },
    /// Real fixes, applied, built and proven: what of them kmend can mend
    ///
    /// What is done is kept in the target folder; a run that was ended at any moment goes on where it was, as long as
    /// this program, the kernel and the patch are the same.
    Corpus(corpus::Options),
    /// The differ on many real units: it takes nothing for a change that is none, and misses none that is
    Selfcheck(selfcheck::Options),
    /// Wrong modules made out of right ones: the audit refuses each of them
    Mutants(mutants::Options),
    /// Livepatches loaded, unloaded and replaced under a load, and kmend killed at random moments, in guests
    ///
    /// Fails at a complaint of the kernel, a stuck transition, a leak, and a command that does not tell the truth after a kill
    /// or does not mend what that left. The guests that are done are kept in the target folder: a run that was ended goes
    /// on, as long as the programs, the kernel and what the guests do are the same.
    Torture(torture::Options),
    /// Every test: the code's own, the documents, and the trials on stock kernels
    Test {
        /// More units for the differ's own checks, and the package on a real Debian system
        #[arg(long)]
        all: bool,
        /// Trials at a time
        #[arg(long, value_name = "N", default_value_t = guests_at_a_time())]
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
        Command::Bench { part } => bench::run(part).map(|()| ExitCode::SUCCESS),
        Command::Corpus(options) => corpus::run(&options),
        Command::Package => {
            println!("\n{}", package::run(package::Profile::Release)?.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Selfcheck(options) => selfcheck::run(&options),
        Command::Mutants(options) => mutants::run(&options),
        Command::Torture(options) => torture::run(&options),
        Command::Test { all, threads, filter } => test::run(all, threads, filter),
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One more than processors: a guest waits for its transition a quarter of the time.
fn guests_at_a_time() -> usize {
    processors() + 1
}

/// The workspace's folder.
fn root() -> &'static Path {
    const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");
    Path::new(MANIFEST).parent().unwrap_or(Path::new(MANIFEST))
}
