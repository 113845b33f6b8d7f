//! Applying hunks to a file in memory.
//!
//! A hunk applies where all lines of its old side stand; where that is more than one place, [`crate::place`] tells which it is,
//! or that it is not certain: a hunk at the wrong place would mend the wrong function. Lines of its context are ignored
//! only if that is asked for ("fuzz"), and then each of them is told. Every hunk that does not apply is reported, not the first.
//!
//! Each line of the result knows which line of the original it is, for [`crate::lines`].

use crate::nearest::nearest;
use crate::patch::{Hunk, HunkLine, MOST_FUZZ};
use crate::place::{Clues, Place, all_places, heading, loose_places, place};
use kmend_refusal::{Code, Refusal};

/// A line of a patched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its bytes, with the line's end.
    pub bytes: Vec<u8>,
    /// Its number in the original file, from 1; `None` for a line that a patch added.
    pub origin: Option<u32>,
    /// The hunk that added it, by its place in [`crate::edits::Edits::hunks`].
    pub hunk: Option<usize>,
}

/// The lines of an original file.
pub fn original_lines(bytes: &[u8]) -> Vec<Line> {
    bytes
        .split_inclusive(|&byte| byte == b'\n')
        .zip(1..)
        .map(|(line, number)| Line { bytes: line.to_vec(), origin: Some(number), hunk: None })
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
    /// The lines of the original that hunks remove, with each the hunk.
    pub removed: Vec<(usize, u32)>,
}

/// What a file's hunks are applied with.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The file.
    pub path: &'a str,
    /// The patch's name.
    pub patch: &'a str,
    /// How many lines of context may differ at a hunk's ends.
    pub fuzz: usize,
    /// The place of the first hunk among those of all patches.
    pub first: usize,
}

/// Where the hunks after another are looked for.
struct Progress {
    /// Lines before this one belong to hunks already applied.
    floor: usize,
    /// How far the last hunk was from where it should be, in lines of the file as it is now.
    drift: i64,
    /// Whether all hunks so far stood where they said.
    is_exact: bool,
}

/// Applies `hunks` in their order to `lines`.
pub fn apply(subject: Subject<'_>, lines: Vec<Line>, hunks: &[Hunk]) -> Applied {
    let mut applied = Applied { lines, notes: Vec::new(), refusals: Vec::new(), removed: Vec::new() };
    let mut progress = Progress { floor: 0, drift: 0, is_exact: true };
    for hunk in hunks {
        applied.hunk(subject, hunk, &mut progress);
    }
    applied
}

impl Applied {
    fn hunk(&mut self, subject: Subject<'_>, hunk: &Hunk, progress: &mut Progress) {
        let sides = Sides::of(hunk);
        let expected = sides.expected(hunk, progress.drift);
        let mut found = (Place::Nowhere, Trim::default());
        for fuzz in 0..=subject.fuzz.min(MOST_FUZZ).min(sides.context()) {
            let trim = sides.trim(fuzz);
            let wanted = sides.wanted(trim);
            if fuzz > 0 && wanted.is_empty() {
                break;
            }
            let clues = Clues {
                expected: expected + trim.before,
                is_exact: progress.is_exact,
                heading: hunk.heading(),
                has_context: sides.has_context(trim),
                lead: sides.lead - trim.before,
            };
            found = (place(&self.lines, wanted, progress.floor, clues), trim);
            if found.0 != Place::Nowhere {
                break;
            }
        }
        let (at, trim) = match found {
            (Place::At(at), trim) => (at, trim),
            (Place::Nowhere, _) => {
                return self.refusals.push(refuse(subject, &self.lines, hunk, &sides, expected));
            }
            (Place::Unsure { places, why }, _) => {
                return self.refusals.push(refuse_unsure(subject, hunk, &self.lines, &places, why));
            }
        };
        self.tell(subject, hunk, &sides, (at, trim), expected);
        let moved = at as i64 - (expected + trim.before) as i64;
        let end = at + sides.wanted(trim).len();
        let kept = hunk.lines.get(trim.before..hunk.lines.len() - trim.after).unwrap_or_default();
        let id = subject.first + hunk.number.saturating_sub(1);
        let new = merge(self.lines.get(at..end).unwrap_or_default(), kept, id, &mut self.removed);
        progress.floor = at + new.len();
        progress.drift += moved + new.len() as i64 - (end - at) as i64;
        progress.is_exact &= moved == 0 && trim == Trim::default();
        self.lines.splice(at..end, new);
    }

