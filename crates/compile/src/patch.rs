//! Unified diffs, as `git diff`, `git format-patch` and `diff -u` write them.
//!
//! Format: POSIX.1-2017 `diff`, "Diff -u Output Format", and git's diff-format documentation ("Generating
//! patch text with -p") for the headers that git adds. Sources of the kernel are not all UTF-8, so lines are
//! bytes. Text before, between and after the diffs (a mail's) is passed over, but nothing that looks like a change: a
//! context or combined diff, lines that a hunk's header does not count, a mail of several that holds no diff.

mod mail;
mod reader;

use kmend_refusal::{Code, Refusal};
use reader::Reader;
use std::borrow::Cow;

pub use mail::subject;
pub use reader::ranges;

/// The most lines of context that may be left out, as in GNU patch, whose hunks have three by default.
pub const MOST_FUZZ: usize = 3;

/// A patch as it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatchFile {
    /// What to call it in messages.
    pub name: String,
    /// Its contents.
    pub bytes: Vec<u8>,
    /// How many first folders of its names are left out (`-p`); `None` for one, or none where only that fits.
    pub depth: Option<usize>,
    /// How many lines of context may differ at a hunk's ends, as GNU patch counts; at most [`MOST_FUZZ`].
    pub fuzz: usize,
}

impl PatchFile {
    /// A patch that is applied as it is by default.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> PatchFile {
        PatchFile { name: name.into(), bytes: bytes.into(), ..PatchFile::default() }
    }

    /// Its text, with the transfer encodings of mails undone.
    pub(crate) fn text(&self) -> Result<Cow<'_, [u8]>, Refusal> {
        mail::decoded(&self.bytes)
            .map_err(|why| Refusal::new(Code::PatchFormat, &self.name, why).at(&self.name, None))
    }
}

/// What a patch holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The diffs, in their order.
    pub diffs: Vec<FileDiff>,
    /// Mails in it that hold none and need none: cover letters and answers, by their subjects.
    pub letters: Vec<String>,
}

/// The part of a patch that is about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiff {
    /// The name before; `None` for a new file.
    pub old: Option<Name>,
    /// The name after; `None` for a deleted file.
    pub new: Option<Name>,
    /// The line of the patch at which it begins, from 1.
    pub patch_line: u32,
    /// Whether git says that the file was renamed.
    pub is_rename: bool,
    /// Whether git says that the file was copied.
    pub is_copy: bool,
    /// Whether the difference is binary and so not in the text.
    pub is_binary: bool,
    /// The hunks, in the file's order.
    pub hunks: Vec<Hunk>,
}

impl FileDiff {
    /// The file's name as it stands in the patch.
    pub fn shown_name(&self) -> &str {
        self.old.as_ref().or(self.new.as_ref()).map_or("", |name| &name.whole)
    }
}

/// A file's name in a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Without the first component, as `patch -p1` takes it, or without as many as were asked for.
    pub stripped: String,
    /// As it stands there.
    pub whole: String,
}

/// A hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunk {
    /// Its number in its file, from 1.
    pub number: usize,
    /// The header (`@@ -1,2 +1,3 @@ function`).
    pub header: String,
    /// The line of the patch that holds the header, from 1.
    pub patch_line: u32,
    /// The first line of the old side, from 1; with no old lines, the line after which it inserts.
    pub old_start: u32,
    /// The first line of the new side, likewise.
    pub new_start: u32,
    /// The lines.
    pub lines: Vec<HunkLine>,
}

impl Hunk {
    /// What the header has behind the second `@@`: the function that the hunk begins in, as the one who wrote it saw it.
    pub fn heading(&self) -> &str {
        self.header.splitn(3, "@@").nth(2).unwrap_or_default().trim()
    }
}

/// A line of a hunk, with its end (`\n`, unless the file ends without one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HunkLine {
    /// On both sides.
    Context(Vec<u8>),
    /// On the old side.
    Removed(Vec<u8>),
    /// On the new side.
    Added(Vec<u8>),
}

/// Reads a patch; what cannot be read is a refusal with its line.
pub fn parse(patch: &PatchFile) -> Result<Parsed, Refusal> {
    let text = patch.text()?;
    let mut reader = Reader::new(patch, &text);
    let mut parsed = Parsed::default();
    let mails = mail::mails(&text);
    for mail in &mails {
        let before = parsed.diffs.len();
        reader.enter(mail.lines.clone());
        while let Some(diff) = reader.next_diff()? {
            parsed.diffs.push(diff);
        }
        if parsed.diffs.len() > before {
            continue;
        }
        match &mail.subject {
            Some(subject) if mail::needs_no_diff(subject) => parsed.letters.push(subject.clone()),
            Some(subject) if mails.len() > 1 => {
                return Err(reader.refuse(format!("the mail `{subject}` in it holds no diff")));
            }
            _ => return Err(reader.refuse("it holds no unified diff")),
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests;
