//! Runs the built `kmend` on files of a folder of its own.

// No test file uses all of it.
#![allow(dead_code)]

use kmend_process::Command;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
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

    /// A folder with good files: keys, objects, a livepatch, a patch, and what looks like the parts of a kernel.
    pub fn with_files() -> Place {
        let place = Place::new();
        let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sign/tests/keys");
        for name in ["rsa.pem", "rsa.crt", "rsa-encrypted.pem"] {
            place.write(name, std::fs::read(keys.join(name)).unwrap());
        }
        place.compile("a.o", "int f(int n) { return n; }", &["-ffunction-sections", "-fdata-sections"]);
        place.compile("b.o", "int f(int n) { return n + 1; }", &["-ffunction-sections", "-fdata-sections"]);
        let modinfo =
            "name=livepatch_x\\0vermagic=6.1.0-none SMP \\0livepatch=Y\\0depends=\\0kmend_fixes=CVE-1";
        let source = format!(
            "const char i[] __attribute__((section(\".modinfo\"), used)) = \"{modinfo}\"; extern int g(void);\n\
             int f(int n) {{ return g() + n; }} void *table[] = {{ f, table }};"
        );
        place.compile("x.ko", &source, &[]);
        place.write("x.patch", "--- a/fs/x.c\n+++ b/fs/x.c\n@@ -1 +1 @@\n-old\n+new\n");
        place
            .write("config", "CONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian) 12.2.0\"\n")
            .write("image", "no image");
        std::fs::create_dir_all(place.path("tree/empty")).unwrap();
        place.write("tree/Makefile", "").write("tree/Module.symvers", "x");
        place
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

    /// Checks that it has one of the codes, and says why in the common form.
    #[track_caller]
    pub fn expect_reason(&self, what: &str, codes: &[i32]) {
        let Ended { code, stdout, stderr } = self;
        assert!(codes.contains(code), "{what} ended with {code}:\n{stdout}{stderr}");
        assert!(
            stderr.contains("[KM") && stderr.contains("\n  way out: "),
            "{what} gives no reason:\n{stderr}"
        );
        assert!(!stderr.contains("KM0009") && !stderr.contains("panicked"), "{what}:\n{stderr}");
        let tame = stderr.chars().all(|c| c == '\n' || c == '\t' || !c.is_control());
        assert!(tame, "{what} lets a terminal obey:\n{stderr:?}");
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}", self.stdout))
    }
}

/// The words of a command line, with the bad one in the place of `@`.
pub fn words(line: &str, bad: impl AsRef<OsStr>) -> Vec<OsString> {
    let word = |word: &str| match word.split_once('@') {
        None => word.into(),
        Some((before, after)) => [before.as_ref(), bad.as_ref(), after.as_ref()].into_iter().collect(),
    };
    line.split(' ').map(word).collect()
}
