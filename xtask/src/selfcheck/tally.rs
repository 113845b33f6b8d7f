//! What came of the operators, counted.

use super::operators::TABLE;
use super::trial::{Outcome, Trial};
use crate::narrate;
use std::collections::BTreeMap;

/// Every trial, and how to repeat it.
#[derive(Default)]
pub(super) struct Tally {
    trials: Vec<(Trial, String)>,
}

impl Tally {
    pub(super) fn add(&mut self, release: &str, source: &str, seed: u64, trials: Vec<Trial>) {
        let command = |trial: &Trial| trial.command(release, seed, source);
        self.trials.extend(trials.into_iter().map(|trial| (trial.clone(), command(&trial))));
    }

    pub(super) fn is_good(&self) -> bool {
        self.trials.iter().all(|(trial, _)| !trial.outcome.is_failure())
    }

    pub(super) fn print_failures(&self) {
        for (trial, command) in &self.trials {
            let told = match &trial.outcome {
                Outcome::Missed(why) => format!("MISSED: {why}"),
                Outcome::WronglyChanged(why) => format!("WRONGLY CHANGED: {why}"),
                Outcome::Broke(why) => format!("BROKE: {why}"),
                Outcome::Right | Outcome::RightlyRefused(_) | Outcome::Refused(_) => continue,
            };
            println!("\n{} ({}): {told}", trial.operator, trial.what);
            narrate::say(command);
        }
    }

    /// A row for each operator, in the order of their table.
    pub(super) fn table(&self) -> comfy_table::Table {
        let columns = [
            "operator",
            "applied",
            "right",
            "rightly refused",
            "refused",
            "missed",
            "wrongly changed",
            "broke",
            "codes",
        ];
        let mut table = narrate::table(&columns);
        for operator in TABLE {
            if !self.trials.iter().any(|(trial, _)| trial.operator == operator.name) {
                continue;
            }
            let of = || self.trials.iter().filter(|(trial, _)| trial.operator == operator.name);
            let count = |is: &dyn Fn(&Outcome) -> bool| {
                of().filter(|(trial, _)| is(&trial.outcome)).count().to_string()
            };
            let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
            for (trial, _) in of() {
                if let Outcome::RightlyRefused(code) | Outcome::Refused(code) = &trial.outcome {
                    *codes.entry(code).or_default() += 1;
                }
            }
            let codes: Vec<String> = codes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
            table.add_row([
                operator.name.to_owned(),
                count(&|_| true),
                count(&|outcome| matches!(outcome, Outcome::Right)),
                count(&|outcome| matches!(outcome, Outcome::RightlyRefused(_))),
                count(&|outcome| matches!(outcome, Outcome::Refused(_))),
                count(&|outcome| matches!(outcome, Outcome::Missed(_))),
                count(&|outcome| matches!(outcome, Outcome::WronglyChanged(_))),
                count(&|outcome| matches!(outcome, Outcome::Broke(_))),
                codes.join(", "),
            ]);
        }
        table
    }
}
