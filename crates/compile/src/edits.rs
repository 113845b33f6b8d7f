//! All patches together, applied to the files' contents in memory.

use crate::apply::{Applied, Line, apply, original_lines};
use crate::classify::{Kind, classify, unsupported};
use crate::patch::{self, FileDiff, Name, PatchFile};
use crate::session::Note;
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeMap;
use std::io;

/// Gives the contents of a file of the kernel's source, `None` if there is no such file.
pub type Read<'a> = &'a dyn Fn(&str) -> io::Result<Option<Vec<u8>>>;

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
}

/// Applies the patches one after the other.
pub fn edit(patches: &[PatchFile], read: Read<'_>) -> io::Result<Edits> {
    let mut edits = Edits::default();
    for patch in patches {
        match patch::parse(patch) {
            Ok(diffs) => diffs.iter().try_for_each(|diff| edits.take(&patch.name, diff, read))?,
            Err(refusal) => edits.refusals.push(refusal),
        }
    }
    Ok(edits)
}

impl Edits {
    fn take(&mut self, patch: &str, diff: &FileDiff, read: Read<'_>) -> io::Result<()> {
        let Some(path) = self.path_of(diff, read)? else { return Ok(()) };
        let kind = classify(&path);
        if kind == Kind::Skipped {
            self.note(&path, "is no part of a kernel: its hunks are passed over");
            return Ok(());
        }
        if diff.hunks.is_empty()
            && !diff.is_binary
            && !diff.is_rename
            && diff.old.is_some()
            && diff.new.is_some()
        {
            self.note(&path, "only its mode changes");
            return Ok(());
        }
        let refusal = match kind {
            Kind::Unsupported(code, why) => Some(unsupported(&path, code, why)),
            _ if diff.is_binary => {
                Some(unsupported(&path, Code::UnsupportedFile, "its difference is binary"))
            }
            _ if diff.is_copy => {
                let why =
                    "it is a copy of another file: write the patch without -C, so that its text is in it";
                Some(unsupported(&path, Code::UnsupportedFile, why))
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.refusals.push(refusal);
            return Ok(());
        }
        if let (true, Some(new)) = (diff.is_rename, &diff.new) {
            self.renamed.insert(path.clone(), new.stripped.clone());
        }
        self.apply(patch, &path, diff, read)
    }

    fn note(&mut self, path: &str, text: &str) {
        let note = Note { file: Some(path.to_owned()), text: text.to_owned() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The path of the file that a diff is about: the new name, or the old one if there is only a file of
    /// that; without the first component, or with it if there is only such a file (`git diff --no-prefix`).
    fn path_of(&mut self, diff: &FileDiff, read: Read<'_>) -> io::Result<Option<String>> {
        let new = diff.new.iter().filter(|_| !diff.is_rename);
        let names: Vec<&Name> = new.chain(&diff.old).collect();
        for name in &names {
            if self.exists(&name.stripped, read)? {
                return Ok(Some(name.stripped.clone()));
            }
        }
        for name in &names {
            let whole = name.whole.strip_prefix("./").unwrap_or(&name.whole);
            if self.exists(whole, read)? {
                self.note(whole, "is taken as named, without leaving out the first folder");
                return Ok(Some(whole.to_owned()));
            }
        }
        Ok(names.first().map(|name| name.stripped.clone()))
    }

    fn exists(&self, path: &str, read: Read<'_>) -> io::Result<bool> {
        match self.files.get(path) {
            Some(file) => Ok(file.lines.is_some() || file.original.is_some()),
            None => Ok(read(path)?.is_some()),
        }
    }

    fn apply(&mut self, patch: &str, path: &str, diff: &FileDiff, read: Read<'_>) -> io::Result<()> {
        if !self.files.contains_key(path) {
            let original = read(path)?;
            let lines = original.as_deref().map(original_lines);
            self.files.insert(path.to_owned(), Edited { original, lines });
        }
        let Some(file) = self.files.get_mut(path) else { return Ok(()) };
        // GNU diff -N names a new file on both sides, and tells by an empty range.
        let adds = diff.old.is_none()
            || (file.lines.is_none() && diff.hunks.first().is_some_and(|hunk| hunk.old_start == 0));
        let before = match (file.lines.take(), adds) {
            (Some(lines), true) => {
                let why = "the patch adds a file that is there already";
                self.refusals.push(Refusal::new(Code::PatchDoesNotApply, path, why).at(path, None));
                file.lines = Some(lines);
                return Ok(());
            }
            (None, false) => {
                let why = "there is no such file in this kernel's source";
                self.refusals.push(Refusal::new(Code::PatchDoesNotApply, path, why).at(path, None));
                return Ok(());
            }
            (None, true) => Vec::new(),
            (Some(lines), false) => lines,
        };
        let Applied { lines, notes, refusals } = apply(path, patch, before, &diff.hunks);
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
