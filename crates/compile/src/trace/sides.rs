//! The text of a file before and after, and what a hunk changes in it.

use super::Change;
use super::text::{Within, all_branches, branches, code, defined, directive, seen, statement, words};
use crate::apply::{Line, original_lines};
use crate::edits::Edited;
use crate::lexer::{LineStart, line_starts};
use crate::lines::numbered;
use crate::touched::{enclosing, extent};
use std::collections::BTreeSet;
use std::ops::Range;

/// One version of a file.
pub(super) struct Text {
    pub(super) lines: Vec<Line>,
    pub(super) code: Vec<(String, Within)>,
    pub(super) starts: Vec<LineStart>,
    /// The branches of its conditional groups.
    pub(super) branches: Vec<(usize, usize)>,
}

impl Text {
    fn of(lines: Vec<Line>) -> Text {
        let starts = line_starts(lines.iter().map(|line| line.bytes.as_slice()));
        let branches = all_branches(&starts);
        Text { code: code(&lines), starts, branches, lines }
    }

    /// What the lines end within.
    fn within(&self, end: usize) -> Within {
        end.checked_sub(1)
            .and_then(|at| self.code.get(at))
            .map_or_else(Within::default, |(_, within)| *within)
    }

    /// Whether a line says what is compiled.
    fn is_condition(&self, at: usize) -> bool {
        self.starts.get(at).is_some_and(|start| start.conditional.is_some())
    }
}

/// Both texts of a file.
pub(super) struct Sides {
    original: Text,
    patched: Text,
    /// The numbers that the compiler has for the patched lines.
    numbers: Vec<u32>,
}

impl Sides {
    pub(super) fn of(file: &Edited) -> Sides {
        let patched = file.lines.clone().unwrap_or_default();
        let numbers = numbered(&patched).1;
        let original = original_lines(file.original.as_deref().unwrap_or_default());
        Sides { original: Text::of(original), patched: Text::of(patched), numbers }
    }

    /// What a hunk changes; `None` if nothing is left of it.
    pub(super) fn change(&self, id: usize, removed: &[(usize, u32)]) -> Option<Change> {
        let own = removed.iter().filter(|(of, _)| *of == id).filter_map(|(_, line)| line.checked_sub(1));
        let removed: Vec<usize> =
            own.map(|line| line as usize).filter(|&at| at < self.original.lines.len()).collect();
        let lines = self.patched.lines.iter().enumerate();
        let added: Vec<usize> = lines.filter(|(_, line)| line.hunk == Some(id)).map(|(at, _)| at).collect();
        if removed.is_empty() && added.is_empty() {
            return None;
        }
        let mut change =
            Change { is_directive: true, is_space: self.is_space(&removed, &added), ..Change::default() };
        let before = added.first().and_then(|&at| self.original_before(at).checked_sub(1));
        for at in if removed.is_empty() { before.into_iter().collect() } else { removed.clone() } {
            change.original.extend(statement(&self.original.code, at).map(|at| at as u32 + 1));
            place(&self.original, at, removed.contains(&at), &mut change);
            change.bodies.0.extend(body(&self.original.lines, at).map(|at| at as u32 + 1));
        }
        let behind = removed.last().map(|&at| self.patched_behind(at));
        let behind = behind.filter(|&at| at < self.patched.lines.len());
        for at in if added.is_empty() { behind.into_iter().collect() } else { added.clone() } {
            let number = |at| self.numbers.get(at).copied();
            change.patched.extend(statement(&self.patched.code, at).filter_map(number));
            place(&self.patched, at, added.contains(&at), &mut change);
            change.bodies.1.extend(body(&self.patched.lines, at).filter_map(number));
        }
        let changes_conditions = removed.iter().any(|&at| self.original.is_condition(at))
            || added.iter().any(|&at| self.patched.is_condition(at));
        if !changes_conditions {
            let has_code =
                |text: &Text, at: usize| text.code.get(at).is_some_and(|(line, _)| !line.is_empty());
            let of = |text: &Text, lines: &[usize]| -> BTreeSet<_> {
                lines.iter().filter(|&&at| has_code(text, at)).map(|&at| branches(text, at)).collect()
            };
            change.branches = of(&self.original, &removed);
            change.branches.extend(of(&self.patched, &added));
        }
        Some(change)
    }

    /// How many lines of the original come before a patched line.
    fn original_before(&self, patched: usize) -> usize {
        let mut before = self.patched.lines.get(..patched).unwrap_or_default().iter().rev();
        before.find_map(|line| line.origin).unwrap_or(0) as usize
    }

