//! Every test: the code's form and lints, its own tests, the documents, and the trials.

mod code;
mod deny;
mod documents;

use crate::{built, narrate, packages, trial};
use anyhow::Result;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How a part ended: how many passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Count {
    /// One thing that passed or failed.
    pub(crate) fn one(passed: bool) -> Self {
        Count { passed: u64::from(passed), failed: u64::from(!passed) }
    }
}

/// The parts that have ended.
#[derive(Default)]
struct Parts {
    rows: Vec<(&'static str, Count, Duration)>,
}

impl Parts {
    /// Runs a part. An error is one failure: the other parts are run all the same.
    fn run(&mut self, name: &'static str, run: impl FnOnce() -> Result<Count>) {
        narrate::heading(name);
        let start = Instant::now();
        let count = run().unwrap_or_else(|error| {
            println!("error: {error:#}");
            Count::one(false)
        });
        let time = start.elapsed();
        narrate::say(&format!(
            "{name}: {} passed, {} failed ({})",
            count.passed,
            count.failed,
            narrate::seconds(time)
        ));
        self.rows.push((name, count, time));
    }

    fn total(&self) -> Count {
        self.rows.iter().fold(Count::default(), |sum, (_, count, _)| Count {
            passed: sum.passed + count.passed,
            failed: sum.failed + count.failed,
        })
    }

    /// The table, and the closing line alone on its line.
    fn conclude(&self) -> ExitCode {
        let mut table = narrate::table(&["part", "passed", "failed", "time"]);
        for (name, count, time) in &self.rows {
            let numbers = [count.passed.to_string(), count.failed.to_string()];
            table.add_row([
                (*name).to_owned(),
                numbers[0].clone(),
                numbers[1].clone(),
                narrate::seconds(*time),
            ]);
        }
        println!("\n{table}\n");
        let total = self.total();
        println!("{} passed, {} failed", total.passed, total.failed);
        if total.failed == 0 && total.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The parts beside the trials, by the names that choose them.
const PARTS: [&str; 6] = ["format", "lints", "dependencies", "rustdoc", "code", "documents"];

/// Runs all the parts, or the one of this name, or the trials whose name holds this text.
pub(crate) fn run(all: bool, threads: usize, filter: Option<String>) -> Result<ExitCode> {
    let chosen = filter.as_deref().filter(|name| PARTS.contains(name));
    let wanted = |name: &str| filter.is_none() || chosen == Some(name);
    let mut parts = Parts::default();
    narrate::heading("packages");
    packages::ensure()?;
    if wanted("format") {
        parts.run("format", || Ok(code::passes(&["fmt", "--all", "--check"])));
    }
    if wanted("lints") {
        parts.run("lints", || Ok(code::lints()));
    }
    if wanted("dependencies") {
        parts.run("dependencies", deny::check);
    }
    if wanted("rustdoc") {
        parts.run("rustdoc", || Ok(code::documentation()));
    }
    if wanted("code") {
        parts.run("code", || Ok(code::tests()));
    }
    if wanted("documents") {
        parts.run("documents", || documents::check(&built::kmend()?));
    }
    if chosen.is_none() {
        parts.run("trials", || {
            let kmend = built::kmend()?;
            let conclusion = trial::run(&trial::Choice { filter, all, threads, kmend })?;
            print_slowest(conclusion.times);
            Ok(conclusion.count)
        });
    }
    Ok(parts.conclude())
}

/// Where the trials' time went.
fn print_slowest(mut times: Vec<(String, Duration)>) {
    times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    let mut table = narrate::table(&["slowest trials", "time"]);
    for (name, time) in times.iter().take(10) {
        table.add_row([name.clone(), narrate::seconds(*time)]);
    }
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_failure_and_the_parts_add_up() {
        let mut parts = Parts::default();
        parts.run("one", || Ok(Count { passed: 3, failed: 0 }));
        parts.run("two", || anyhow::bail!("it broke"));
        assert_eq!(parts.total(), Count { passed: 3, failed: 1 });
    }
}
