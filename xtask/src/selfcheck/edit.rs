//! Edits of a source, as patches: what has no meaning, one constant, one more function.

use super::constants;
use super::random::Random;
use kmend_compile::{PatchFile, line_starts};

/// One line before which others are put, or which others replace.
pub(super) struct Edit {
    /// The line's index.
    pub(super) at: usize,
    /// What is put there, each with its line end.
    pub(super) added: Vec<String>,
    /// Whether the line itself goes.
    pub(super) replaces: bool,
}

/// A function with all that the compiler numbers: a static variable, a string, its own name, a branch.
const FUNCTION: &str = "static int __attribute__((__used__)) kmend_selfcheck_added(int x)\n{\n\
                        \tstatic int calls;\n\tstatic const char text[] = \"kmend selfcheck\";\n\n\
                        \tif (x > 3)\n\t\treturn text[x & 3] + __func__[x & 7];\n\treturn ++calls;\n}\n\n";
/// The name of that function.
pub(super) const FUNCTION_NAME: &str = "kmend_selfcheck_added";
/// Of so many lines about one gets something before it.
const SPARSENESS: usize = 6;

/// Comments and blank lines at many places.
pub(super) fn meaningless(source: &str, text: &[u8], random: &mut Random) -> PatchFile {
    let lines = lines(text);
    let starts = line_starts(lines.iter().copied());
    let mut edits = Vec::new();
    for (at, start) in starts.iter().enumerate() {
        if start.is_safe && (at == 0 || random.below(SPARSENESS) == 0) {
            let added: &[&str] = match random.below(4) {
                0 => &["\n"],
                1 => &["// One that ends with its line: ( \" '\n"],
                2 => &["/* A comment. */\n", "\n"],
                _ => &["/*\n", " * A comment of several lines (\n", " */\n"],
            };
            edits.push(Edit {
                at,
                added: added.iter().map(|line| (*line).to_owned()).collect(),
                replaces: false,
            });
        }
    }
    patch(source, &lines, &edits)
}

/// A comment and blank lines before a file's first line.
pub(crate) fn lines_at_the_top(source: &str, text: &[u8]) -> PatchFile {
    let added = ["/* A comment at the top. */\n", "\n"].map(str::to_owned).to_vec();
    patch(source, &lines(text), &[Edit { at: 0, added, replaces: false }])
}

/// Another constant in a function, and what was done; `None` if no function of the source has one.
pub(super) fn other_constant(source: &str, text: &[u8], random: &mut Random) -> Option<(PatchFile, String)> {
    let lines = lines(text);
    let found = constants::find(&lines);
    let constant = random.one_of(&found)?;
    let line = lines.get(constant.line)?;
    let (new, old) = (constant.changed(1 + random.below(3) as u64)?, constant.text.clone());
    let mut bytes = line.to_vec();
    bytes.splice(constant.column..constant.column + old.len(), new.bytes());
    // Sources that are not UTF-8 are so in comments, which hold no constant.
    let added = vec![String::from_utf8(bytes).ok()?];
    let what = format!("line {}: {old} becomes {new}", constant.line + 1);
    Some((patch(source, &lines, &[Edit { at: constant.line, added, replaces: true }]), what))
}

/// One more function before all others; `None` if the source has none.
pub(super) fn another_function(source: &str, text: &[u8]) -> Option<PatchFile> {
    let lines = lines(text);
    let starts = line_starts(lines.iter().copied());
    let first = lines.iter().position(|line| line.starts_with(b"{"))?;
    // Behind the last include before the first function, outside of conditional groups and of lists that are included.
    let (mut depth, mut is_open) = (0i32, false);
    let mut at = None;
    for (index, (line, start)) in lines.iter().zip(&starts).enumerate().take(first) {
        match start.conditional {
            Some(kmend_compile::Conditional::Open) => depth += 1,
            Some(kmend_compile::Conditional::Close) => depth -= 1,
            _ => {}
        }
        if !line.starts_with(b"#") && !line.trim_ascii().is_empty() {
            is_open = line.trim_ascii_end().ends_with(b"{");
        } else if depth == 0 && !is_open && line.starts_with(b"#include") {
            at = Some(index + 1);
        }
    }
    let added = FUNCTION.split_inclusive('\n').map(str::to_owned).collect();
    Some(patch(source, &lines, &[Edit { at: at?, added, replaces: false }]))
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|&byte| byte == b'\n').collect()
}

/// One hunk over the whole file: context needs no thought then. The edits are in the order of their lines.
pub(super) fn patch(source: &str, lines: &[&[u8]], edits: &[Edit]) -> PatchFile {
    let mut body = Vec::new();
    let mut count = 0;
    let mut edits = edits.iter().peekable();
    for (at, line) in lines.iter().enumerate() {
        let mut sign = b' ';
        while let Some(edit) = edits.next_if(|edit| edit.at == at) {
            if edit.replaces {
                put(&mut body, b'-', line);
                sign = b'-';
            }
            edit.added.iter().for_each(|added| put(&mut body, b'+', added.as_bytes()));
            count += edit.added.len();
        }
        if sign == b' ' {
            put(&mut body, b' ', line);
            count += 1;
        }
    }
    let header = format!("--- a/{source}\n+++ b/{source}\n@@ -1,{} +1,{count} @@\n", lines.len());
    PatchFile::new("selfcheck.patch", [header.into_bytes(), body].concat())
}

fn put(body: &mut Vec<u8>, sign: u8, line: &[u8]) {
    body.push(sign);
    body.extend_from_slice(line);
    if !line.ends_with(b"\n") {
        body.extend_from_slice(b"\n\\ No newline at end of file\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &[u8] =
        b"#include <a.h>\n#ifdef X\n#include <b.h>\n#endif\nint f(int x)\n{\n\treturn x + 7;\n}\n";

    fn text(patch: PatchFile) -> String {
        String::from_utf8(patch.bytes).unwrap()
    }

    #[test]
    fn a_constant_changes_in_its_line() {
        let (patch, what) = other_constant("a.c", SOURCE, &mut Random::new(1, "", "")).unwrap();
        let patch = text(patch);
        assert!(patch.contains("@@ -1,8 +1,8 @@\n #include <a.h>\n"), "{patch}");
        assert!(patch.contains("\n-\treturn x + 7;\n+\treturn x + "), "{patch}");
        assert!(what.starts_with("line 7: 7 becomes "), "{what}");
        assert!(other_constant("a.c", b"int f(void);\n", &mut Random::new(1, "", "")).is_none());
    }

    #[test]
    fn the_function_stands_outside_of_conditional_groups_and_lists() {
        let list = b"#include <a.h>\n\nchar *s[] = {\n#include <list.h>\n};\nint f(int x)\n{\n}\n";
        for source in [SOURCE, list] {
            let patch = text(another_function("a.c", source).unwrap());
            assert!(patch.contains("\n #include <a.h>\n+static int "), "{patch}");
        }
        assert!(another_function("a.c", b"int a;\n").is_none());
    }

    #[test]
    fn what_is_meaningless_is_only_added() {
        let patch = text(meaningless("a.c", SOURCE, &mut Random::new(1, "", "")));
        let kept: Vec<&str> = patch.lines().skip(3).filter_map(|line| line.strip_prefix(' ')).collect();
        assert_eq!(kept.join("\n") + "\n", String::from_utf8(SOURCE.to_vec()).unwrap());
        assert!(patch.lines().skip(3).any(|line| line.starts_with('+')), "{patch}");
    }
}
