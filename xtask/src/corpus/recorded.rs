//! What became of each fix when it was last recorded, and how a run differs from that.

use super::index::folder;
use super::outcome::{Outcome, Record};
use anyhow::{Context, Result};
use kmend_store::Kernel;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// Between the columns: the file, the outcome, and the functions, if these are known.
const TAB: char = '\t';
/// Before the kernel on which it was recorded.
const KERNEL: &str = "# ";

/// What is recorded of a fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// [`Outcome::brief`].
    outcome: String,
    /// [`Record::functions`]; `None` if they have not been recorded yet.
    functions: Option<BTreeSet<String>>,
}

/// All that is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// The kernel on which it was.
    pub(crate) kernel: String,
    rows: BTreeMap<String, Recorded>,
}

impl Ledger {
    /// Reads tests/corpus/outcomes.tsv.
    pub(crate) fn read() -> Result<Self> {
        let path = path();
        Ok(Self::parse(&fs::read_to_string(&path).with_context(|| path.display().to_string())?))
    }

    fn parse(text: &str) -> Self {
        let mut ledger = Self::default();
        for line in text.lines() {
            if let Some(kernel) = line.strip_prefix(KERNEL) {
                kernel.clone_into(&mut ledger.kernel);
                continue;
            }
            let mut cells = line.split(TAB);
            let (Some(file), Some(outcome)) = (cells.next(), cells.next()) else { continue };
            let functions = cells.next().map(|names| names.split_whitespace().map(str::to_owned).collect());
            ledger.rows.insert(file.to_owned(), Recorded { outcome: outcome.to_owned(), functions });
        }
        ledger
    }

    fn text(&self) -> String {
        let mut text = format!("{KERNEL}{}\n", self.kernel);
        for (file, row) in &self.rows {
            let names = row.functions.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
            let functions = row.functions.as_ref().map(|_| format!("{TAB}{names}")).unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{file}{TAB}{}{functions}", row.outcome);
        }
        text
    }

    /// How a fix came out otherwise than it is recorded; `None` if as recorded, or if nothing is recorded of it.
    pub(crate) fn difference(&self, record: &Record) -> Option<String> {
        let row = self.rows.get(&record.file)?;
        let (before, now) = (&row.outcome, record.outcome.brief());
        // What a build alone comes to is what may be proven afterwards.
        let is_same = *before == now || (record.outcome == Outcome::Built && needs_module(before));
        let functions = row.functions.as_ref().filter(|functions| **functions != record.functions);
        let why = match (is_same, functions) {
            (false, _) => format!("it was {before} and is {now}"),
            (true, None) => return None,
            (true, Some(before)) => format!(
                "its functions were {} and are {}",
                before.iter().map(String::as_str).collect::<Vec<_>>().join(" "),
                record.functions.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
            ),
        };
        Some(format!("{}: {why} (recorded on {})", record.file, self.kernel))
    }

    /// Whether something is recorded of a fix.
    pub(crate) fn knows(&self, file: &str) -> bool {
        self.rows.contains_key(file)
    }

    /// Takes over what a run came to. A module that was built and not proven leaves the word of an earlier proof.
    pub(super) fn take(&mut self, kernel: &Kernel, records: &[Record]) {
        self.kernel = format!("{} {}", kernel.release, kernel.version);
        for record in records {
            let proven = self.rows.get(&record.file).map(|row| row.outcome.clone());
            let outcome = match proven.filter(|before| needs_module(before)) {
                Some(before) if record.outcome == Outcome::Built => before,
                _ => record.outcome.brief(),
            };
            let functions = Some(record.functions.clone());
            self.rows.insert(record.file.clone(), Recorded { outcome, functions });
        }
    }

    /// Writes tests/corpus/outcomes.tsv.
    pub(super) fn write(&self) -> Result<()> {
        let path = path();
        fs::write(&path, self.text()).with_context(|| path.display().to_string())
    }
}

fn path() -> PathBuf {
    folder().join("outcomes.tsv")
}

/// Whether only a fix that was built comes to this.
fn needs_module(brief: &str) -> bool {
    matches!(brief, "proven" | "stalls")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_vm::Presence;

    const TEXT: &str = "# 6.1.0 6.1.1-1\na.patch\tproven\tvmlinux:f +vmlinux:g\nb.patch\trefused KM0401\t\nc.patch\tproven\n";

    fn record(file: &str, outcome: Outcome, functions: &[&str]) -> Record {
        let functions = functions.iter().map(|name| (*name).to_owned()).collect();
        let (kind, reversed) = ("code".into(), false);
        Record { file: file.into(), kind, reversed, outcome, functions, build: 1.0, proof: 2.0 }
    }

    fn proven() -> Outcome {
        Outcome::Proven { modules: Presence::First }
    }

    #[test]
    fn outcome_and_functions_are_compared() {
        let ledger = Ledger::parse(TEXT);
        let told = |record: Record| ledger.difference(&record).unwrap_or_default();
        assert_eq!(told(record("a.patch", proven(), &["vmlinux:f", "+vmlinux:g"])), "");
        assert_eq!(told(record("a.patch", Outcome::Built, &["vmlinux:f", "+vmlinux:g"])), "");
        let less = told(record("a.patch", proven(), &["vmlinux:f"]));
        assert!(less.contains("its functions were +vmlinux:g vmlinux:f and are vmlinux:f"), "{less}");
        let refused = told(record("a.patch", Outcome::Refused { refusals: Vec::new() }, &[]));
        assert!(refused.starts_with("a.patch: it was proven and is refused"), "{refused}");
        let better = told(record("b.patch", Outcome::Built, &["vmlinux:h"]));
        assert!(better.contains("was refused KM0401 and is built"), "{better}");
        assert_eq!(told(record("c.patch", proven(), &["vmlinux:h"])), "", "its functions are not known");
        assert_eq!(told(record("d.patch", proven(), &[])), "", "nothing is known of it");
    }

    #[test]
    fn what_is_written_reads_back_and_a_build_is_no_proof() {
        let mut ledger = Ledger::parse(TEXT);
        let names = TEXT.replace("vmlinux:f +vmlinux:g", "+vmlinux:g vmlinux:f");
        assert_eq!(ledger.text(), names, "in the order of the names");
        let kernel = ledger.kernel.clone();
        ledger.rows.get_mut("c.patch").unwrap().functions = Some(BTreeSet::new());
        assert_eq!(Ledger::parse(&ledger.text()), ledger);
        assert_eq!(ledger.kernel, kernel);
    }
}
