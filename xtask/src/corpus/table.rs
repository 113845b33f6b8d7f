//! The outcomes as tables.

use super::outcome::{Outcome, Record};
use crate::narrate;
use kmend_store::Kernel;
use kmend_vm::Presence;
use std::collections::BTreeMap;
use std::fmt::Write;

/// How many fixes of a kind came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Row {
    fixes: u32,
    proven: u32,
    nothing: u32,
    only_init: u32,
    refused: u32,
    stalls: u32,
    failed: u32,
    does_not_apply: u32,
}

impl Row {
    fn add(&mut self, outcome: &Outcome) {
        self.fixes += 1;
        let count = match outcome {
            Outcome::Built => return,
            Outcome::Proven { .. } => &mut self.proven,
            Outcome::Nothing { .. } => &mut self.nothing,
            Outcome::OnlyInit { .. } => &mut self.only_init,
            Outcome::Refused { .. } => &mut self.refused,
            Outcome::Stalls { .. } => &mut self.stalls,
            Outcome::DoesNotApply => &mut self.does_not_apply,
            Outcome::Failed { .. } => &mut self.failed,
        };
        *count += 1;
    }

    /// Of the fixes that apply and change code of this kernel that can still run, the part that is built and proven.
    fn rate(self) -> String {
        let of = self.proven + self.refused + self.stalls + self.failed;
        if of == 0 {
            "–".into()
        } else {
            format!("{:.1} %", 100.0 * f64::from(self.proven) / f64::from(of))
        }
    }

    fn cells(self, kind: &str) -> [String; COLUMNS.len()] {
        let number = |number: u32| number.to_string();
        [
            kind.to_owned(),
            number(self.fixes),
            number(self.does_not_apply),
            number(self.nothing),
            number(self.only_init),
            number(self.proven),
            number(self.refused),
            number(self.stalls),
            number(self.failed),
            self.rate(),
        ]
    }
}

const COLUMNS: [&str; 10] = [
    "kind",
    "fixes",
    "do not apply",
    "nothing to patch",
    "init code only",
    "built and proven",
    "refused",
    "stall",
    "failed",
    "rate",
];

/// A row for each kind, most fixes first, and one for all.
fn rows(records: &[Record]) -> Vec<[String; COLUMNS.len()]> {
    let mut kinds: BTreeMap<&str, Row> = BTreeMap::new();
    let mut all = Row::default();
    for record in records {
        kinds.entry(&record.kind).or_default().add(&record.outcome);
        all.add(&record.outcome);
    }
    let mut kinds: Vec<(&str, Row)> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, row)| std::cmp::Reverse(row.fixes));
    kinds.push(("all", all));
    kinds.into_iter().map(|(kind, row)| row.cells(kind)).collect()
}

/// Every fix that was not proven, with why: a heading and its lines.
fn lists(records: &[Record]) -> Vec<(&'static str, Vec<[String; 2]>)> {
    let mut lists = [
        ("Refused", Vec::new()),
        ("Failed", Vec::new()),
        ("Stall", Vec::new()),
        ("Nothing to patch", Vec::new()),
        ("Do not apply", Vec::new()),
    ];
    for record in records {
        let (list, text) = match &record.outcome {
            Outcome::OnlyInit { refusals } | Outcome::Refused { refusals } => {
                let texts: Vec<&str> = refusals.iter().map(|refusal| refusal.text.as_str()).collect();
                (0, texts.join("; "))
            }
            Outcome::Failed { error } => (1, error.clone()),
            Outcome::Stalls { tasks, .. } => (2, tasks.clone()),
            Outcome::Nothing { why } => (3, why.join("; ")),
            Outcome::DoesNotApply => (4, String::new()),
            Outcome::Proven { .. } | Outcome::Built => continue,
        };
        lists[list].1.push([record.file.trim_end_matches(".patch").to_owned(), text]);
    }
    lists.into_iter().filter(|(_, lines)| !lines.is_empty()).collect()
}

/// How the modules were there, over all that is proven.
fn presence(records: &[Record]) -> String {
    let count = |wanted: &dyn Fn(&Presence) -> bool| {
        records
            .iter()
            .filter(|record| matches!(&record.outcome, Outcome::Proven { modules } if wanted(modules)))
            .count()
    };
    format!(
        "Proven with the patched modules loaded before the livepatch (or in the image): {}; with modules that the guest \
         cannot start, loaded after it as far as that goes: {}; without modules of which the stock kernel complains: {}.",
        count(&|modules| *modules == Presence::First),
        count(&|modules| matches!(modules, Presence::Late { .. })),
        count(&|modules| matches!(modules, Presence::Never { .. })),
    )
}

/// Prints the tables for a terminal.
pub(super) fn print(records: &[Record]) {
    for (heading, lines) in lists(records) {
        narrate::heading(heading);
        for [file, text] in lines {
            narrate::say(&format!("{file}\n        {}", text.replace('\n', "\n        ")));
        }
    }
    let mut table = narrate::table(&COLUMNS);
    table.add_rows(rows(records));
    println!("\n{table}\n{}", presence(records));
}

/// The tables for docs/coverage.md.
pub(super) fn markdown(kernel: &Kernel, records: &[Record]) -> String {
    let mut text = format!("Kernel {} ({}), {}.\n\n", kernel.release, kernel.version, kernel.compiler_text);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| {} |\n|{}", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()));
    for cells in rows(records) {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    let _ = writeln!(text, "\n{}", presence(records));
    for (heading, lines) in lists(records) {
        let _ = writeln!(text, "\n### {heading}\n");
        for [file, why] in lines {
            let first = why.lines().next().unwrap_or_default();
            let _ = writeln!(text, "- {file}{}{first}", if first.is_empty() { "" } else { ": " });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::outcome::Refused;

    fn record(file: &str, kind: &str, outcome: Outcome) -> Record {
        let (functions, reversed) = (std::collections::BTreeSet::new(), true);
        Record { file: file.into(), kind: kind.into(), reversed, outcome, functions, build: 1.0, proof: 2.0 }
    }

    #[test]
    fn the_rate_is_of_the_fixes_that_change_code() {
        let refused = vec![Refused { code: "KM0401".into(), text: "refused[KM0401]: x".into() }];
        let records = [
            record("a", "code", Outcome::Proven { modules: Presence::First }),
            record("b", "code", Outcome::Refused { refusals: refused.clone() }),
            record("e", "code", Outcome::OnlyInit { refusals: refused }),
            record("c", "code", Outcome::Nothing { why: vec!["no object".into()] }),
            record("d", "data", Outcome::DoesNotApply),
        ];
        let rows = rows(&records);
        assert_eq!(rows[0], ["code", "4", "0", "1", "1", "1", "1", "0", "0", "50.0 %"]);
        assert_eq!(rows[1], ["data", "1", "1", "0", "0", "0", "0", "0", "0", "–"]);
        assert_eq!(rows[2][0], "all");
        let headings: Vec<&str> = lists(&records).iter().map(|(heading, _)| *heading).collect();
        assert_eq!(headings, ["Refused", "Nothing to patch", "Do not apply"]);
    }
}
