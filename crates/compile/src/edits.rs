//! All patches together, applied to the files' contents in memory.

use crate::apply::{Applied, Line, Subject, apply, original_lines};
use crate::belongs::Part;
use crate::error::CompileError;
use crate::patch::{self, FileDiff, HunkLine, Name, PatchFile};
use crate::session::{NOT_BUILT, Note};
use kmend_refusal::{Code, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// What is asked of a kernel.
pub trait Source {
    /// The contents of a file of its source, `None` if there is no such file.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, CompileError>;

    /// What a file is to it; whether the source has it, and whether the patch adds it.
    fn part(&self, path: &str, is_there: bool, adds: bool) -> Result<Part, CompileError>;
}

/// A file as the patches leave it.
#[derive(Debug)]
pub struct Edited {
    /// Its original contents; `None` for a file that a patch adds.
    pub original: Option<Vec<u8>>,
    /// Its lines now; `None` for a file that a patch removes.
    pub lines: Option<Vec<Line>>,
}

/// What the patches come to.
#[derive(Debug, Default)]
pub struct Edits {
    /// The files that are part of a kernel, by path from the tree's root; renamed ones by their old path.
    pub files: BTreeMap<String, Edited>,
    /// The new paths of renamed files, by the old ones.
    pub renamed: BTreeMap<String, String>,
    /// What is worth telling.
    pub notes: Vec<Note>,
    /// Every reason to decline.
    pub refusals: Vec<Refusal>,
    /// Whether only the modes of files change.
    pub only_modes: bool,
    /// The sources that this kernel's build compiles no object from.
    pub absent: Vec<String>,
    /// All hunks of all patches, in their order.
    pub hunks: Vec<GivenHunk>,
    /// The lines of originals that hunks remove, with each the hunk.
    pub removed: Vec<(usize, u32)>,
    /// The last parts of the names in the `#include` lines that patches add.
    pub includes: BTreeSet<String>,
}

/// A hunk as it was given.
#[derive(Debug, Clone)]
pub struct GivenHunk {
    /// The patch's name.
    pub patch: String,
    /// The line of the patch that holds its header, from 1.
    pub patch_line: u32,
    /// Its number among those of its file in the patch.
    pub number: usize,
    /// Its header.
    pub header: String,
    /// The file, by the path that [`Edits::files`] has it by, or would.
    pub file: String,
    /// Why it is passed over, if it is.
    pub passed: Option<String>,
}

/// Applies the patches one after the other.
pub fn edit(patches: &[PatchFile], source: &dyn Source) -> Result<Edits, CompileError> {
    let mut edits = Edits { only_modes: true, ..Edits::default() };
    let mut is_any = false;
    let parsed: Vec<_> = patches.iter().map(|patch| (patch, patch::parse(patch))).collect();
    for (_, parsed) in &parsed {
        edits.includes.extend(parsed.iter().flat_map(|parsed| &parsed.diffs).flat_map(included_names));
    }
    for (patch, parsed) in parsed {
        match parsed {
            Ok(parsed) => {
                is_any |= !parsed.diffs.is_empty();
                for subject in parsed.letters {
                    let text = format!("the mail `{subject}` holds no diff, and is passed over");
                    edits.note(&patch.name, &text);
                }
                let patch = Given { patch, is_whole: edits.is_whole(patch, &parsed.diffs, source)? };
                parsed.diffs.iter().try_for_each(|diff| edits.take(patch, diff, source))?;
            }
            Err(refusal) => {
                is_any = true;
                edits.refusals.push(refusal);
            }
        }
    }
    if !is_any {
        let names: Vec<&str> = patches.iter().map(|patch| patch.name.as_str()).collect();
        let why = "it holds no unified diff, only letters";
        edits.refusals.push(Refusal::new(Code::PatchFormat, names.join(", "), why));
    }
    Ok(edits)
}

/// A patch, and how its names are read.
#[derive(Clone, Copy)]
struct Given<'a> {
    patch: &'a PatchFile,
    /// Whether its names have no folder in front (`git diff --no-prefix`).
    is_whole: bool,
}

/// Where a file of a patch lies.
enum Found {
    /// The path by which [`Edits::files`] has it, or would.
    At(String),
    /// Nowhere; with the path that was looked for.
    Nowhere(String),
}

