//! Reads the diffs of a patch, line by line.

use super::{FileDiff, Hunk, HunkLine, Name, PatchFile};
use kmend_refusal::{Code, Refusal};
use std::ops::Range;

/// Lines without their ends.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines
}

/// Where in a patch the reading is.
pub struct Reader<'a> {
    patch: &'a PatchFile,
    lines: Vec<&'a [u8]>,
    at: usize,
    /// The end of what is read now.
    end: usize,
}

impl<'a> Reader<'a> {
    /// Reads the decoded text of `patch`.
    pub fn new(patch: &'a PatchFile, text: &'a [u8]) -> Self {
        let lines = split(text);
        let end = lines.len();
        Self { patch, lines, at: 0, end }
    }

    /// Goes to one mail of the patch, by its lines.
    pub fn enter(&mut self, lines: Range<usize>) {
        self.end = lines.end.min(self.lines.len());
        self.at = lines.start.min(self.end);
    }

    /// The line `ahead` of the current one as it stands there.
    fn raw(&self, ahead: usize) -> Option<&'a [u8]> {
        self.lines.get(self.at + ahead).copied().filter(|_| self.at + ahead < self.end)
    }

    /// The line `ahead` of the current one, without a carriage return: for headers, in which it is never meant.
    fn line(&self, ahead: usize) -> Option<&'a [u8]> {
        self.raw(ahead).map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// A refusal at the current line.
    pub fn refuse(&self, why: impl Into<String>) -> Refusal {
        let line = self.at.min(self.end.saturating_sub(1)) as u32 + 1;
        Refusal::new(Code::PatchFormat, &self.patch.name, why).at(&self.patch.name, Some(line))
    }

    /// The next file's part, or `None` at the patch's end.
    pub fn next_diff(&mut self) -> Result<Option<FileDiff>, Refusal> {
        while let Some(line) = self.line(0) {
            if line.starts_with(b"diff --git ") {
                return self.git_diff().map(Some);
            }
            if self.is_file_header() {
                return self.plain_diff().map(Some);
            }
            if let Some(why) = other_diff(line, self.line(1)) {
                return Err(self.refuse(why));
            }
            self.at += 1;
        }
        Ok(None)
    }

    /// Whether `--- ` and `+++ ` stand here; a removed line that starts with `-- ` is passed as part of a hunk.
    fn is_file_header(&self) -> bool {
        self.line(0).is_some_and(|line| line.starts_with(b"--- "))
            && self.line(1).is_some_and(|line| line.starts_with(b"+++ "))
    }

    fn plain_diff(&mut self) -> Result<FileDiff, Refusal> {
        let patch_line = self.at as u32 + 1;
        let (old, new) = self.file_header()?;
        let hunks = self.hunks()?;
        // GNU diff -N writes a missing file's name with the epoch as its time and no line.
        Ok(FileDiff { old, new, patch_line, is_rename: false, is_copy: false, is_binary: false, hunks })
    }

    /// Both names, from `--- ` and `+++ `.
    fn file_header(&mut self) -> Result<(Option<Name>, Option<Name>), Refusal> {
        let old = self.name(self.line(0).unwrap_or_default(), 4)?;
        self.at += 1;
        let new = self.name(self.line(0).unwrap_or_default(), 4)?;
        self.at += 1;
        if old.is_none() && new.is_none() {
            return Err(self.refuse("both names are /dev/null"));
        }
        Ok((old, new))
    }

    fn git_diff(&mut self) -> Result<FileDiff, Refusal> {
        let first = self.line(0).unwrap_or_default();
        let mut diff = FileDiff {
            old: None,
            new: None,
            patch_line: self.at as u32 + 1,
            is_rename: false,
            is_copy: false,
            is_binary: false,
            hunks: Vec::new(),
        };
        (diff.old, diff.new) = self.git_names(first)?;
        let (mut is_new, mut is_deleted, mut is_mode) = (false, false, false);
        // Whether what git says of the contents needs hunks.
        let mut has_contents = false;
        self.at += 1;
        while let Some(line) = self.line(0) {
            if self.is_file_header() {
                (diff.old, diff.new) = self.file_header()?;
                diff.hunks = self.hunks()?;
                break;
            }
            match line {
                line if line.starts_with(b"new file mode ") => is_new = true,
                line if line.starts_with(b"deleted file mode ") => is_deleted = true,
                line if line.starts_with(b"rename ") || line.starts_with(b"copy ") => {
                    (diff.is_rename, diff.is_copy) =
                        (line.starts_with(b"rename "), line.starts_with(b"copy "));
                    // These names have no first component to leave out (git's diff-format documentation).
                    let (which, name) = line.split_at(memchr::memmem::find(line, b" from ").map_or_else(
                        || memchr::memmem::find(line, b" to ").map_or(line.len(), |at| at + b" to ".len()),
                        |at| at + b" from ".len(),
                    ));
                    let folder: &[u8] = if self.patch.depth == Some(0) { b"" } else { b"x/" };
                    let name = self.name(&[folder, name].concat(), 0)?;
                    if which.ends_with(b" from ") {
                        diff.old = name;
                    } else if which.ends_with(b" to ") {
                        diff.new = name;
                    }
                }
                line if line.starts_with(b"GIT binary patch") || line.starts_with(b"Binary files ") => {
                    diff.is_binary = true;
                }
                line if line.starts_with(b"new mode ") => is_mode = true,
                line if line.starts_with(b"index ") => has_contents = !is_of_nothing(line),
                line if line.starts_with(b"similarity index ") => {
                    has_contents |= line != b"similarity index 100%";
                }
                line if is_extended_header(line) => {}
                _ => break,
            }
            self.at += 1;
        }
        if is_new {
            diff.old = None;
        }
        if is_deleted {
            diff.new = None;
        }
        if diff.old.is_none() && diff.new.is_none() {
            return Err(self.refuse("the diff names no file"));
        }
        let says_something = is_new || is_deleted || is_mode || diff.is_rename || diff.is_copy;
        if diff.hunks.is_empty() && !diff.is_binary && (has_contents || !says_something) {
            return Err(self.refuse("a file's diff ends before its hunks"));
        }
        Ok(diff)
    }

    /// The names of `diff --git a/NAME b/NAME`. Where they are not quoted they can hold spaces, so the line is
    /// split in the middle: git writes it so only when both names are one (git apply does the same). Renames
    /// have lines of their own.
    fn git_names(&self, line: &[u8]) -> Result<(Option<Name>, Option<Name>), Refusal> {
        let rest = line.get(b"diff --git ".len()..).unwrap_or_default();
        let middle = rest.len() / 2;
        let (old, new) = if rest.get(middle) == Some(&b' ') {
            rest.split_at(middle)
        } else {
            rest.split_at(rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len()))
        };
        let old = self.name(old, 0)?;
        let new = self.name(new.get(1..).unwrap_or_default(), 0)?;
        Ok((old, new))
    }

    /// A name from `skip` on: up to a tab (a time follows), unquoted if quoted; `None` for `/dev/null`.
    fn name(&self, line: &[u8], skip: usize) -> Result<Option<Name>, Refusal> {
        let rest = line.get(skip..).unwrap_or_default();
        let bytes = if rest.first() == Some(&b'"') {
            unquote(rest).ok_or_else(|| self.refuse("a quoted file name is not closed"))?
        } else {
            rest.split(|&byte| byte == b'\t').next().unwrap_or_default().trim_ascii_end().to_vec()
        };
        let whole = String::from_utf8(bytes).map_err(|_| self.refuse("a file name is not UTF-8"))?;
        if whole == "/dev/null" {
            return Ok(None);
        }
        let stripped = match self.patch.depth {
            None => whole.split_once('/').map_or(whole.as_str(), |(_, rest)| rest),
            Some(depth) => whole.splitn(depth + 1, '/').nth(depth).ok_or_else(|| {
                self.refuse(format!("`{whole}` has less than {depth} folders, which -p{depth} leaves out"))
            })?,
        };
        let stripped = stripped.to_owned();
        let is_inside = |path: &str| {
            !path.starts_with('/')
                && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
                && !path.contains(['\0', '\\'])
        };
        if !is_inside(&stripped) || !is_inside(whole.strip_prefix("./").unwrap_or(&whole)) {
            return Err(self.refuse(format!("`{whole}` is no path inside the kernel's tree")));
        }
        Ok(Some(Name { stripped, whole }))
    }

    fn hunks(&mut self) -> Result<Vec<Hunk>, Refusal> {
        let mut hunks = Vec::new();
        loop {
            let line = self.line(0).unwrap_or_default();
            if line.starts_with(b"@@ -") {
                hunks.push(self.hunk(hunks.len() + 1)?);
                self.nothing_left_over()?;
            } else if line.trim_ascii_start().starts_with(b"@@") {
                return Err(self.refuse(format!("`{}` is no hunk header", String::from_utf8_lossy(line))));
            } else {
                break;
            }
        }
        if hunks.is_empty() {
            return Err(self.refuse("a file's header is followed by no hunk"));
        }
        Ok(hunks)
    }

    /// Refuses lines behind a hunk that look like more of it: its header counts too few, and they would be lost.
    fn nothing_left_over(&self) -> Result<(), Refusal> {
        let Some(line) = self.line(0) else { return Ok(()) };
        // The end of a mail (`-- `), of a commit in a mail (`---`), and the next file's header.
        let is_end =
            line == b"--" || line == b"-- " || (line.len() >= 3 && line.iter().all(|byte| *byte == b'-'));
        // What is left of `-- ` where a program took a dash away, or turned the signs of a patch round.
        let is_torn_end = line == b"- " || line == b"+- ";
        let is_other = is_end || is_torn_end || self.is_file_header();
        if !is_other && matches!(line.first(), Some(b'+' | b'-')) {
            return Err(self.refuse("a line of a hunk stands behind the lines that the hunk's header counts"));
        }
        Ok(())
    }

    fn hunk(&mut self, number: usize) -> Result<Hunk, Refusal> {
        let raw = self.raw(0).unwrap_or_default();
        // A patch that went through a system with such line ends has them in its headers too.
        let has_returns = raw.ends_with(b"\r");
        let header = String::from_utf8_lossy(self.line(0).unwrap_or_default()).into_owned();
        let Some(((old_start, mut old), (new_start, mut new))) = ranges(&header) else {
            return Err(self.refuse(format!("`{header}` is no hunk header")));
        };
        let patch_line = self.at as u32 + 1;
        self.at += 1;
        let mut lines: Vec<HunkLine> = Vec::new();
        loop {
            let raw = self.raw(0);
            if raw.is_some_and(|line| line.starts_with(b"\\")) {
                if let Some(HunkLine::Context(line) | HunkLine::Removed(line) | HunkLine::Added(line)) =
                    lines.last_mut()
                {
                    line.pop_if(|byte| *byte == b'\n');
                }
                self.at += 1;
                continue;
            }
            if old == 0 && new == 0 {
                break;
            }
            let Some(raw) = raw else { return Err(self.refuse("the patch ends inside a hunk")) };
            let raw = if has_returns { raw.strip_suffix(b"\r").unwrap_or(raw) } else { raw };
            // Mail programs strip the blank from an empty context line.
            let (kind, text) = raw.split_first().map_or((b' ', raw), |(&kind, text)| (kind, text));
            let line = [text, b"\n"].concat();
            let (line, takes_old, takes_new) = match kind {
                b' ' => (HunkLine::Context(line), 1, 1),
                b'-' => (HunkLine::Removed(line), 1, 0),
                b'+' => (HunkLine::Added(line), 0, 1),
                b'\r' if raw == b"\r" => (HunkLine::Context(b"\n".to_vec()), 1, 1),
                _ => return Err(self.refuse("a line inside a hunk starts with none of ` `, `+`, `-`")),
            };
            let (Some(less_old), Some(less_new)) = (old.checked_sub(takes_old), new.checked_sub(takes_new))
            else {
                return Err(self.refuse("a hunk holds more lines than its header says"));
            };
            (old, new) = (less_old, less_new);
            lines.push(line);
            self.at += 1;
        }
        Ok(Hunk { number, header, patch_line, old_start, new_start, lines })
    }
}

