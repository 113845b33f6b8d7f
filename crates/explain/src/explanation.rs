//! What comes out: the typed value that the terminal, the page and `--json` show.

use kmend_diff::FunctionChange;
use serde::Serialize;

/// How many unchanged instructions are shown before and after a difference.
pub(crate) const CONTEXT: usize = 3;
/// How many differing rows an excerpt has at most.
const LONGEST_EXCERPT: usize = 10;
/// How many rows the excerpt of a function's first difference has at most.
pub(crate) const EXCERPT: usize = LONGEST_EXCERPT + 2 * CONTEXT;

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
    /// The first difference at a source line that the patch touches, if that is another one: what comes before it are
    /// the compiler's consequences, such as other registers.
    pub first_touched: Vec<Row>,
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
    /// Whether the patch touches it: the other side has no such line of this number.
    pub touched: bool,
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

/// The first difference, and the first at a line that the patch touches unless that is the same; each with context.
pub(crate) fn first_differences(pieces: &[Piece]) -> (Vec<Row>, Vec<Row>) {
    let is_compared = |piece: &&Piece| piece.original > 0 && piece.patched > 0;
    let stretches = pieces.iter().filter(is_compared).flat_map(|piece| &piece.stretches);
    let differing: Vec<&Vec<Row>> = stretches
        .filter_map(|stretch| match stretch {
            Stretch::Differs { rows, .. } => Some(rows),
            Stretch::Same { .. } => None,
        })
        .collect();
    let excerpt = |wanted: fn(&Row) -> bool| {
        differing.iter().find_map(|rows| excerpt(rows, rows.iter().position(wanted)?)).unwrap_or_default()
    };
    let (first, touched) = (excerpt(|row| row.differs), excerpt(Row::is_touched));
    let is_in_first = touched.iter().find(|row| row.is_touched()).is_none_or(|row| first.contains(row));
    (first, if is_in_first { Vec::new() } else { touched })
}

/// The differing rows from one on, not too many, with context.
fn excerpt(rows: &[Row], at: usize) -> Option<Vec<Row>> {
    let length = rows.get(at..)?.iter().take_while(|row| row.differs).take(LONGEST_EXCERPT).count();
    let after = rows.get(at + length..)?.iter().take_while(|row| !row.differs).take(CONTEXT).count();
    let end = at + length + after;
    rows.get(at.saturating_sub(CONTEXT)..end).map(<[Row]>::to_vec)
}

impl Row {
    /// Whether it differs and one of its instructions is from a line that the patch touches.
    pub fn is_touched(&self) -> bool {
        let of_touched = |side: &Option<Instruction>| {
            side.as_ref()
                .and_then(|instruction| instruction.place.as_ref())
                .is_some_and(|place| place.touched)
        };
        self.differs && (of_touched(&self.original) || of_touched(&self.patched))
    }
}