    /// The first patched line that is behind a line of the original.
    fn patched_behind(&self, original: usize) -> usize {
        let is_behind = |line: &Line| line.origin.is_some_and(|origin| origin as usize > original + 1);
        self.patched.lines.iter().position(is_behind).unwrap_or(self.patched.lines.len())
    }

    /// Whether a compiler sees the same in all lines from the first to the last that a hunk changes, and behind them.
    fn is_space(&self, removed: &[usize], added: &[usize]) -> bool {
        let range = |places: Vec<Range<usize>>| {
            let start = places.iter().map(|range| range.start).min().unwrap_or(0);
            start..places.iter().map(|range| range.end).max().unwrap_or(0)
        };
        let whole = |lines: &[usize]| lines.iter().map(|&at| at..at + 1).collect::<Vec<_>>();
        let point = |at: usize| at..at;
        let mut original = whole(removed);
        original.extend(added.iter().map(|&at| point(self.original_before(at))));
        let mut patched = whole(added);
        patched.extend(removed.iter().map(|&at| point(self.patched_behind(at))));
        let (original, patched) = (range(original), range(patched));
        let lines = |text: &Text, range: &Range<usize>| -> Vec<(String, Within)> {
            text.code.get(range.clone()).unwrap_or_default().to_vec()
        };
        let has_directive =
            |text: &Text, range: &Range<usize>| range.clone().any(|at| directive(&text.lines, at).is_some());
        let (one, other) = (lines(&self.original, &original), lines(&self.patched, &patched));
        // To a directive, ends of lines and the blank behind a macro's name have a meaning.
        let is_same = if has_directive(&self.original, &original) || has_directive(&self.patched, &patched) {
            one.iter().map(|(line, _)| line).eq(other.iter().map(|(line, _)| line))
        } else {
            seen(&one) == seen(&other)
        };
        is_same
            && self.original.within(original.start) == self.patched.within(patched.start)
            && self.original.within(original.end) == self.patched.within(patched.end)
    }
}

/// Adds the function that a line is in, or the words of what it is part of outside of functions.
fn place(text: &Text, at: usize, is_changed: bool, change: &mut Change) {
    if !is_changed || text.code.get(at).is_none_or(|(line, _)| line.is_empty()) {
        return;
    }
    if let Some(first) = directive(&text.lines, at) {
        let define = text.code.get(first).and_then(|(line, _)| defined(line));
        change.names.extend(define.map(str::to_owned));
    } else {
        change.is_directive = false;
    }
    let functions = enclosing(&text.lines, at);
    if functions.is_empty() {
        let mut lines: BTreeSet<usize> = statement(&text.code, at).collect();
        lines.extend(extent(&text.lines, at).into_iter().flat_map(|extent| extent.head..=extent.open));
        let lines = lines.into_iter().filter_map(|at| text.code.get(at));
        change.words.extend(lines.flat_map(|(line, _)| words(line)).map(str::to_owned));
        if directive(&text.lines, at).is_none() {
            change.names.extend(declared(text, at).into_iter().map(str::to_owned));
        }
    }
    change.functions.extend(functions.into_iter().map(|function| function.name));
}

/// What a line outside of functions declares: of an initialized variable and of a function the name, and all words of the members
/// of a type.
fn declared(text: &Text, at: usize) -> Vec<&str> {
    let Some((line, _)) = text.code.get(at) else { return Vec::new() };
    let head = extent(&text.lines, at).map(|extent| extent.head..extent.open + 1).unwrap_or_default();
    let head = text.code.get(head).unwrap_or_default().iter().map(|(line, _)| line.as_str());
    let initialized = head.chain([line.as_str()]).find_map(|line| Some(line.split_once('=')?.0));
    if let Some(variable) = initialized {
        return words(variable.split('[').next().unwrap_or_default()).last().into_iter().collect();
    }
    match line.split_once('(') {
        Some((function, _)) => words(function).last().into_iter().collect(),
        None => words(line).filter(|word| !word.starts_with(|c: char| c.is_ascii_digit())).collect(),
    }
}

/// The lines of the function that a line is in.
fn body(lines: &[Line], at: usize) -> Range<usize> {
    let is_function = !enclosing(lines, at).is_empty();
    extent(lines, at).filter(|_| is_function).map_or(0..0, |extent| extent.open..extent.close + 1)
}
