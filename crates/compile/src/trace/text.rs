//! The text of C as far as hunks need it: without comments, by statement, by word, by conditional group.

use super::sides::Text;
use crate::apply::Line;
use crate::lexer::{Conditional, LineStart};
use std::collections::BTreeSet;

/// More lines than a statement has.
const LONGEST_STATEMENT: usize = 60;

/// What a line ends within.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Within {
    comment: bool,
    /// The quote that opened a text which a backslash continues.
    quote: Option<char>,
}

/// Each line without comments, and with single blanks outside of quotes; and what it ends within.
pub(super) fn code(lines: &[Line]) -> Vec<(String, Within)> {
    let mut within = Within::default();
    let mut each = |line: &Line| (code_of(&String::from_utf8_lossy(&line.bytes), &mut within), within);
    lines.iter().map(&mut each).collect()
}

fn code_of(line: &str, within: &mut Within) -> String {
    let mut left = String::new();
    let line = line.trim_end_matches(['\n', '\r']);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if within.comment {
            if c == '*' && chars.next_if_eq(&'/').is_some() {
                within.comment = false;
                blank(&mut left);
            }
            continue;
        }
        if let Some(open) = within.quote {
            left.push(c);
            if c == '\\' {
                left.extend(chars.next());
            } else if c == open {
                within.quote = None;
            }
            continue;
        }
        match c {
            '/' if chars.next_if_eq(&'*').is_some() => within.comment = true,
            '/' if chars.peek() == Some(&'/') => break,
            '"' | '\'' => {
                within.quote = Some(c);
                left.push(c);
            }
            c if c.is_whitespace() => blank(&mut left),
            c => left.push(c),
        }
    }
    if !line.ends_with('\\') {
        within.quote = None;
    }
    if within.quote.is_none() && left.ends_with(' ') {
        left.pop();
    }
    left
}

/// Adds a blank that is neither the first nor behind another.
fn blank(left: &mut String) {
    if !left.is_empty() && !left.ends_with(' ') {
        left.push(' ');
    }
}

/// Characters of which two in a row can be one token (C11, 6.4.6).
const JOINING: &str = "+-*/%&|^<>=!#.:";

/// What a compiler sees of lines of code: one text without blanks that no token needs. (Those between two characters that
/// could be one token stay: it may be said too seldom that only white space differs, and not too often.)
pub(super) fn seen(lines: &[(String, Within)]) -> String {
    let mut left = String::new();
    for (line, _) in lines.iter().filter(|(line, _)| !line.is_empty()) {
        blank(&mut left);
        left.push_str(line);
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == '"' || c == '\'';
    let (mut found, mut chars) = (String::with_capacity(left.len()), left.chars().peekable());
    let mut quote: Option<char> = None;
    while let Some(c) = chars.next() {
        if let Some(open) = quote {
            found.push(c);
            if c == '\\' {
                found.extend(chars.next());
            } else if c == open {
                quote = None;
            }
            continue;
        }
        let before = found.chars().next_back();
        let needed = match (before, chars.peek()) {
            (Some(before), Some(&next)) => {
                (is_word(before) && is_word(next)) || (JOINING.contains(before) && JOINING.contains(next))
            }
            _ => false,
        };
        if c == '"' || c == '\'' {
            quote = Some(c);
        }
        if c != ' ' || needed {
            found.push(c);
        }
    }
    found
}

/// Whether a line is a directive, or goes on with one; then its first line.
pub(super) fn directive(lines: &[Line], at: usize) -> Option<usize> {
    let continues =
        |at: usize| lines.get(at).is_some_and(|line| line.bytes.trim_ascii_end().ends_with(b"\\"));
    let mut first = at;
    while first > 0 && continues(first - 1) {
        first -= 1;
    }
    lines.get(first).filter(|line| line.bytes.trim_ascii_start().starts_with(b"#")).map(|_| first)
}

/// The name that a directive defines or takes back.
pub(super) fn defined(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('#')?.trim_start();
    words(rest.strip_prefix("define").or_else(|| rest.strip_prefix("undef"))?).next()
}

/// The identifiers of a line, and its numbers.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.split(move |c: char| !is_word(c)).filter(|word| !word.is_empty())
}

/// The lines of the statement that a line is in.
pub(super) fn statement(code: &[(String, Within)], at: usize) -> std::ops::Range<usize> {
    let ends = |at: usize| {
        let line = code.get(at).map_or("", |(line, _)| line.as_str());
        line.is_empty() || line.ends_with([';', '{', '}', ':']) || line.starts_with('#')
    };
    let mut first = at;
    while first > 0 && at - first < LONGEST_STATEMENT && !ends(first - 1) {
        first -= 1;
    }
    let mut last = at;
    while last < code.len() && last - at < LONGEST_STATEMENT && !ends(last) {
        last += 1;
    }
    first..(last + 1).min(code.len().max(at + 1))
}

/// The branches of conditional groups in a text, each by its lines without the directives around it.
pub(super) fn all_branches(starts: &[LineStart]) -> Vec<(usize, usize)> {
    // Of each open group: where its branch began.
    let mut open: Vec<usize> = Vec::new();
    let mut found = Vec::new();
    for (index, start) in starts.iter().enumerate() {
        match start.conditional {
            Some(Conditional::Open) => open.push(index + 1),
            Some(Conditional::Else) => {
                if let Some(first) = open.last_mut() {
                    found.push((*first, index));
                    *first = index + 1;
                }
            }
            Some(Conditional::Close) => found.extend(open.pop().map(|first| (first, index))),
            None => {}
        }
    }
    found.sort_unstable();
    found
}

/// The branches that a line is in, from the outermost, each by the original's numbers of its lines that have code.
pub(super) fn branches(text: &Text, at: usize) -> Vec<BTreeSet<u32>> {
    let around = text.branches.iter().filter(|&&(first, end)| first <= at && at < end);
    let with_code = |&(first, end): &(usize, usize)| -> BTreeSet<u32> {
        let has_code = |at: &usize| text.code.get(*at).is_some_and(|(line, _)| !line.is_empty());
        let lines = (first..end).filter(has_code).filter(|at| directive(&text.lines, *at).is_none());
        lines.filter_map(|at| text.lines.get(at)?.origin).collect()
    };
    around.map(with_code).collect()
}