/// Why a line that no unified diff holds shows that a change would be lost.
fn other_diff(line: &[u8], next: Option<&[u8]>) -> Option<&'static str> {
    let starts = |text: &str| line.starts_with(text.as_bytes());
    if starts("@@ -") {
        return Some("a hunk stands before the name of its file");
    }
    if starts("diff --cc ") || starts("diff --combined ") || starts("@@@ -") {
        return Some("it holds the combined diff of a merge: give the diff to one parent");
    }
    if is_only_in(line) {
        return Some("a file is on one side only, and its text is not here: write the patch with `diff -N`");
    }
    if starts("Binary files ") && line.ends_with(b" differ") {
        return Some("a binary file differs, which a patch cannot show");
    }
    let is_context = line == b"***************" && next.is_some_and(|next| next.starts_with(b"*** "));
    is_context.then_some("it holds a context diff: write it with `diff -u`")
}

/// Whether it is `Only in FOLDER: NAME`, as diff(1) writes it. A folder has a slash, and words of a text rarely have.
fn is_only_in(line: &[u8]) -> bool {
    let rest = line.strip_prefix(b"Only in ").and_then(|rest| std::str::from_utf8(rest).ok());
    rest.and_then(|rest| rest.split_once(": "))
        .is_some_and(|(folder, name)| !folder.contains(' ') && folder.contains('/') && !name.contains(' '))
}

