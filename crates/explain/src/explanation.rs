//! What comes out: the typed value that the terminal, the page and `--json` show.

use kmend_diff::FunctionChange;
use serde::Serialize;

/// How many unchanged instructions are shown before and after a difference.
pub(crate) const CONTEXT: usize = 3;

/// Why each function is in a livepatch.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Explanation {
    /// The functions, unit by unit.
    pub functions: Vec<Function>,
}

/// One function of the livepatch.
#[derive(Debug, Clone, Serialize)]
pub struct Function {
    /// The source of its unit, from the tree's root.
    pub unit: String,
    /// `vmlinux` or a module's name.
    pub object: String,
    /// Its symbol in the patched object.
    pub name: String,
    /// Its symbol in the original object; `None` for a new function.
    pub original: Option<String>,
    /// What it is in the livepatch.
    pub status: Status,
    /// Why it is there.
    pub causes: Vec<Cause>,
    /// The first difference with some lines of context; empty where no instruction differs, and for new functions.
    pub first: Vec<Row>,
    /// Its code: the function itself, then the parts that the compiler put elsewhere.
    pub pieces: Vec<Piece>,
}

/// What a function is in a livepatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It replaces one of the running kernel.
    Changed,
    /// It differs, and only its callers, which are replaced, call it.
    Carried,
    /// The original has no such function.
    New,
}

impl Status {
    pub(crate) fn of(change: &FunctionChange) -> Self {
        match change {
            FunctionChange { carried: true, .. } => Status::Carried,
            FunctionChange { original: Some(_), .. } => Status::Changed,
            _ => Status::New,
        }
    }

    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Changed => "changed",
            Status::Carried => "carried",
            Status::New => "new",
        }
    }
}

/// A reason with the place that shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The reason.
    pub text: String,
    /// What shows it, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// A place in a source file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The file, from the tree's root.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The line's text. More than one where the patch adds lines: they share numbers with those that they push down.
    pub text: Vec<String>,
}

/// A function's body, or a part of it that the compiler put elsewhere (`.cold`).
#[derive(Debug, Clone, Serialize)]
pub struct Piece {
    /// Its symbol.
    pub name: String,
    /// How many instructions the original has.
    pub original: usize,
    /// How many the patched one has.
    pub patched: usize,
    /// How many rows differ.
    pub differing: usize,
    /// Its rows, cut into those near a difference and those that are not.
    pub stretches: Vec<Stretch>,
}

/// Rows that follow each other.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Stretch {
    /// A difference with the rows around it.
    Differs {
        /// How many rows there are.
        count: usize,
        /// As many of them as there was room for.
        rows: Vec<Row>,
    },
    /// Rows that are the same on both sides.
    Same {
        /// How many rows there are.
        count: usize,
        /// All of them, or none if there was no room.
        #[serde(skip)]
        rows: Vec<Row>,
    },
}

/// One line of the two disassemblies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Whether the two sides differ.
    pub differs: bool,
    /// The original's instruction; `None` if the patched one was added.
    pub original: Option<Instruction>,
    /// The patched instruction; `None` if the original's was removed.
    pub patched: Option<Instruction>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instruction {
    /// Bytes from the entry of its piece.
    pub offset: u64,
    /// In AT&T syntax, with names for what relocations fill in.
    pub text: String,
    /// Where it is from, if the object says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// The first stretch with a difference, cut down to the first difference in it.
pub(crate) fn first_difference(pieces: &[Piece]) -> Vec<Row> {
    let is_compared = |piece: &&Piece| piece.original > 0 && piece.patched > 0;
    let rows = pieces.iter().filter(is_compared).flat_map(|piece| &piece.stretches).find_map(|stretch| {
        let Stretch::Differs { rows, .. } = stretch else { return None };
        Some(rows)
    });
    let Some(rows) = rows else { return Vec::new() };
    let start = rows.iter().take_while(|row| !row.differs).count();
    let length = rows[start..].iter().take_while(|row| row.differs).take(3 * CONTEXT).count();
    let end = start + length;
    rows.iter().take((end + CONTEXT).min(rows.len())).cloned().collect()
}
