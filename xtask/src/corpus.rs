//! The corpus of real fixes (tests/corpus): each applied, built and proven.

mod attempt;
mod index;
mod kept;
mod outcome;
mod recorded;
mod table;

pub(crate) use attempt::{Aim, Workshop, attempt};
pub(crate) use index::{Fix, read_index, sample};
pub(crate) use outcome::Record;
pub(crate) use recorded::Ledger;

use crate::several::several;
use crate::{kernels, narrate, packages};
use anyhow::{Context, Result, ensure};
use clap::Args;
use kept::Kept;
use kmend_store::Cache;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The kernel whose configuration has the most drivers and file systems.
pub(crate) const KERNEL: &str = "debian:amd64";

/// What to run, and how.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A kernel to fetch (debian:FLAVOUR), or the release of one in the cache
    #[arg(long, value_name = "K", default_value = KERNEL)]
    kernel: String,
    /// Only fixes of this kind, as tests/corpus/index.tsv has it
    #[arg(long, value_name = "KIND")]
    only: Option<String>,
    /// Fixes at a time
    #[arg(long, value_name = "N", default_value_t = crate::guests_at_a_time())]
    threads: usize,
    #[command(flatten)]
    earlier: Earlier,
    /// Build and do not prove: what changes is compared all the same
    #[arg(long)]
    build_only: bool,
    /// Print the tables of docs/coverage.md
    #[arg(long)]
    markdown: bool,
    /// Keep the outcomes, with the functions that change, as those that later runs are compared with
    #[arg(long)]
    record: bool,
    /// Only fixes whose file name holds this text
    filter: Option<String>,
}

/// What earlier runs count for.
#[derive(Debug, Args)]
struct Earlier {
    /// Do not go on with what an earlier run has done
    #[arg(long)]
    fresh: bool,
    /// Go on also with what another build of this program has proven
    #[arg(long, conflicts_with = "fresh")]
    any_build: bool,
    /// Try nothing: show what earlier runs have done
    #[arg(long, conflicts_with_all = ["fresh", "record"])]
    kept: bool,
}

/// Runs the fixes and prints what became of them. Fails if one failed, or came to something else than is recorded.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure()?;
    let cache = Cache::open()?;
    let kernel = kernels::choose(&cache, &options.kernel)?;
    let fixes = chosen(options)?;
    let start = Instant::now();
    let workshop = Workshop::new(cache, kernel)?;
    let kept = Kept::open(&workshop.kernel, options.earlier.any_build)?;
    if options.earlier.fresh {
        kept.forget()?;
    }
    let aim = if options.build_only { Aim::Module } else { Aim::Proof };
    let records = if options.earlier.kept {
        fixes.iter().filter_map(|fix| kept.find(fix, &fs::read(fix.path()).ok()?, aim)).collect()
    } else {
        all(&workshop, &kept, &fixes, aim, options.threads)?
    };
    let json = kept.publish(&records)?;
    println!();
    if options.markdown {
        print!("{}", table::markdown(&workshop.kernel, &records));
    } else {
        table::print(&records);
    }
    let mut ledger = Ledger::read()?;
    let differences: Vec<String> = records.iter().filter_map(|record| ledger.difference(record)).collect();
    for difference in &differences {
        narrate::say(&format!("DIFFERS {difference}"));
    }
    if options.record {
        ledger.take(&workshop.kernel, &records);
        ledger.write()?;
    }
    narrate::say(&format!(
        "{} ({}) are in {}",
        records.len(),
        narrate::seconds(start.elapsed()),
        json.display()
    ));
    let failed = records.iter().any(|record| record.outcome.is_failure());
    let differs = !differences.is_empty() && !options.record;
    Ok(if failed || differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen(options: &Options) -> Result<Vec<Fix>> {
    let mut fixes = read_index()?;
    let holds = |fix: &Fix| options.filter.as_ref().is_none_or(|text| fix.file.contains(text));
    let is_kind = |fix: &Fix| options.only.as_ref().is_none_or(|kind| fix.kind == *kind);
    fixes.retain(|fix| holds(fix) && is_kind(fix));
    ensure!(!fixes.is_empty(), "no fix of tests/corpus is asked for");
    Ok(fixes)
}

/// Does what is not done yet, several at a time, and returns all in the order of the index.
fn all(workshop: &Workshop, kept: &Kept, fixes: &[Fix], aim: Aim, threads: usize) -> Result<Vec<Record>> {
    let done = AtomicUsize::new(0);
    let records = several(threads, fixes, |_, fix| -> Result<Record> {
        let patch = fs::read(fix.path()).with_context(|| fix.file.clone())?;
        let record = if let Some(record) = kept.find(fix, &patch, aim) {
            record
        } else {
            let record = attempt(workshop, fix, &patch, aim);
            kept.keep(fix, &patch, &record)?;
            record
        };
        let number = done.fetch_add(1, Ordering::Relaxed) + 1;
        narrate::say(&format!("{number}/{} {}", fixes.len(), record.line()));
        Ok(record)
    })?;
    records.into_iter().collect()
}
