//! A patch turned round: what it adds is removed, what it removes is added.
//!
//! It is done to the text, so that all that reads patches reads this one too: names, modes, ranges and the signs of
//! lines change places, and text between the diffs is left out.

use crate::belongs::{Part, has_extension};
use crate::edits::{Source, edit};
use crate::error::CompileError;
use crate::patch::{self, PatchFile, ranges};
use crate::prepare::Prepared;
use crate::session::read_file;
use kmend_refusal::{Code, Refusal};
use std::io;

/// Lines of git's headers that change places (git's diff-format documentation, "Generating patch text with -p").
const OPPOSITES: [(&str, &str); 4] = [
    ("new file mode ", "deleted file mode "),
    ("old mode ", "new mode "),
    ("rename from ", "rename to "),
    ("copy from ", "copy to "),
];

/// The patch that undoes `patch`; a refusal if it cannot be read.
pub fn reversed(patch: &PatchFile) -> Result<PatchFile, Refusal> {
    if patch::parse(patch)?.diffs.is_empty() {
        return Ok(patch.clone());
    }
    let text = patch.text()?;
    let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let next = lines.get(at + 1).filter(|next| line.starts_with(b"--- ") && next.starts_with(b"+++ "));
        at += if let Some(next) = next {
            let [old, new] = [line, next].map(|name| name.get(4..).unwrap_or_default());
            put(&mut bytes, &[b"--- ", new, b"+++ ", old]);
            2
        } else if let Some(counts) = ranges(&String::from_utf8_lossy(line)) {
            hunk(&mut bytes, lines.get(at..).unwrap_or_default(), counts)
        } else {
            header(&mut bytes, line);
            1
        };
    }
    Ok(PatchFile { name: format!("{} (reversed)", patch.name), bytes, ..patch.clone() })
}

/// Whether every hunk of `patch` applies to the kernel's source. Refusals of other kinds do not count here.
pub fn applies(prepared: &Prepared, patch: &PatchFile) -> io::Result<bool> {
    let edits = edit(std::slice::from_ref(patch), &Units(prepared)).map_err(io::Error::other)?;
    let codes = [Code::PatchDoesNotApply, Code::AmbiguousHunk];
    Ok(!edits.refusals.iter().any(|refusal| codes.contains(&refusal.code)))
}

/// A kernel of which only the C is looked at.
struct Units<'a>(&'a Prepared);

impl Source for Units<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, CompileError> {
        read_file(&self.0.tree, path)
    }

    fn part(&self, path: &str, _is_there: bool, _adds: bool) -> Result<Part, CompileError> {
        let is_c = has_extension(path, "h") || !self.0.database.units_of(path).is_empty();
        Ok(if is_c { Part::Text } else { Part::Nothing(String::new()) })
    }
}

/// Writes the pieces one after the other.
fn put(bytes: &mut Vec<u8>, pieces: &[&[u8]]) {
    for piece in pieces {
        bytes.extend_from_slice(piece);
    }
}

/// Turns a hunk round that begins with its header, and says how many lines it has.
fn hunk(bytes: &mut Vec<u8>, lines: &[&[u8]], ((old_start, mut old), (new_start, mut new)): Ranges) -> usize {
    let header = String::from_utf8_lossy(lines.first().copied().unwrap_or_default());
    let rest = header.splitn(3, "@@").nth(2).unwrap_or("\n");
    put(bytes, &[format!("@@ -{new_start},{new} +{old_start},{old} @@{rest}").as_bytes()]);
    let mut count = 1;
    // A line about a missing line end belongs to the line before it.
    while let Some(line) = lines.get(count).filter(|line| old > 0 || new > 0 || line.starts_with(b"\\")) {
        match line.split_first() {
            Some((b'-', text)) => {
                put(bytes, &[b"+", text]);
                old = old.saturating_sub(1);
            }
            Some((b'+', text)) => {
                put(bytes, &[b"-", text]);
                new = new.saturating_sub(1);
            }
            Some((b'\\', _)) => put(bytes, &[line]),
            _ => {
                put(bytes, &[line]);
                (old, new) = (old.saturating_sub(1), new.saturating_sub(1));
            }
        }
        count += 1;
    }
    count
}

type Ranges = ((u32, u32), (u32, u32));

/// Turns a line round that is outside of hunks, if it means something there.
fn header(bytes: &mut Vec<u8>, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    let both = OPPOSITES.iter().flat_map(|&(one, other)| [(one, other), (other, one)]);
    for (from, to) in both {
        if let Some(rest) = text.strip_prefix(from) {
            return put(bytes, &[to.as_bytes(), rest.as_bytes()]);
        }
    }
    if ["diff --git ", "similarity index ", "Binary files ", "GIT binary patch"]
        .iter()
        .any(|start| text.starts_with(start))
    {
        put(bytes, &[line]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(text: &str) -> String {
        let patch = PatchFile::new("x.patch", text);
        String::from_utf8(reversed(&patch).unwrap().bytes).unwrap()
    }

    #[test]
    fn signs_names_and_ranges_change_places() {
        let text = "Subject: x\n\n--- a/fs/one.c\n+++ b/fs/two.c\n@@ -1,3 +1,4 @@ f(void)\n a\n-b\n+c\n+--d\n e\n-- \n2.1\n";
        assert_eq!(
            turned(text),
            "--- b/fs/two.c\n+++ a/fs/one.c\n@@ -1,4 +1,3 @@ f(void)\n a\n+b\n-c\n---d\n e\n"
        );
    }

    #[test]
    fn a_new_file_becomes_a_deleted_one() {
        let text = "diff --git a/a.c b/a.c\nnew file mode 100644\nindex 0000000..1234567\n--- /dev/null\n+++ b/a.c\n@@ -0,0 +1 @@\n+int a;\n";
        assert_eq!(
            turned(text),
            "diff --git a/a.c b/a.c\ndeleted file mode 100644\n--- b/a.c\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-int a;\n"
        );
    }

    #[test]
    fn missing_line_ends_stay_with_their_lines() {
        let text = "--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+y\n";
        assert_eq!(
            turned(text),
            "--- b/a.c\n+++ a/a.c\n@@ -1,1 +1,1 @@\n+x\n\\ No newline at end of file\n-y\n"
        );
    }

    #[test]
    fn twice_is_the_same_patch() {
        let text = "--- a/a.c\n+++ b/a.c\n@@ -1,2 +1,3 @@ g\n a\n+b\n c\n@@ -9,2 +10,1 @@\n-x\n y\n";
        assert_eq!(turned(&turned(text)), text);
    }

    #[test]
    fn what_is_no_patch_is_refused() {
        for text in ["", "hello\n", "--- a/a.c\n+++ b/a.c\n@@ -1,2 +1,2 @@\n a\n"] {
            let patch = PatchFile::new("x.patch", text);
            assert!(reversed(&patch).is_err(), "{text}");
        }
    }
}