impl Edits {
    fn take(&mut self, given: Given<'_>, diff: &FileDiff, source: &dyn Source) -> Result<(), CompileError> {
        let (path, is_there) = match self.path_of(given, diff, source)? {
            Found::At(path) => (path, true),
            Found::Nowhere(path) => (path, false),
        };
        let only_mode = diff.hunks.is_empty()
            && !diff.is_binary
            && !diff.is_rename
            && !diff.is_copy
            && diff.old.is_some()
            && diff.new.is_some();
        if only_mode {
            self.note(&path, "only its mode changes: that is nothing to a kernel");
            return Ok(());
        }
        self.only_modes = false;
        let refuse = |code, why: &str| Refusal::new(code, &path, why).at(&path, None);
        let part = match source.part(&path, is_there, adds(diff))? {
            // What nothing of this kernel uses so far, something can use with the patches.
            Part::Nothing(_) | Part::NotBuilt if is_there && self.is_newly_included(&path) => Part::Text,
            part => part,
        };
        let refusal = match part {
            Part::Nothing(why) => {
                self.note(&path, &format!("is passed over: {why}"));
                self.give(given, diff, &path, Some(why));
                return Ok(());
            }
            Part::NotBuilt => {
                self.give(given, diff, &path, Some(NOT_BUILT.to_owned()));
                self.absent.push(path);
                return Ok(());
            }
            Part::Refused(code, why) => Some(refuse(code, &why)),
            Part::Text if diff.is_binary => Some(refuse(Code::UnsupportedFile, "its difference is binary")),
            Part::Text if diff.is_copy => {
                let why =
                    "it is a copy of another file: write the patch without -C, so that its text is in it";
                Some(refuse(Code::UnsupportedFile, why))
            }
            Part::Text => None,
        };
        if let Some(refusal) = refusal {
            self.refusals.push(refusal);
            return Ok(());
        }
        if !is_there && !adds(diff) {
            return self.refuse_missing(given, diff, &path, source);
        }
        if let (true, Some(new)) = (diff.is_rename, &diff.new)
            && !self.rename(&path, given.name(new), source)?
        {
            return Ok(());
        }
        self.give(given, diff, &path, None);
        self.apply(given.patch, &path, diff, source)
    }

    /// Whether a line that the patches add may include a file.
    pub fn is_newly_included(&self, path: &str) -> bool {
        path.rsplit('/').next().is_some_and(|name| self.includes.contains(name))
    }

    /// Notes the hunks of a diff.
    fn give(&mut self, given: Given<'_>, diff: &FileDiff, path: &str, passed: Option<String>) {
        self.hunks.extend(diff.hunks.iter().map(|hunk| GivenHunk {
            patch: given.patch.name.clone(),
            patch_line: hunk.patch_line,
            number: hunk.number,
            header: hunk.header.clone(),
            file: path.to_owned(),
            passed: passed.clone(),
        }));
    }

