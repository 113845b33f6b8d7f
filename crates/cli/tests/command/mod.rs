//! Runs the built `kmend` on files of a folder of its own.

// No test file uses all of it.
#![allow(dead_code)]

use kmend_process::Command;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with a cache in it that no other test uses.
pub struct Place {
    folder: TempDir,
}

/// How a command ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Place {
        std::fs::write(self.path(name), bytes).unwrap();
        self
    }

    /// Runs kmend in the folder.
    pub fn kmend<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        self.run(Command::new(env!("CARGO_BIN_EXE_kmend")).args(arguments))
    }

    /// The same; if it does not end within some seconds, it is killed, and its code is 124.
    pub fn kmend_in_time<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        let timeout = Command::new("timeout").args(["-k", "1", "20", env!("CARGO_BIN_EXE_kmend")]);
        self.run(timeout.args(arguments))
    }

    /// All that lies in the folder and in its folders but the cache, with sizes.
    pub fn contents(&self) -> BTreeSet<(PathBuf, u64)> {
        let (mut found, mut folders) = (BTreeSet::new(), vec![self.folder.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let there = path.symlink_metadata().unwrap();
                if path == self.path("cache") {
                    continue;
                }
                if there.is_dir() {
                    folders.push(path.clone());
                }
                found.insert((path, if there.is_dir() { 0 } else { there.len() }));
            }
        }
        found
    }

    /// Runs a line of shell in the folder; `kmend` is found by its name.
    pub fn shell(&self, line: &str) -> Ended {
        let folder = Path::new(env!("CARGO_BIN_EXE_kmend")).parent().unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        self.run(Command::new("bash").args(["-c", line]).env("PATH", path))
    }

    /// Compiles a C source as the kernel compiles its units, as far as the comparison goes.
    pub fn compile(&self, name: &str, source: &str, options: &[&str]) {
        self.write("source.c", source);
        let flags =
            ["-O2", "-c", "-fno-pic", "-mcmodel=kernel", "-fcf-protection=none", "-o", name, "source.c"];
        Command::new("gcc").args(flags).args(options).folder(self.folder.path()).run().unwrap();
    }

    fn run(&self, command: Command) -> Ended {
        let command = command.folder(self.folder.path()).env("KMEND_CACHE", self.path("cache"));
        let output = command.output().unwrap();
        let code = output.status.rsplit(' ').next().and_then(|code| code.parse().ok());
        Ended { code: code.unwrap_or(-1), stdout: output.text(), stderr: output.error_text() }
    }
}

impl Ended {
    /// Checks how it ended, and that both outputs hold these texts; an empty text means an empty output.
    #[track_caller]
    pub fn expect(&self, code: i32, stdout: &[&str], stderr: &[&str]) {
        let Ended { stdout: out, stderr: err, .. } = self;
        assert_eq!(self.code, code, "stdout:\n{out}\nstderr:\n{err}");
        for (expected, found) in [(stdout, out), (stderr, err)] {
            for text in expected {
                let met = if text.is_empty() { found.is_empty() } else { found.contains(text) };
                assert!(met, "no {text:?} in:\n{found}");
            }
        }
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}", self.stdout))
    }
}
