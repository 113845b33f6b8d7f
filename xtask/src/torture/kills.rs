//! A guest in which kmend is killed at random moments, and what the next commands make of it.

mod log;

use super::guest::{Workshop, file, run, step};
use crate::selfcheck::Random;
use anyhow::{Context, Result, ensure};
use kmend_vm::{GuestFile, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// From power on to the first kill, with the measurements in between, and from the last to the end.
const AROUND: Duration = Duration::from_secs(240);
/// The longest that a kill may take, with all that comes after it.
const LONGEST_KILL: Duration = Duration::from_secs(100);
/// A command's time is divided into so many moments.
const MOMENTS: usize = 10_000;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Load,
    Unload,
    Install,
    Uninstall,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Load, Kind::Unload, Kind::Install, Kind::Uninstall];

    /// The command's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Load => "load",
            Kind::Unload => "unload",
            Kind::Install => "install",
            Kind::Uninstall => "uninstall",
        }
    }

    fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    fn opposite(self) -> Kind {
        match self {
            Kind::Load => Kind::Unload,
            Kind::Unload => Kind::Load,
            Kind::Install => Kind::Uninstall,
            Kind::Uninstall => Kind::Install,
        }
    }
}

/// One kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kill {
    kind: Kind,
    /// When, of the [`MOMENTS`] that the command normally takes.
    moment: usize,
    /// Whether the same command comes next, or the one that does the opposite.
    again: bool,
}

/// So many kills of each kind for a kernel, always the same for one seed.
pub(crate) fn plan(seed: u64, release: &str, each: u32) -> Vec<Kill> {
    let mut random = Random::new(seed, release, "kills");
    let mut plan = Vec::new();
    for _ in 0..each {
        for kind in Kind::ALL {
            plan.push(Kill { kind, moment: random.below(MOMENTS + 1), again: random.below(2) == 0 });
        }
    }
    plan
}

/// How often a kill of each kind left what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen(pub(crate) BTreeMap<Kind, BTreeMap<String, u32>>);

impl Seen {
    pub(crate) fn extend(&mut self, more: &Seen) {
        for (kind, states) in &more.0 {
            for (state, count) in states {
                *self.0.entry(*kind).or_default().entry(state.clone()).or_default() += count;
            }
        }
    }
}

impl Workshop<'_> {
    /// Boots a guest and kills kmend in it. A command that does not tell the truth afterwards, or does not mend what is left, is
    /// an error.
    pub(crate) fn kills(&self, plan: &[Kill]) -> Result<Seen> {
        let kills = u32::try_from(plan.len()).context("too many kills for one guest")?;
        let mut scenario = self.scenario(AROUND + LONGEST_KILL * kills);
        let mut lines = tempfile::NamedTempFile::new()?;
        for Kill { kind, moment, again } in plan {
            let way = if *again { "again" } else { "back" };
            writeln!(lines, "{} {moment} {way}", kind.name())?;
        }
        lines.flush()?;
        let script = crate::root().join("xtask/src/torture/kills.sh");
        let files: [GuestFile; 2] = [file(script, "/kills.sh"), file(lines.path().to_owned(), "/kills.plan")];
        scenario.files.extend(files);
        scenario.steps = vec![
            step("kills", ". /kills.sh\nkills || { tail -n 60 /kills.log; false; }".into()),
            Step::Fetch { name: "log".into(), path: "/kills.log".into() },
        ];
        let outcomes = run(&scenario)?;
        let log = outcomes.last().context("the guest did nothing")?.text();
        let verdict = log::judge(&log, &self.kernel.release);
        ensure!(
            verdict.complaints.is_empty(),
            "{} of {kills} kills ended badly:\n  {}",
            verdict.bad,
            verdict.complaints.join("\n  ")
        );
        ensure!(verdict.kills == plan.len(), "{} of {kills} kills are in the guest's log", verdict.kills);
        Ok(verdict.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_kills() {
        let kills = plan(7, "6.1", 50);
        assert_eq!(kills, plan(7, "6.1", 50));
        assert_ne!(kills, plan(8, "6.1", 50));
        assert_eq!(kills.iter().filter(|kill| kill.kind == Kind::Install).count(), 50);
        assert!(kills.iter().all(|kill| kill.moment <= MOMENTS) && kills.iter().any(|kill| kill.again));
    }
}
