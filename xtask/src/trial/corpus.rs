//! A sample of the corpus of real fixes: each comes to what was recorded for it, or to something better.

use super::{Bench, Times, timed};
use crate::corpus::{Fix, KERNEL, Workshop, attempt, read_index, recorded, sample};
use crate::kernels;
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::fs;
use std::sync::{Arc, OnceLock};

/// Fixes of the sample.
const FIXES: usize = 12;

/// The kernel, obtained by the first trial that is run: a filter that names none of these costs nothing.
type Shared = OnceLock<Result<Workshop, String>>;

/// The trials.
pub(super) fn trials(bench: &Arc<Bench>, times: &Times) -> Result<Vec<Trial>> {
    let recorded = recorded()?;
    let shared = Arc::new(Shared::new());
    let mut trials = Vec::new();
    for fix in sample(&read_index()?, FIXES) {
        // What it comes to is not known yet: the next complete run says (`cargo xtask corpus --record`).
        let Some(expected) = recorded.get(&fix.file).cloned() else { continue };
        let (bench, times, shared) = (Arc::clone(bench), Arc::clone(times), Arc::clone(&shared));
        let name = format!("corpus/{}", fix.name());
        trials.push(Trial::test(name.clone(), move || {
            timed(&times, name, || run(&bench, &shared, &fix, &expected))
        }));
    }
    Ok(trials)
}

fn run(bench: &Bench, shared: &Shared, fix: &Fix, expected: &str) -> Result<()> {
    let open =
        || -> Result<Workshop> { Workshop::new(bench.cache.clone(), kernels::obtain(&bench.cache, KERNEL)?) };
    let workshop = shared.get_or_init(|| open().map_err(|error| format!("{error:#}"))).as_ref();
    let workshop = workshop.map_err(|error| anyhow::anyhow!("{error}"))?;
    let patch = fs::read(fix.path()).with_context(|| fix.file.clone())?;
    let record = attempt(workshop, fix, &patch);
    let brief = record.outcome.brief();
    // Which refusal comes first may change; that it is refused at all may only get better.
    let refused = brief.starts_with("refused") && expected.starts_with("refused");
    let is_right = !record.outcome.is_failure() && (brief == "proven" || brief == expected || refused);
    ensure!(is_right, "{}; it was recorded as: {expected}", record.line());
    Ok(())
}
