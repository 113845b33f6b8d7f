//! Edits of a real source whose right outcome is known.
//!
//! An operator looks for a place where it applies and says what it does there, and what must never come of it. What it
//! cannot know (which functions the compiler has put the place into, whether it is compiled at all), another program says of
//! the objects ([`super::listing`]).

mod attributes;
mod code;
mod contents;
mod names;
mod tables;

use super::edit::{Edit, patch};
use super::random::Random;
use super::source::{Function, Source};
use anyhow::{Result, ensure};
use kmend_compile::PatchFile;

/// An edit with its expected outcome.
pub(super) struct Operator {
    /// In one word, for tables and for the command line.
    pub(super) name: &'static str,
    /// What is right where the objects differ.
    pub(super) expected: Expected,
    /// Whether kmend comes up to it: what it does not yet is tried by `cargo xtask selfcheck`, and not by the tests.
    pub(super) holds: bool,
    /// Does it; `None` where it does not apply.
    pub(super) edit: fn(&Place<'_>, &mut Random) -> Option<Change>,
}

/// What is right, if the edit reaches the object at all. A refusal is always safe; where it is not expected, it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// The code is the same to whoever runs it: nothing changes, but for functions whose code differs.
    Nothing,
    /// Functions change, and are exchanged.
    Changed,
    /// What runs cannot be changed so.
    Refused,
}

/// Where an operator may look.
pub(super) struct Place<'a> {
    pub(super) source: &'a Source,
    /// Another source of the same folder and the same module, or the image.
    pub(super) neighbour: Option<&'a Source>,
}

/// What an operator does.
#[derive(Default)]
pub(super) struct Change {
    edits: Vec<Edit>,
    /// Of the neighbour.
    beside: Vec<Edit>,
    /// What is done, in words.
    pub(super) what: String,
    /// What must never come of it.
    pub(super) claims: Claims,
}

/// What the one who made the edit knows.
#[derive(Default)]
pub(super) struct Claims {
    /// Bytes that are new: if they are in the patched object, they are in the module.
    pub(super) ships: Option<Vec<u8>>,
    /// A function that must be there for the edit to mean anything: one that is inlined everywhere has no memory.
    pub(super) exists: Option<String>,
    /// Names that stand for what lives in the kernel: the module defines none of them.
    pub(super) lives: Vec<String>,
    /// Functions that are not redirected: what runs of them is gone.
    pub(super) gone: Vec<String>,
    /// The old name of a variable: if nobody writes to it, another one of the same value does as well.
    pub(super) renamed: Option<String>,
    /// The variable of the kernel to whose end new code must lead.
    pub(super) ends: Option<String>,
}

impl Change {
    fn new(what: impl Into<String>) -> Self {
        Change { what: what.into(), ..Change::default() }
    }

    /// Puts lines before a line.
    fn insert(mut self, at: usize, text: &str) -> Self {
        self.edits.push(Edit { at, added: lines(text), replaces: false });
        self
    }

    /// Exchanges a line.
    fn replace(mut self, at: usize, text: &str) -> Self {
        self.edits.push(Edit { at, added: lines(text), replaces: true });
        self
    }

    /// Puts lines before a line of the neighbour.
    fn insert_beside(mut self, at: usize, text: &str) -> Self {
        self.beside.push(Edit { at, added: lines(text), replaces: false });
        self
    }

    fn lives(mut self, name: &str) -> Self {
        self.claims.lives.push(name.to_owned());
        self
    }

    /// The patch.
    pub(super) fn patch(mut self, place: &Place<'_>) -> PatchFile {
        let of = |source: &Source, edits: &mut Vec<Edit>| {
            edits.sort_by_key(|edit| edit.at);
            let lines: Vec<&[u8]> = source.lines.iter().map(String::as_bytes).collect();
            patch(&source.path, &lines, edits)
        };
        let mut whole = of(place.source, &mut self.edits);
        if let Some(neighbour) = place.neighbour.filter(|_| !self.beside.is_empty()) {
            whole.bytes.extend(of(neighbour, &mut self.beside).bytes);
        }
        whole
    }
}

fn lines(text: &str) -> Vec<String> {
    text.split_inclusive('\n').map(str::to_owned).collect()
}

/// A statement at the beginning of a function, as a declaration: one may stand before others.
fn at_the_start(function: &Function, statement: &str) -> (usize, String) {
    (function.body.start, format!("\tint kmend_selfcheck __maybe_unused = ({{ {statement}; 0; }});\n"))
}