fn is_extended_header(line: &[u8]) -> bool {
    [&b"old mode "[..], b"dissimilarity index "].iter().any(|start| line.starts_with(start))
}

/// Whether `index OLD..NEW` is of a file that has no contents on either side, or the same: ids are shortened, and the one of an
/// empty file is always this (git hash-object).
fn is_of_nothing(line: &[u8]) -> bool {
    const EMPTY: &[u8] = b"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
    let ids = line.get(b"index ".len()..).unwrap_or_default();
    let ids = ids.split(|&byte| byte == b' ').next().unwrap_or_default();
    let Some(at) = memchr::memmem::find(ids, b"..") else { return false };
    let (old, new) = (&ids[..at], &ids[at + 2..]);
    let is_nothing =
        |id: &[u8]| id.len() >= 4 && (EMPTY.starts_with(id) || id.iter().all(|&byte| byte == b'0'));
    old == new || (is_nothing(old) && is_nothing(new))
}

/// Start and count of both sides of `@@ -START[,COUNT] +START[,COUNT] @@`.
pub fn ranges(header: &str) -> Option<((u32, u32), (u32, u32))> {
    let (ranges, _) = header.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| -> Option<(u32, u32)> {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        let start: u32 = start.parse().ok()?;
        // A start beyond this would not fit the arithmetic on line numbers; no file is this long.
        i32::try_from(start).is_ok().then_some((start, count.parse().ok()?))
    };
    Some((range(old)?, range(new)?))
}

/// A name in double quotes with C's escapes, as git writes it (quote.c).
fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut bytes = quoted.get(1..)?.iter().copied();
    loop {
        match bytes.next()? {
            b'"' => return Some(name),
            b'\\' => name.push(match bytes.next()? {
                b'a' => 7,
                b'b' => 8,
                b't' => b'\t',
                b'n' => b'\n',
                b'v' => 11,
                b'f' => 12,
                b'r' => b'\r',
                digit @ b'0'..=b'3' => {
                    let digits = [digit, bytes.next()?, bytes.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()?
                }
                other => other,
            }),
            byte => name.push(byte),
        }
    }
}
