//! The one table of kmend's stable codes, and the refusal that carries one.
//!
//! Every reason for which kmend stops has a code `KM0xxx` that never changes its meaning. The table in
//! [`Code`] is the only list of them: `docs/refusals.md` has one section for each, and a test holds the
//! two together. A [`Refusal`] is a code met at a place; a stage hands on all the refusals it found, so
//! that a user sees every reason at once and not one at a time.
//!
//! Architecture invariant: this crate knows nothing of kernels, ELF or files. It is the vocabulary that
//! all the stages share.

mod table;

pub use table::{Code, Kind};

use serde::Serialize;
use std::fmt;

/// A place in a source file of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SourceLine {
    /// Path from the kernel tree's root, with `/` between components.
    pub file: String,
    /// Line number, counted from 1; `None` where only the file is known.
    pub line: Option<u32>,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// One reason why kmend will not do what it was asked.
///
/// The title and the way out come from the code; `subject` and `why` say what was met here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What it is about: a function, section, hunk or file.
    pub subject: String,
    /// Where in the source, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<SourceLine>,
    /// The reason in the user's words, one sentence.
    pub why: String,
    /// Lines that show it: disassembly, a compiler's message, the nearest match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

impl Refusal {
    /// A refusal without a source line and without details.
    pub fn new(code: Code, subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self { code, subject: subject.into(), place: None, why: why.into(), details: Vec::new() }
    }

    /// The same refusal at a place in the source.
    #[must_use]
    pub fn at(mut self, file: impl Into<String>, line: Option<u32>) -> Self {
        self.place = Some(SourceLine { file: file.into(), line });
        self
    }

    /// The same refusal with lines that show it.
    #[must_use]
    pub fn with_details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// What the user can do about it, from the table.
    pub fn way_out(&self) -> &'static str {
        self.code.way_out()
    }
}

/// Something that the author of a patch should look at, and that kmend cannot prove to be right or wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Advice {
    /// What kind of thing it is.
    pub sign: Sign,
    /// What it is about: a type, variable or function.
    pub subject: String,
    /// One sentence.
    pub text: String,
}

/// What advice goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// Locks are taken in another way.
    Locks,
    /// Data that exists is read or written in another way.
    Data,
    /// What modules see of the kernel looks different.
    Interface,
    /// Tasks stay in a function.
    Stay,
}

impl fmt::Display for Refusal {
    /// `KM0401 changed static data: frobs (mm/frob.c:12): why`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.code.title(), self.subject)?;
        if let Some(place) = &self.place {
            write!(f, " ({place})")?;
        }
        write!(f, ": {}", self.why)
    }
}

/// An error of a library that carries one of the stable codes.
pub trait Coded {
    /// The code to show and to look up in `docs/refusals.md`.
    fn code(&self) -> Code;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_prints_code_title_subject_place_and_reason() {
        let refusal =
            Refusal::new(Code::ChangedData, "frobs", "its initial value changed").at("mm/frob.c", Some(12));
        assert_eq!(
            refusal.to_string(),
            "KM0401 changed static data: frobs (mm/frob.c:12): its initial value changed"
        );
    }

    #[test]
    fn a_place_without_a_line_prints_the_file() {
        assert_eq!(SourceLine { file: "mm/frob.c".into(), line: None }.to_string(), "mm/frob.c");
    }
}
