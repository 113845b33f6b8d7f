//! What became of a fix.

use kmend_build::{Report, Status};
use kmend_vm::Presence;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A fix and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The patch's file name.
    pub(crate) file: String,
    /// See [`super::Fix`].
    pub(crate) kind: String,
    /// Whether the kernel has the fix already, so that it was reversed.
    pub(crate) reversed: bool,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// The functions that its livepatch holds, by [`functions`]; empty if there is none.
    #[serde(default)]
    pub(crate) functions: BTreeSet<String>,
    /// Seconds from the patch to the module.
    pub(crate) build: f64,
    /// Seconds of the proof.
    pub(crate) proof: f64,
}

/// What became of a fix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub(crate) enum Outcome {
    /// A module was built, loaded and unloaded in a guest.
    Proven {
        /// How the modules that it patches were there.
        modules: Presence,
    },
    /// A module was built, and no proof was asked for.
    Built,
    /// It changes no code of this kernel, and why that is certain.
    Nothing { why: Vec<String> },
    /// Every function that it changes is `__init` code, which has run and is gone: refused, and nothing is left to mend.
    OnlyInit { refusals: Vec<Refused> },
    /// It was refused.
    Refused { refusals: Vec<Refused> },
    /// It was built, and its transition never ends while a module that it patches is loaded: a task sleeps in a
    /// changed function that it never leaves.
    Stalls {
        /// The tasks with their stacks.
        tasks: String,
        /// Whether the build says so in a note.
        told: bool,
    },
    /// Its hunks fit in neither direction, or, taken back, what is left does not compile.
    DoesNotApply,
    /// Something went wrong.
    Failed { error: String },
}

/// One reason of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// `KM0401`.
    pub(crate) code: String,
    /// The refusal as it is printed.
    pub(crate) text: String,
}

impl Outcome {
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Outcome::Failed { .. } | Outcome::Stalls { told: false, .. })
    }

    /// One or two words that tell outcomes apart.
    pub(crate) fn brief(&self) -> String {
        match self {
            Outcome::Proven { .. } => "proven".into(),
            Outcome::Built => "built".into(),
            Outcome::Nothing { .. } => "nothing".into(),
            Outcome::OnlyInit { refusals } | Outcome::Refused { refusals } => {
                format!("refused {}", codes(refusals))
            }
            Outcome::Stalls { .. } => "stalls".into(),
            Outcome::DoesNotApply => "does not apply".into(),
            Outcome::Failed { .. } => "failed".into(),
        }
    }
}

/// The codes of a refusal, each once.
fn codes(refusals: &[Refused]) -> String {
    let mut codes: Vec<&str> = refusals.iter().map(|refusal| refusal.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes.join(" ")
}

impl Record {
    /// One line for the one who waits.
    pub(crate) fn line(&self) -> String {
        let more = match &self.outcome {
            Outcome::Proven { modules: Presence::Late { why } } => format!(", modules after it: {why}"),
            Outcome::Proven { modules: Presence::Never { why } } => format!(", without modules: {why}"),
            Outcome::Failed { error } => format!(": {error}"),
            Outcome::Stalls { tasks, told } => {
                format!("{}: {tasks}", if *told { ", as the build says" } else { " without a word" })
            }
            _ => String::new(),
        };
        format!("{} {}{more} ({:.1} s + {:.1} s)", self.file, self.outcome.brief(), self.build, self.proof)
    }
}

/// The functions of a livepatch by their names in the source, each with the object that it is patched in; new ones with a `+`, and
/// variables whose values are exchanged with a `=`.
pub(super) fn functions(report: &Report) -> BTreeSet<String> {
    let of_unit = |unit: &kmend_build::UnitReport| {
        let name = |function: &kmend_build::FunctionReport| {
            let mark = if function.status == Status::New { "+" } else { "" };
            format!("{mark}{}:{}", unit.object, kmend_diff::source_function(&function.name))
        };
        let update = |update: &kmend_diff::VariableUpdate| {
            format!("={}:{}", unit.object, kmend_diff::base_name(&update.variable))
        };
        unit.functions.iter().map(name).chain(unit.updates.iter().map(update)).collect::<Vec<_>>()
    };
    report.units.iter().flat_map(of_unit).collect()
}