/// One of those that fit.
fn one_of<'a, T>(all: &'a [T], random: &mut Random, fits: impl Fn(&T) -> bool) -> Option<&'a T> {
    let fitting: Vec<&T> = all.iter().filter(|one| fits(one)).collect();
    random.one_of(&fitting).copied()
}

/// How an operator looks for its place.
type Edits = fn(&Place<'_>, &mut Random) -> Option<Change>;

const fn row(name: &'static str, expected: Expected, edit: Edits) -> Operator {
    Operator { name, expected, holds: true, edit }
}

/// One that kmend does not come up to yet.
const fn open(name: &'static str, expected: Expected, edit: Edits) -> Operator {
    Operator { name, expected, holds: false, edit }
}

/// All operators.
#[rustfmt::skip]
pub(super) const TABLE: &[Operator] = &[
    row("string", Expected::Changed, contents::string),
    row("wide-string", Expected::Changed, contents::wide_string),
    row("constant-data", Expected::Refused, contents::constant_data),
    row("writable-data", Expected::Refused, contents::writable_data),
    row("const-dropped", Expected::Refused, attributes::const_dropped),
    row("const-added", Expected::Refused, attributes::const_added),
    row("ro-after-init", Expected::Refused, attributes::ro_after_init),
    row("read-mostly", Expected::Nothing, attributes::read_mostly),
    row("read-mostly-dropped", Expected::Nothing, attributes::read_mostly_dropped),
    row("per-cpu", Expected::Refused, attributes::per_cpu),
    row("init-dropped", Expected::Nothing, attributes::init_dropped),
    row("init-added", Expected::Refused, attributes::init_added),
    row("noinstr", Expected::Changed, attributes::noinstr),
    row("attribute-only", Expected::Nothing, attributes::maybe_unused),
    row("static-local-added", Expected::Changed, names::static_local_added),
    row("statics-swapped", Expected::Nothing, names::statics_swapped),
    row("static-locals-swapped", Expected::Nothing, names::static_locals_swapped),
    row("static-renamed", Expected::Refused, names::static_renamed),
    row("function-moved", Expected::Nothing, names::function_moved),
    row("variable-moved", Expected::Nothing, names::variable_moved),
    row("alias-added", Expected::Nothing, names::alias_added),
    row("weak-added", Expected::Nothing, names::weak_added),
    row("weak-dropped", Expected::Nothing, names::weak_dropped),
    row("weak-overridden", Expected::Changed, names::weak_overridden),
    row("extern-to-static", Expected::Refused, names::extern_to_static),
    row("export-to-gpl", Expected::Nothing, tables::export_to_gpl),
    row("export-dropped", Expected::Nothing, tables::export_dropped),
    row("btf-entry-dropped", Expected::Refused, tables::btf_entry_dropped),
    row("once-exchanged", Expected::Changed, tables::once_exchanged),
    open("end-of-array", Expected::Changed, code::end_of_array),
    row("noreturn-call", Expected::Changed, code::noreturn_call),
    row("inline-dropped", Expected::Changed, code::inline_dropped),
];

/// An error that lists all names, if there is no operator of this one.
pub(super) fn check_name(name: &str) -> Result<()> {
    let names: Vec<&str> = TABLE.iter().map(|operator| operator.name).collect();
    ensure!(names.contains(&name), "the operators are {}", names.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SOURCE: &str = include_str!("operators/example.c");
    const NEIGHBOUR: &str = include_str!("operators/neighbour.c");

    #[test]
    fn every_operator_applies_to_the_example() {
        let source = Source::of("a.c", SOURCE.as_bytes()).unwrap();
        let neighbour = Source::of("b.c", NEIGHBOUR.as_bytes()).unwrap();
        let place = Place { source: &source, neighbour: Some(&neighbour) };
        for operator in TABLE {
            let mut random = Random::new(1, "", operator.name);
            let change = (operator.edit)(&place, &mut random);
            let change = change.unwrap_or_else(|| panic!("{} does not apply", operator.name));
            assert!(!change.what.is_empty(), "{}", operator.name);
            let patch = String::from_utf8(change.patch(&place).bytes).unwrap();
            let is_edit = |line: &str| {
                (line.starts_with('+') && !line.starts_with("+++"))
                    || (line.starts_with('-') && !line.starts_with("---"))
            };
            assert!(patch.lines().any(is_edit), "{}:\n{patch}", operator.name);
        }
    }

    #[test]
    fn no_operator_applies_to_nothing() {
        let source = Source::of("a.c", b"int f(void);\n").unwrap();
        let place = Place { source: &source, neighbour: None };
        assert!(TABLE.iter().all(|operator| (operator.edit)(&place, &mut Random::new(1, "", "")).is_none()));
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = TABLE.iter().map(|operator| operator.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }
}
