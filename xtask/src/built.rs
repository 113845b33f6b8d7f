//! What is built of this workspace for the tests: `kmend` by cargo, and small programs for guests by the kernel's compiler.

use crate::narrate;
use anyhow::{Context, Result, ensure};
use kmend_process::Command;
use std::path::{Path, PathBuf};

/// `cargo` with these arguments, in the workspace's folder.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    Command::new("cargo").args(arguments).folder(crate::root())
}

/// Builds `kmend` as this tool was built, and says where it is.
pub(crate) fn kmend() -> Result<PathBuf> {
    let mut command = cargo(&["build", "--package", "kmend-cli"]);
    if !cfg!(debug_assertions) {
        command = command.arg("--release");
    }
    narrate::command(&command.line());
    command.watch(&mut |line| narrate::say(line))?;
    // Cargo puts the programs of one profile beside each other.
    let here = std::env::current_exe().context("where is this program?")?;
    let kmend = here.with_file_name("kmend");
    ensure!(kmend.is_file(), "cargo built no {}", kmend.display());
    Ok(kmend)
}

/// A command line that a user would type for `kmend`, with the program where it was built.
pub(crate) fn line(kmend: &Path, arguments: &[&str]) -> (Command, String) {
    let command = Command::new(kmend).args(arguments).folder(crate::root());
    let typed = Command::new("kmend").args(arguments).line();
    (command, typed)
}

/// Builds a program of one C file, which is given from the workspace's folder, and says where it is.
pub(crate) fn program(compiler: &str, source: &str, folder: &Path) -> Result<PathBuf> {
    let program = folder.join(Path::new(source).file_stem().context("a source has a name")?);
    Command::new(compiler)
        .args(["-Wall", "-Werror", "-O2", "-pthread", source, "-o"])
        .args([&program])
        .folder(crate::root())
        .run()?;
    Ok(program)
}
