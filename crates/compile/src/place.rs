//! The place of a hunk in a file.
//!
//! Lines say where a hunk belongs, but kernel sources repeat themselves: compat code is a copy, drivers have a function for each
//! kind of device. A hunk that would fit at several places is decided by its heading, the text behind the second `@@`,
//! which is the last line before the hunk that begins a function: git's driver for C (userdiff.c, `cpp`) leaves out labels, GNU
//! diff's `-p` does not. A place where it only happens to fit would mend the wrong function.

use crate::apply::Line;
use std::collections::BTreeSet;

/// Where a hunk goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// At this line, from 0.
    At(usize),
    /// The lines stand nowhere.
    Nowhere,
    /// It could be any of these, or is not what its heading says; with the reason.
    Unsure { places: Vec<usize>, why: String },
}

/// What is known of a hunk beside its lines.
#[derive(Debug, Clone, Copy)]
pub struct Clues<'a> {
    /// The line at which it should be, from 0.
    pub expected: usize,
    /// Whether the hunks before it in the file stood where they said.
    pub is_exact: bool,
    /// The text behind the second `@@`.
    pub heading: &'a str,
    /// Whether it has lines of context.
    pub has_context: bool,
    /// How many of its lines are before the first change.
    pub lead: usize,
}

/// The place of `wanted`, not before `floor`.
pub fn place(lines: &[Line], wanted: &[&[u8]], floor: usize, clues: Clues<'_>) -> Place {
    let places = all_places(lines, wanted, floor, clues.expected);
    if places.is_empty() {
        return Place::Nowhere;
    }
    let headings = Headings::of(lines);
    let agrees = |at: &usize| headings.agree(*at, clues.heading);
    let unsure = |why: &str| Place::Unsure { places: places.clone(), why: why.to_owned() };
    if !clues.has_context {
        return without_context(&places, wanted, clues, &headings).map_or_else(|why| unsure(&why), Place::At);
    }
    let is_expected = places.contains(&clues.expected);
    let agreeing: Vec<usize> = places.iter().copied().filter(agrees).collect();
    match (places.as_slice(), agreeing.as_slice()) {
        ([at], [])
            if *at != clues.expected
                && !begins_function(wanted, clues)
                && headings.elsewhere(*at, clues.heading) =>
        {
            unsure("its lines stand in another function than its heading says")
        }
        ([at], _) | (_, [at]) => Place::At(*at),
        (_, [_, _, ..]) if agreeing.contains(&clues.expected) => Place::At(clues.expected),
        (_, []) if is_expected && clues.is_exact && !headings.elsewhere(clues.expected, clues.heading) => {
            Place::At(clues.expected)
        }
        _ if clues.heading.is_empty() => {
            unsure("its lines fit at more than one place, and it has no heading")
        }
        _ => unsure("its lines fit at more than one place, and its heading does not say which"),
    }
}

/// Whether a hunk changes a function that begins in it: then its heading is the function before.
fn begins_function(wanted: &[&[u8]], clues: Clues<'_>) -> bool {
    wanted.iter().take(clues.lead + 1).any(|line| is_start(line) && !is_label(line))
}

/// The heading that a hunk would have that begins at a line.
pub fn heading(lines: &[Line], at: usize) -> Option<String> {
    Headings::of(lines).at(at)
}

/// A hunk without context must be at the very line that it names, under its heading.
fn without_context(
    places: &[usize],
    wanted: &[&[u8]],
    clues: Clues<'_>,
    headings: &Headings<'_>,
) -> Result<usize, String> {
    let at = clues.expected;
    if !places.contains(&at) {
        return Err("it has no context, and its lines are not where it says".to_owned());
    }
    let here = headings.at(at);
    match (clues.heading.is_empty(), here) {
        (false, _) if headings.agree(at, clues.heading) => Ok(at),
        (false, Some(here)) => Err(format!("it has no context, and line {} belongs to `{here}`", at + 1)),
        (false, None) => Err(format!("it has no context, and line {} is before any function", at + 1)),
        (true, None) => Ok(at),
        (true, Some(_)) if !wanted.is_empty() && places.len() == 1 => Ok(at),
        (true, Some(_)) => Err("it has neither context nor a heading".to_owned()),
    }
}

/// All places of `wanted` from `floor` on, in order; nothing fits only where it is expected, or at the end.
pub fn all_places(lines: &[Line], wanted: &[&[u8]], floor: usize, expected: usize) -> Vec<usize> {
    places_of(
        lines.len(),
        wanted.len(),
        floor,
        expected,
        |line, index| lines.get(line).map(|line| line.bytes.as_slice()) == wanted.get(index).copied(),
        |one, other| wanted.get(one) == wanted.get(other),
    )
}