    fn note(&mut self, path: &str, text: &str) {
        let note = Note { file: Some(path.to_owned()), text: text.to_owned() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Whether the names of a patch are whole paths: those of files that exist say so, and new ones follow them.
    fn is_whole(
        &self,
        patch: &PatchFile,
        diffs: &[FileDiff],
        source: &dyn Source,
    ) -> Result<bool, CompileError> {
        if patch.depth.is_some() {
            return Ok(false);
        }
        let mut is_whole = false;
        for name in diffs.iter().filter_map(|diff| diff.old.as_ref()) {
            if self.exists(&name.stripped, source)? {
                return Ok(false);
            }
            is_whole |= self.exists(whole(name), source)?;
        }
        Ok(is_whole)
    }

    /// The file that a diff is about: the new name, or the old one if there is only a file of that.
    fn path_of(
        &mut self,
        given: Given<'_>,
        diff: &FileDiff,
        source: &dyn Source,
    ) -> Result<Found, CompileError> {
        let new = diff.new.iter().filter(|_| !diff.is_rename && !diff.is_copy);
        let names: Vec<&Name> = new.chain(&diff.old).collect();
        for name in &names {
            let path = given.name(name);
            if self.exists(path, source)? {
                if given.is_whole && diff.old.is_some() {
                    self.note(path, "is taken as named, without leaving out the first folder");
                }
                return Ok(Found::At(self.key(path).to_owned()));
            }
        }
        Ok(Found::Nowhere(names.first().map_or_else(String::new, |name| given.name(name).to_owned())))
    }

    /// The path by which [`Self::files`] has a file: for one that a patch renamed, the old one.
    fn key<'p>(&'p self, path: &'p str) -> &'p str {
        self.renamed.iter().find(|(_, new)| *new == path).map_or(path, |(old, _)| old)
    }

    fn exists(&self, path: &str, source: &dyn Source) -> Result<bool, CompileError> {
        if self.renamed.values().any(|new| new == path) {
            return Ok(true);
        }
        if self.renamed.contains_key(path) {
            return Ok(false);
        }
        match self.files.get(path) {
            Some(file) => Ok(file.lines.is_some() || file.original.is_some()),
            None => Ok(source.read(path)?.is_some()),
        }
    }

    /// Notes that a file has another name from here on; says whether it can.
    fn rename(&mut self, old: &str, new: &str, source: &dyn Source) -> Result<bool, CompileError> {
        let new = new.to_owned();
        if self.key(&new) != old && (self.exists(&new, source)? || self.files.contains_key(&new)) {
            let why = format!("the patch gives it the name {new}, which another file has");
            self.refusals.push(Refusal::new(Code::PatchDoesNotApply, old, why).at(old, None));
            return Ok(false);
        }
        if new == old {
            self.renamed.remove(old);
        } else {
            self.renamed.insert(old.to_owned(), new);
        }
        Ok(true)
    }

    /// Refuses a diff of a file that is not there, with the depth at which there is one.
    fn refuse_missing(
        &mut self,
        given: Given<'_>,
        diff: &FileDiff,
        path: &str,
        source: &dyn Source,
    ) -> Result<(), CompileError> {
        let mut details = Vec::new();
        for name in diff.old.iter().chain(&diff.new) {
            let whole = whole(name);
            let starts = std::iter::once(0).chain(whole.match_indices('/').map(|(at, _)| at + 1));
            for (depth, start) in starts.enumerate() {
                let candidate = whole.get(start..).unwrap_or_default();
                if details.is_empty() && self.exists(candidate, source)? {
                    details.push(format!("with -p{depth} it is {candidate}"));
                }
            }
        }
        let why = if details.is_empty() {
            "there is no such file in this kernel's source"
        } else {
            "there is no such file in this kernel's source, but one if its name loses another number of folders"
        };
        let place = format!("{}:{}: `{}`", given.patch.name, diff.patch_line, diff.shown_name());
        let details = [place].into_iter().chain(details).collect();
        let refusal = Refusal::new(Code::PatchDoesNotApply, path, why).at(path, None);
        self.refusals.push(refusal.with_details(details));
        Ok(())
    }

    fn apply(
        &mut self,
        patch: &PatchFile,
        path: &str,
        diff: &FileDiff,
        source: &dyn Source,
    ) -> Result<(), CompileError> {
        if !self.files.contains_key(path) {
            let original = source.read(path)?;
            let lines = original.as_deref().map(original_lines);
            self.files.insert(path.to_owned(), Edited { original, lines });
        }
        let Some(file) = self.files.get_mut(path) else { return Ok(()) };
        let adds = diff.old.is_none() || (file.lines.is_none() && is_addition(diff));
        let before = match (file.lines.take(), adds) {
            (Some(lines), true) => {
                let why = if self.renamed.contains_key(path) {
                    "the patch adds a file under the name of one that it renames"
                } else {
                    "the patch adds a file that is there already"
                };
                self.refusals.push(Refusal::new(Code::PatchDoesNotApply, path, why).at(path, None));
                file.lines = Some(lines);
                return Ok(());
            }
            (None, false) => {
                let why = "an earlier patch has removed the file";
                self.refusals.push(Refusal::new(Code::PatchDoesNotApply, path, why).at(path, None));
                return Ok(());
            }
            (None, true) => Vec::new(),
            (Some(lines), false) => lines,
        };
        let first = self.hunks.len() - diff.hunks.len();
        let subject = Subject { path, patch: &patch.name, fuzz: patch.fuzz, first };
        let Applied { lines, notes, refusals, removed } = apply(subject, before, &diff.hunks);
        self.removed.extend(removed);
        let is_removed = diff.new.is_none() && refusals.is_empty();
        if is_removed && !lines.is_empty() {
            let why = "the patch removes the file, but not all of its lines";
            self.refusals.push(Refusal::new(Code::PatchDoesNotApply, path, why).at(path, None));
        }
        file.lines = (!is_removed).then_some(lines);
        self.refusals.extend(refusals);
        self.notes.extend(notes.into_iter().map(|text| Note { file: Some(path.to_owned()), text }));
        Ok(())
    }
}

impl Given<'_> {
    fn name<'n>(&self, name: &'n Name) -> &'n str {
        if self.is_whole { whole(name) } else { &name.stripped }
    }
}

/// The last parts of the names that the added lines of a diff include.
fn included_names(diff: &FileDiff) -> Vec<String> {
    let lines = diff.hunks.iter().flat_map(|hunk| &hunk.lines);
    let added = lines.filter_map(|line| match line {
        HunkLine::Added(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    });
    let name = |line: String| -> Option<String> {
        let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?.trim_start();
        let end = match rest.chars().next()? {
            '<' => '>',
            '"' => '"',
            _ => return None,
        };
        Some(rest[1..].split(end).next()?.rsplit('/').next()?.to_owned())
    };
    added.filter_map(name).collect()
}

/// A name as it stands in the patch.
fn whole(name: &Name) -> &str {
    name.whole.strip_prefix("./").unwrap_or(&name.whole)
}

/// Whether a diff adds a file.
fn adds(diff: &FileDiff) -> bool {
    diff.old.is_none() || is_addition(diff)
}

/// Whether a diff writes a file from nothing: GNU diff -N names a new file on both sides, and tells by an empty range.
fn is_addition(diff: &FileDiff) -> bool {
    diff.hunks.first().is_some_and(|hunk| hunk.old_start == 0)
}

#[cfg(test)]
mod tests;
