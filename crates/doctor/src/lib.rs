//! What this machine can do with kmend, and what is missing.
//!
//! Three purposes are looked at apart, because few machines serve all three: a production machine loads, a
//! developer's builds and proves. Each fact becomes one [`Finding`] with what to do about it. The facts are
//! asked of the running system, as far as it tells, and not deduced from its configuration: that is asked only where
//! the system has no word for a thing.
//!
//! Architecture invariant: nothing is changed and nothing is made, not even the cache's folder.

mod building;
mod configuration;
mod finding;
mod loading;
mod proving;

pub use finding::{Diagnosis, Finding, Group, Purpose, Verdict};

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where the files of the system are; `/` for the running one.
    pub root: PathBuf,
    /// The folders of programs, as in `PATH`.
    pub path: OsString,
    /// Where the cache is or would be; or why there can be none.
    pub cache: Result<PathBuf, String>,
    /// Whether the user is root.
    pub superuser: bool,
}

impl Machine {
    /// The machine that this runs on, and its user.
    pub fn here() -> Machine {
        Machine {
            root: "/".into(),
            path: std::env::var_os("PATH").unwrap_or_default(),
            cache: kmend_store::Cache::place().map_err(|error| error.to_string()),
            superuser: rustix::process::geteuid().is_root(),
        }
    }

    /// Looks at all that the purposes need.
    pub fn examine(&self, purposes: &[Purpose]) -> Diagnosis {
        let findings = |purpose| match purpose {
            Purpose::Load => self.loading(),
            Purpose::Build => self.building(),
            Purpose::Prove => self.proving(),
        };
        let group = |purpose: &Purpose| Group::new(*purpose, findings(*purpose));
        Diagnosis { groups: purposes.iter().map(group).collect() }
    }

    /// A path below the root.
    fn below(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A small file's text without the white space at its end.
    fn read(&self, path: &str) -> Option<String> {
        configuration::read_some(&self.below(path)).map(|text| text.trim_end().to_owned())
    }

    /// A program by its name.
    fn program(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path).map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// Whether a program is there, and the package that has it.
    fn tool(&self, name: &str, package: &str, purpose: &str) -> Finding {
        match self.program(name) {
            Some(path) => Finding::ok(name, path.display().to_string()),
            None => Finding::missing(name, format!("not in PATH; {purpose}")).install(package),
        }
    }
}

/// The nearest folder above a path that is there.
fn existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|folder| folder.is_dir())
}

#[cfg(test)]
mod tests;