    /// Notes that a hunk stands at another line, or with other context than it says.
    fn tell(
        &mut self,
        subject: Subject<'_>,
        hunk: &Hunk,
        sides: &Sides<'_>,
        (at, trim): (usize, Trim),
        expected: usize,
    ) {
        let what = format!("hunk {} of {}", hunk.number, subject.patch);
        let moved = at as i64 - (expected + trim.before) as i64;
        if moved != 0 {
            self.notes.push(format!(
                "{what} applied at line {}, {} line{} {} than it says",
                at + 1 - trim.before.min(at),
                moved.abs(),
                if moved.abs() == 1 { "" } else { "s" },
                if moved > 0 { "later" } else { "earlier" }
            ));
        }
        let after = sides.old.len() - trim.after;
        for index in (0..trim.before).chain(after..sides.old.len()) {
            let line = (at + index).checked_sub(trim.before);
            let here = line.and_then(|line| self.lines.get(line)).map(|line| line.bytes.as_slice());
            let wanted = sides.old.get(index).copied().unwrap_or_default();
            if here != Some(wanted) {
                let found = here.map_or("nothing".to_owned(), |here| format!("`{}`", show(here)));
                let number = line.map_or(0, |line| line + 1);
                self.notes.push(format!(
                    "{what} applied with fuzz: line {number} should be `{}` and is {found}",
                    show(wanted)
                ));
            }
        }
    }
}

/// How many lines of context are left out at a hunk's ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Trim {
    before: usize,
    after: usize,
}

struct Sides<'a> {
    old: Vec<&'a [u8]>,
    new: Vec<&'a [u8]>,
    /// How many lines of context it begins and ends with.
    lead: usize,
    trail: usize,
    removed: usize,
}

impl<'a> Sides<'a> {
    fn of(hunk: &'a Hunk) -> Self {
        let is_context = |line: &&HunkLine| matches!(line, HunkLine::Context(_));
        let lead = hunk.lines.iter().take_while(is_context).count();
        let trail = hunk.lines.iter().rev().take_while(is_context).count();
        let mut sides = Self { old: Vec::new(), new: Vec::new(), lead, trail, removed: 0 };
        for line in &hunk.lines {
            match line {
                HunkLine::Context(line) => {
                    sides.old.push(line);
                    sides.new.push(line);
                }
                HunkLine::Removed(line) => {
                    sides.old.push(line);
                    sides.removed += 1;
                }
                HunkLine::Added(line) => sides.new.push(line),
            }
        }
        sides
    }

    /// How much context GNU patch takes it to have.
    fn context(&self) -> usize {
        self.lead.max(self.trail)
    }

    /// What `fuzz` leaves out, as GNU patch counts (patch.c, `locate_hunk`): where one end has less context than the
    /// other, that much less of it.
    fn trim(&self, fuzz: usize) -> Trim {
        let of = |lines: usize| (fuzz + lines).saturating_sub(self.context());
        Trim { before: of(self.lead), after: of(self.trail).min(self.old.len() - of(self.lead)) }
    }

    fn wanted(&self, trim: Trim) -> &[&'a [u8]] {
        self.old.get(trim.before..self.old.len() - trim.after).unwrap_or_default()
    }

    /// Whether any context is left. A file that is all new, or all removed, needs none.
    fn has_context(&self, trim: Trim) -> bool {
        self.wanted(trim).len() > self.removed
    }

