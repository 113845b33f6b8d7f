//! The Debian package: `kmend`, its pages and completions, made from what the program says of itself, and its units.

use crate::{built, narrate};
use anyhow::{Context, Result, ensure};
use kmend_process::Command;
use std::fs;
use std::path::{Path, PathBuf};

/// The version of cargo-deb that the package's description is written for.
const CARGO_DEB: &str = "3.8.0";
/// Where the program's own pages and completions are put for cargo-deb, from the workspace's folder; crates/cli/Cargo.toml has
/// it, too.
const MADE: &str = "target/package";

/// Which program goes into the package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// The one to hand out.
    Release,
    /// The one that the trials use, which is there already.
    Dev,
}

/// Makes the package and says where it is.
pub(crate) fn run(profile: Profile) -> Result<PathBuf> {
    let made = crate::root().join(MADE);
    let name = match profile {
        Profile::Release => "release",
        Profile::Dev => "dev",
    };
    watch(&built::cargo(&["build", "--package", "kmend-cli", "--profile", name]))?;
    let generate = ["run", "--quiet", "--package", "kmend-cli", "--profile", name, "--", "generate", MADE];
    watch(&built::cargo(&generate))?;
    fs::write(made.join("changelog"), changelog()?)?;
    let cargo_deb = cargo_deb(&made)?;
    // Whatever package lies there is of another build.
    for old in packages(&made)? {
        fs::remove_file(old)?;
    }
    let arguments = [
        "deb",
        "--no-build",
        "--no-dbgsym",
        "--strip",
        "--package",
        "kmend-cli",
        "--profile",
        name,
        "--output",
    ];
    watch(&Command::new(&cargo_deb).args(arguments).arg(&made).folder(crate::root()))?;
    let found = packages(&made)?;
    ensure!(found.len() == 1, "cargo deb made {} packages in {}", found.len(), made.display());
    found.into_iter().next().context("no package")
}

fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    let paths = entries.into_iter().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect())
}

/// cargo-deb of that version: this user's, or one that is built here, which takes a minute and is done once in a clone.
fn cargo_deb(made: &Path) -> Result<PathBuf> {
    let own = Command::new("cargo-deb").arg("--version").output();
    if own.is_ok_and(|output| output.text().split_whitespace().any(|word| word == CARGO_DEB)) {
        return Ok("cargo-deb".into());
    }
    let tools = made.join("tools");
    let program = tools.join("bin/cargo-deb");
    if !program.is_file() {
        let install = built::cargo(&["install", "cargo-deb", "--locked", "--debug", "--version", CARGO_DEB]);
        watch(&install.arg("--root").arg(&tools))?;
    }
    Ok(program)
}

/// Debian's changelog: one entry with the version, and the time of the last commit, so that the same commit gives the same
/// bytes.
fn changelog() -> Result<String> {
    let time = Command::new("git").args(["log", "-1", "--format=%aD"]).folder(crate::root()).run()?.text();
    Ok(format!(
        "kmend ({}-1) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- The kmend maintainers \
         <kmend@users.noreply.github.com>  {}\n",
        env!("CARGO_PKG_VERSION"),
        time.trim()
    ))
}

fn watch(command: &Command) -> Result<()> {
    narrate::command(&command.line());
    command.watch(&mut |line| narrate::say(line))?;
    Ok(())
}
