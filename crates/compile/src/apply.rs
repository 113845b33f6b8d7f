//! Applying hunks to a file in memory.
//!
//! A hunk applies where all lines of its old side stand, at the place it names or else nearest to it (as
//! GNU patch and git do it), but never with some of its context ignored ("fuzz"): a hunk at the wrong place
//! would mend the wrong function. Every hunk that does not apply is reported, not the first.
//!
//! Each line of the result knows which line of the original it is, for [`crate::lines`].

use crate::nearest::nearest;
use crate::patch::{Hunk, HunkLine};
use kmend_refusal::{Code, Refusal};

/// A line of a patched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its bytes, with the line's end.
    pub bytes: Vec<u8>,
    /// Its number in the original file, from 1; `None` for a line that a patch added.
    pub origin: Option<u32>,
}

/// The lines of an original file.
pub fn original_lines(bytes: &[u8]) -> Vec<Line> {
    bytes
        .split_inclusive(|&byte| byte == b'\n')
        .zip(1..)
        .map(|(line, number)| Line { bytes: line.to_vec(), origin: Some(number) })
        .collect()
}

/// What applying a file's hunks came to.
#[derive(Debug)]
pub struct Applied {
    /// The patched lines; those of hunks that did not apply are as they were.
    pub lines: Vec<Line>,
    /// What is worth telling: hunks that applied elsewhere than they said.
    pub notes: Vec<String>,
    /// A refusal for every hunk that does not apply.
    pub refusals: Vec<Refusal>,
}

/// Applies `hunks` in their order to `lines` of the file at `path`; `patch` names the patch.
pub fn apply(path: &str, patch: &str, lines: Vec<Line>, hunks: &[Hunk]) -> Applied {
    let mut applied = Applied { lines, notes: Vec::new(), refusals: Vec::new() };
    // Lines before this one belong to hunks already applied.
    let mut floor = 0usize;
    // How far the last hunk was from where it should be, in lines of the file as it is now.
    let mut drift = 0i64;
    for hunk in hunks {
        let sides = Sides::of(hunk);
        let expected = sides.expected(hunk, drift);
        let Some(at) = find(&applied.lines, &sides.old, expected, floor) else {
            applied.refusals.push(refuse(path, patch, &applied.lines, hunk, &sides, expected));
            continue;
        };
        if at != expected {
            let moved = at as i64 - expected as i64;
            drift += moved;
            applied.notes.push(format!(
                "hunk {} of {patch} applied at line {}, {} line{} {} than it says",
                hunk.number,
                at + 1,
                moved.abs(),
                if moved.abs() == 1 { "" } else { "s" },
                if moved > 0 { "later" } else { "earlier" }
            ));
        }
        let end = at + sides.old.len();
        let new = merge(applied.lines.get(at..end).unwrap_or_default(), hunk);
        let added = new.len();
        applied.lines.splice(at..end, new);
        drift += added as i64 - sides.old.len() as i64;
        floor = at + added;
    }
    applied
}

struct Sides<'a> {
    old: Vec<&'a [u8]>,
    new: Vec<&'a [u8]>,
}

impl<'a> Sides<'a> {
    fn of(hunk: &'a Hunk) -> Self {
        let mut sides = Self { old: Vec::new(), new: Vec::new() };
        for line in &hunk.lines {
            match line {
                HunkLine::Context(line) => {
                    sides.old.push(line);
                    sides.new.push(line);
                }
                HunkLine::Removed(line) => sides.old.push(line),
                HunkLine::Added(line) => sides.new.push(line),
            }
        }
        sides
    }

    /// The index of the line at which the hunk should apply.
    fn expected(&self, hunk: &Hunk, drift: i64) -> usize {
        // With no old lines the header names the line after which to insert.
        let start =
            if self.old.is_empty() { i64::from(hunk.old_start) } else { i64::from(hunk.old_start) - 1 };
        (start + drift).max(0) as usize
    }
}

/// The place of `wanted`, nearest to `expected` and not before `floor`.
fn find(lines: &[Line], wanted: &[&[u8]], expected: usize, floor: usize) -> Option<usize> {
    let last = lines.len().checked_sub(wanted.len())?;
    if wanted.is_empty() {
        return (expected <= last && expected >= floor).then_some(expected);
    }
    let first = wanted.first()?;
    let fits = |at: usize| {
        lines.get(at).is_some_and(|line| line.bytes == *first)
            && lines
                .get(at..at + wanted.len())
                .is_some_and(|here| here.iter().zip(wanted).all(|(a, b)| a.bytes == *b))
    };
    // Nearest to a place beyond the ends is nearest to the end.
    let middle = (floor <= last).then(|| expected.clamp(floor, last))?;
    (0..=last - floor).find_map(|distance| {
        let later = middle.checked_add(distance).filter(|&at| at <= last && fits(at));
        let earlier = || middle.checked_sub(distance).filter(|&at| at >= floor && fits(at));
        later.or_else(earlier)
    })
}

/// The new lines in the place of `old`, context lines with the numbers they had.
fn merge(old: &[Line], hunk: &Hunk) -> Vec<Line> {
    let mut old = old.iter();
    let mut new = Vec::with_capacity(hunk.lines.len());
    for line in &hunk.lines {
        match line {
            HunkLine::Context(_) => new.extend(old.next().cloned()),
            HunkLine::Removed(_) => drop(old.next()),
            HunkLine::Added(bytes) => new.push(Line { bytes: bytes.clone(), origin: None }),
        }
    }
    new
}

fn refuse(
    path: &str,
    patch: &str,
    lines: &[Line],
    hunk: &Hunk,
    sides: &Sides<'_>,
    expected: usize,
) -> Refusal {
    let subject = format!("hunk {} of {path}", hunk.number);
    let header = format!("{patch}:{}: {}", hunk.patch_line, hunk.header);
    let refusal =
        |why: &str, line: u32| Refusal::new(Code::PatchDoesNotApply, &subject, why).at(path, Some(line));
    let new_there = if sides.new.is_empty() { None } else { find(lines, &sides.new, expected, 0) };
    if let Some(at) = new_there {
        let why = "what it would write is there already: the patch seems to be applied";
        return refusal(why, at as u32 + 1).with_details(vec![header]);
    }
    let file: Vec<&[u8]> = lines.iter().map(|line| line.bytes.as_slice()).collect();
    let Some(near) = nearest(&file, &sides.old, expected) else {
        let why = "none of the lines that it expects are in the file";
        return refusal(why, hunk.old_start).with_details(vec![header]);
    };
    let number = near.start + near.differs + 1;
    let expected = sides.old.get(near.differs).map_or_else(String::new, |line| show(line));
    let found =
        file.get(near.start + near.differs).map_or("the end of the file".to_owned(), |line| show(line));
    let why = "the lines that it expects are not in the file";
    refusal(why, number as u32).with_details(vec![
        header,
        format!("nearest match at line {}; the first difference is in line {number}", near.start + 1),
        format!("expected: {expected}"),
        format!("found:    {found}"),
    ])
}

fn show(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let shown = text.strip_suffix('\n').map_or_else(|| format!("{text} (without a line end)"), str::to_owned);
    shown.replace('\r', "\\r")
}

#[cfg(test)]
mod tests;
