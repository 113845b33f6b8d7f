//! What was found.

use serde::Serialize;
use std::collections::BTreeSet;

/// What a machine may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Livepatches are loaded into its kernel.
    Load,
    /// Livepatches are built.
    Build,
    /// Livepatches are proven in virtual machines.
    Prove,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Purpose; 3] = [Purpose::Load, Purpose::Build, Purpose::Prove];
}

/// How a fact stands to a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It can be done without, or in another way; or it is not known.
    Note,
    /// It cannot be done without.
    Missing,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub what: String,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, where there is something to do.
    pub way_out: Option<String>,
    /// The Debian package that is missing.
    pub package: Option<String>,
}

impl Finding {
    pub(crate) fn ok(what: &str, found: impl Into<String>) -> Finding {
        Finding::new(what, Verdict::Ok, found)
    }

    pub(crate) fn note(what: &str, found: impl Into<String>) -> Finding {
        Finding::new(what, Verdict::Note, found)
    }

    pub(crate) fn missing(what: &str, found: impl Into<String>) -> Finding {
        Finding::new(what, Verdict::Missing, found)
    }

    fn new(what: &str, verdict: Verdict, found: impl Into<String>) -> Finding {
        Finding { what: what.into(), verdict, found: found.into(), way_out: None, package: None }
    }

    /// With what to do.
    pub(crate) fn way_out(mut self, way_out: impl Into<String>) -> Finding {
        self.way_out = Some(way_out.into());
        self
    }

    /// The same about something that can be done without.
    pub(crate) fn if_wanted(mut self) -> Finding {
        if self.verdict == Verdict::Missing {
            self.verdict = Verdict::Note;
        }
        self
    }

    /// With the package to install.
    pub(crate) fn install(self, package: &str) -> Finding {
        Finding { package: Some(package.into()), ..self }.way_out(format!("apt-get install {package}"))
    }
}

/// What a purpose needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The purpose.
    pub purpose: Purpose,
    /// Whether nothing is missing for it.
    pub ready: bool,
    /// The facts.
    pub findings: Vec<Finding>,
    /// The Debian packages that are missing, by name.
    pub packages: BTreeSet<String>,
}

impl Group {
    pub(crate) fn new(purpose: Purpose, findings: Vec<Finding>) -> Group {
        let ready = findings.iter().all(|finding| finding.verdict != Verdict::Missing);
        let packages = findings.iter().filter_map(|finding| finding.package.clone()).collect();
        Group { purpose, ready, findings, packages }
    }
}

/// What a machine can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// A group for each purpose that was asked for.
    pub groups: Vec<Group>,
}

impl Diagnosis {
    /// Whether nothing is missing at all.
    pub fn is_ready(&self) -> bool {
        self.groups.iter().all(|group| group.ready)
    }
}