    /// The index of the line at which the hunk should apply.
    fn expected(&self, hunk: &Hunk, drift: i64) -> usize {
        // With no old lines the header names the line after which to insert.
        let start =
            if self.old.is_empty() { i64::from(hunk.old_start) } else { i64::from(hunk.old_start) - 1 };
        (start + drift).max(0) as usize
    }
}

/// The new lines in the place of `old`, context lines with the numbers they had.
fn merge(old: &[Line], lines: &[HunkLine], id: usize, removed: &mut Vec<(usize, u32)>) -> Vec<Line> {
    let mut old = old.iter();
    let mut new = Vec::with_capacity(lines.len());
    for line in lines {
        match line {
            HunkLine::Context(_) => new.extend(old.next().cloned()),
            HunkLine::Removed(_) => {
                let origin = old.next().and_then(|line| line.origin);
                removed.extend(origin.map(|origin| (id, origin)));
            }
            HunkLine::Added(bytes) => new.push(Line { bytes: bytes.clone(), origin: None, hunk: Some(id) }),
        }
    }
    new
}

fn refuse(
    Subject { path, patch, .. }: Subject<'_>,
    lines: &[Line],
    hunk: &Hunk,
    sides: &Sides<'_>,
    expected: usize,
) -> Refusal {
    let subject = format!("hunk {} of {path}", hunk.number);
    let header = format!("{patch}:{}: {}", hunk.patch_line, hunk.header);
    let refusal =
        |why: &str, line: u32| Refusal::new(Code::PatchDoesNotApply, &subject, why).at(path, Some(line));
    let nearest_of = |places: Vec<usize>| places.into_iter().min_by_key(|at| at.abs_diff(expected));
    let new_there = nearest_of(all_places(lines, &sides.new, 0, expected)).filter(|_| !sides.new.is_empty());
    if let Some(at) = new_there {
        let why = "what it would write is there already: the patch seems to be applied, and there is nothing to mend (or to build with --reverse)";
        return refusal(why, at as u32 + 1).with_details(vec![header]);
    }
    let file: Vec<&[u8]> = lines.iter().map(|line| line.bytes.as_slice()).collect();
    if let Some(at) = nearest_of(loose_places(lines, &sides.old)) {
        let mut pairs = sides.old.iter().zip(file.get(at..).unwrap_or_default()).zip(at..);
        let why = "only white space differs: the lines that it expects are there with other blanks, tabs or line ends";
        let Some(((wanted, found), number)) = pairs.find(|((wanted, found), _)| wanted != found) else {
            return refusal(why, at as u32 + 1).with_details(vec![header]);
        };
        return refusal(why, number as u32 + 1).with_details(vec![
            header,
            format!("expected: {}", show_blanks(wanted)),
            format!("found:    {}", show_blanks(found)),
        ]);
    }
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

/// How many places a refusal names.
const NAMED_PLACES: usize = 8;

fn refuse_unsure(
    Subject { path, patch, .. }: Subject<'_>,
    hunk: &Hunk,
    lines: &[Line],
    places: &[usize],
    why: String,
) -> Refusal {
    let header = format!("{patch}:{}: {}", hunk.patch_line, hunk.header);
    let fits = places.iter().take(NAMED_PLACES).map(|&at| {
        let function = heading(lines, at).map(|line| format!(", in `{line}`")).unwrap_or_default();
        format!("fits at line {}{function}", at + 1)
    });
    let details = [header].into_iter().chain(fits).collect();
    let subject = format!("hunk {} of {path}", hunk.number);
    Refusal::new(Code::AmbiguousHunk, subject, why).at(path, Some(hunk.old_start)).with_details(details)
}

/// A line with its white space made visible.
fn show_blanks(line: &[u8]) -> String {
    let text = show(line).replace('\t', "\\t");
    let (before, end) = text.split_at(text.trim_end_matches(' ').len());
    format!("{before}{}", "\\x20".repeat(end.len()))
}

fn show(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let shown = text.strip_suffix('\n').map_or_else(|| format!("{text} (without a line end)"), str::to_owned);
    shown.replace('\r', "\\r")
}

#[cfg(test)]
mod tests;
