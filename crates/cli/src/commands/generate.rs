//! `kmend generate`, for those who package kmend

use crate::arguments::Arguments;
use crate::failure::{End, Failure};
use crate::output::Output;
use clap::{Args, CommandFactory};
use clap_complete::{Generator, Shell};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Write the man pages and the shells' completions
///
/// They are made from what the command line itself is made from. `DIR/man` gets a page for each command, `DIR/completions` a
/// file each for bash, zsh and fish.
///
/// Exit codes: 0 written, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Generate {
    /// The folder to write to; made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

const EXAMPLES: &str = "\
Example:
  kmend generate target/pages";

/// Where they are.
#[derive(Serialize)]
struct Generated {
    man: String,
    completions: String,
}

impl Generate {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let man = folder(&self.folder.join("man"))?;
        clap_mangen::generate_to(Arguments::command(), &man).map_err(|error| Failure::io(&man, &error))?;
        let completions = folder(&self.folder.join("completions"))?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            // Written by itself: clap's own way to a file panics where it cannot write.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "kmend", &mut text);
            let file = completions.join(shell.file_name("kmend"));
            std::fs::write(&file, text).map_err(|error| Failure::io(&file, &error))?;
        }
        let generated =
            Generated { man: man.display().to_string(), completions: completions.display().to_string() };
        output.document(&generated, |made| format!("{}\n{}\n", made.man, made.completions))?;
        Ok(End::Done)
    }
}

fn folder(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(path).map_err(|error| Failure::io(path, &error))?;
    Ok(path.to_owned())
}
