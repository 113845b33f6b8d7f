//! A sample of the corpus of real fixes: each comes to what was recorded for it, with the same functions.

use super::{Bench, Times, timed};
use crate::corpus::{Aim, Fix, KERNEL, Ledger, Workshop, attempt, read_index, sample};
use crate::kernels;
use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use std::fs;
use std::sync::{Arc, OnceLock};

/// Fixes of the sample.
const FIXES: usize = 12;

/// The kernel, obtained by the first trial that is run: a filter that names none of these costs nothing.
type Shared = OnceLock<Result<Workshop, String>>;

/// The trials.
pub(super) fn trials(bench: &Arc<Bench>, times: &Times) -> Result<Vec<Trial>> {
    let ledger = Arc::new(Ledger::read()?);
    let shared = Arc::new(Shared::new());
    let mut trials = Vec::new();
    for fix in sample(&read_index()?, FIXES) {
        // What it comes to is not known yet: the next complete run says (`cargo xtask corpus --record`).
        if !ledger.knows(&fix.file) {
            continue;
        }
        let (bench, times, shared) = (Arc::clone(bench), Arc::clone(times), Arc::clone(&shared));
        let ledger = Arc::clone(&ledger);
        let name = format!("corpus/{}", fix.name());
        trials.push(Trial::test(name.clone(), move || {
            timed(&times, name, || run(&bench, &shared, &fix, &ledger))
        }));
    }
    Ok(trials)
}

fn run(bench: &Bench, shared: &Shared, fix: &Fix, ledger: &Ledger) -> Result<()> {
    let open =
        || -> Result<Workshop> { Workshop::new(bench.cache.clone(), kernels::obtain(&bench.cache, KERNEL)?) };
    let workshop = shared.get_or_init(|| open().map_err(|error| format!("{error:#}"))).as_ref();
    let workshop = workshop.map_err(|error| anyhow::anyhow!("{error}"))?;
    let patch = fs::read(fix.path()).with_context(|| fix.file.clone())?;
    let record = attempt(workshop, fix, &patch, Aim::Proof);
    ensure!(!record.outcome.is_failure(), "{}", record.line());
    if let Some(difference) = ledger.difference(&record) {
        bail!("{difference}\n{}", record.line());
    }
    Ok(())
}