/// The same where white space does not count.
pub fn loose_places(lines: &[Line], wanted: &[&[u8]]) -> Vec<usize> {
    let tight = |line: &[u8]| -> Vec<u8> {
        line.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
    };
    let file: Vec<Vec<u8>> = lines.iter().map(|line| tight(&line.bytes)).collect();
    let wanted: Vec<Vec<u8>> = wanted.iter().map(|line| tight(line)).collect();
    if wanted.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    places_of(
        file.len(),
        wanted.len(),
        0,
        0,
        |line, index| file.get(line) == wanted.get(index),
        |one, other| wanted.get(one) == wanted.get(other),
    )
}

/// The search of Knuth, Morris and Pratt: linear, whatever lines a patch repeats.
fn places_of(
    length: usize,
    count: usize,
    floor: usize,
    expected: usize,
    fits: impl Fn(usize, usize) -> bool,
    repeats: impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    if count == 0 {
        return if (floor..=length).contains(&expected) { vec![expected] } else { Vec::new() };
    }
    // For each line that is wanted, how many lines before it are also the first ones.
    let mut back = vec![0usize; count];
    let mut known = 0;
    for at in 1..count {
        while known > 0 && !repeats(at, known) {
            known = back[known - 1];
        }
        known += usize::from(repeats(at, known));
        back[at] = known;
    }
    let (mut found, mut known) = (Vec::new(), 0);
    for line in floor..length {
        while known > 0 && (known == count || !fits(line, known)) {
            known = back[known - 1];
        }
        known += usize::from(fits(line, known));
        if known == count {
            found.push(line + 1 - count);
        }
    }
    found
}

/// The lines of a file that begin functions, in the order of the file.
struct Headings<'a> {
    /// The lines that git's driver takes.
    functions: Vec<(usize, &'a [u8])>,
    /// Those that GNU diff takes.
    all: Vec<(usize, &'a [u8])>,
}

impl<'a> Headings<'a> {
    fn of(lines: &'a [Line]) -> Self {
        let all = lines.iter().enumerate().map(|(at, line)| (at, line.bytes.trim_ascii_end()));
        let all: Vec<(usize, &[u8])> = all.filter(|(_, line)| is_start(line)).collect();
        let functions = all.iter().copied().filter(|(_, line)| !is_label(line)).collect();
        Self { functions, all }
    }

    fn last(headings: &[(usize, &'a [u8])], at: usize) -> Option<&'a [u8]> {
        let before = headings.partition_point(|(line, _)| *line < at);
        headings.get(before.checked_sub(1)?).map(|(_, line)| *line)
    }

    /// The heading of a hunk that begins at a line.
    fn at(&self, at: usize) -> Option<String> {
        Self::last(&self.functions, at).map(|line| String::from_utf8_lossy(line).into_owned())
    }

    /// Whether a hunk at this line has this heading.
    fn agree(&self, at: usize, heading: &str) -> bool {
        let lines: BTreeSet<&[u8]> = [&self.functions, &self.all]
            .into_iter()
            .filter_map(|headings| Self::last(headings, at))
            .collect();
        !heading.is_empty() && lines.into_iter().any(|line| is_same(line, heading))
    }

    /// Whether the heading is another's than that of a hunk at this line.
    fn elsewhere(&self, at: usize, heading: &str) -> bool {
        !heading.is_empty()
            && !self.agree(at, heading)
            && self.functions.iter().any(|(_, line)| is_same(line, heading))
    }
}

/// Whether a line begins as those do that GNU diff takes for a function's (`-p`, in diff.c).
fn is_start(line: &[u8]) -> bool {
    line.first().is_some_and(|&byte| byte.is_ascii_alphabetic() || byte == b'_' || byte == b'$')
}

/// A label of `goto` in the first column.
fn is_label(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let rest = line.get(name..).unwrap_or_default();
    rest.strip_prefix(b":").is_some_and(|rest| {
        let rest = rest.trim_ascii_start();
        rest.is_empty() || rest.starts_with(b"/")
    })
}

/// Whether a heading is this line, which may be longer (headings are cut), or names the same function: its parameters or its
/// kind may have changed between two versions of the source.
fn is_same(line: &[u8], heading: &str) -> bool {
    if line.starts_with(heading.trim_end().as_bytes()) {
        return true;
    }
    let line = String::from_utf8_lossy(line);
    matches!((function(&line), function(heading)), (Some(one), Some(other)) if one == other)
}

/// The function of a heading: the word before the first parenthesis, and for a macro such as `SYSCALL_DEFINE3` its first
/// argument as well.
fn function(heading: &str) -> Option<(String, String)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (before, after) = heading.split_once('(')?;
    let name = before.trim_end().rsplit(|c| !is_word(c)).next().filter(|name| !name.is_empty())?;
    let is_macro = !name.contains(|c: char| c.is_ascii_lowercase());
    let argument: String = after.trim_start().chars().take_while(|&c| is_word(c)).collect();
    Some((name.to_owned(), if is_macro { argument } else { String::new() }))
}

#[cfg(test)]
mod tests;
