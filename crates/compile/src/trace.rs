//! What each hunk changes in the texts: which lines, in which functions, or nothing that a compiler sees.
//!
//! What it comes to in the objects is found by who has these ([`crate::Outcome::hunks`]). Like [`crate::touched`], this trusts
//! the kernel's coding style for where functions begin and end.

mod sides;
mod text;

use crate::adopt::is_makefile;
use crate::edits::{Edits, GivenHunk};
use crate::kconfig::is_kconfig;
use sides::Sides;
use std::collections::{BTreeMap, BTreeSet};
pub use text::words;

/// A hunk, and what becomes of it in the texts.
#[derive(Debug, Clone)]
pub struct Hunk {
    /// The patch's name.
    pub patch: String,
    /// The line of the patch that holds its header, from 1.
    pub patch_line: u32,
    /// Its number among those of its file in the patch, from 1.
    pub number: usize,
    /// Its header.
    pub header: String,
    /// The file, from the tree's root; a renamed one by its old path.
    pub file: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a hunk in the texts.
#[derive(Debug, Clone)]
pub enum Fate {
    /// No compiler sees it; with the reason.
    Unseen(String),
    /// It changes a text that units may be compiled from.
    Changes(Change),
}

/// What a hunk changes in a text.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The lines of the original that it removes, or behind which it adds, with the statements around them.
    pub original: BTreeSet<u32>,
    /// The lines that it adds, or behind which it removes, likewise, by the numbers that the compiler has for them.
    pub patched: BTreeSet<u32>,
    /// The functions that it is in, by their names in the source.
    pub functions: BTreeSet<String>,
    /// All lines of these functions, in the original and as patched.
    pub bodies: (BTreeSet<u32>, BTreeSet<u32>),
    /// Words outside of functions in what it changes: in the statement, or in the head of an initializer.
    pub words: BTreeSet<String>,
    /// Words outside of functions in the changed lines alone; of a macro only the name. What uses one of them may change.
    pub names: BTreeSet<String>,
    /// Whether all that it changes are directives.
    pub is_directive: bool,
    /// Whether only comments and white space change.
    pub is_space: bool,
    /// For each line, the conditional groups that it is in, from the outermost: the lines of the original with code in the
    /// same branch. Empty if the hunk changes the conditions themselves.
    pub branches: BTreeSet<Vec<BTreeSet<u32>>>,
}

/// What each hunk changes. `unreached` are patched files that no unit of the kernel is compiled from, with the reasons.
pub fn trace(edits: &Edits, unreached: &BTreeMap<String, String>) -> Vec<Hunk> {
    let mut sides = BTreeMap::new();
    let hunks = edits.hunks.iter().enumerate();
    hunks
        .map(|(id, given)| Hunk {
            patch: given.patch.clone(),
            patch_line: given.patch_line,
            number: given.number,
            header: given.header.clone(),
            file: given.file.clone(),
            fate: fate(edits, id, given, unreached, &mut sides),
        })
        .collect()
}

fn fate<'a>(
    edits: &'a Edits,
    id: usize,
    given: &'a GivenHunk,
    unreached: &BTreeMap<String, String>,
    known: &mut BTreeMap<&'a str, Sides>,
) -> Fate {
    let unseen = |why: &str| Fate::Unseen(why.to_owned());
    if let Some(why) = given.passed.as_ref().or_else(|| unreached.get(&given.file)) {
        return unseen(why);
    }
    if is_makefile(&given.file) {
        return unseen("it lists units, whose sources have hunks of their own, or says nothing to the build");
    }
    if is_kconfig(&given.file) {
        return unseen("only words for people change");
    }
    let moved = edits.renamed.get(&given.file).and_then(|new| edits.files.get(new));
    let Some(file) = edits.files.get(&given.file).or(moved) else {
        return unseen("the file is as it was when all patches are applied");
    };
    let sides = known.entry(&given.file).or_insert_with(|| Sides::of(file));
    match sides.change(id, &edits.removed) {
        Some(change) => Fate::Changes(change),
        None => unseen("other patches of the series take out again, or write anew, what it changes"),
    }
}

#[cfg(test)]
mod tests;
