//! Line numbers stay put.
//!
//! `__LINE__` is in every WARN, BUG and might_sleep: a line added at the top of a file would change every
//! function below it. So the patched text gets `#line N` directives: a line of the original keeps its number,
//! and added lines count on from the line they follow. A directive goes before the first line whose number
//! would be wrong, or where that is not safe ([`crate::lexer`]) before the next line where it is.

use crate::apply::Line;
use crate::lexer::{Conditional, line_starts};

/// The patched text with line directives.
pub fn with_line_numbers(lines: &[Line]) -> Vec<u8> {
    let starts = line_starts(lines.iter().map(|line| line.bytes.as_slice()));
    let mut text = Vec::with_capacity(lines.iter().map(|line| line.bytes.len() + 1).sum());
    // The number that the compiler gives to the next line.
    let mut number = 1u32;
    // For each open conditional group, whether a directive was written in it: the compiler skips it with the
    // group, and then counts on from the number before the group.
    let mut written: Vec<bool> = Vec::new();
    // The compiler's number is not known: write a directive at the next chance.
    let mut unknown = false;
    for (line, start) in lines.iter().zip(starts) {
        let wanted = line.origin.unwrap_or(number);
        if start.is_safe && (unknown || wanted != number) {
            text.extend_from_slice(format!("#line {wanted}\n").as_bytes());
            number = wanted;
            unknown = false;
            if let Some(group) = written.last_mut() {
                *group = true;
            }
        }
        match start.conditional {
            Some(Conditional::Open) => written.push(false),
            Some(Conditional::Else) => {
                if let Some(group) = written.last_mut() {
                    unknown |= *group;
                }
            }
            Some(Conditional::Close) => unknown |= written.pop().unwrap_or(false),
            None => {}
        }
        text.extend_from_slice(&line.bytes);
        number = number.saturating_add(1);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::original_lines;

    fn added(text: &str) -> Line {
        Line { bytes: text.as_bytes().to_vec(), origin: None }
    }

    fn check(lines: &[Line], expect: &str) {
        assert_eq!(String::from_utf8(with_line_numbers(lines)).unwrap(), expect);
    }

    #[test]
    fn an_unchanged_file_gets_no_directive() {
        check(&original_lines(b"int a;\nint b;\n"), "int a;\nint b;\n");
    }

    #[test]
    fn lines_after_added_and_removed_ones_keep_their_numbers() {
        let mut lines = original_lines(b"int a;\nint b;\nint c;\n");
        lines.insert(1, added("int x;\n"));
        check(&lines, "int a;\nint x;\n#line 2\nint b;\nint c;\n");
        let mut lines = original_lines(b"int a;\nint b;\nint c;\n");
        lines.remove(1);
        check(&lines, "int a;\n#line 3\nint c;\n");
    }

    #[test]
    fn a_replaced_line_needs_none() {
        let mut lines = original_lines(b"int a;\nint b;\nint c;\n");
        lines[1] = added("int x;\n");
        check(&lines, "int a;\nint x;\nint c;\n");
    }

    #[test]
    fn a_directive_waits_for_a_safe_line() {
        let mut lines = original_lines(b"f(a,\n  b,\n  c);\nint d;\n");
        lines.insert(1, added("  x,\n"));
        check(&lines, "f(a,\n  x,\n  b,\n  c);\n#line 4\nint d;\n");
    }

    #[test]
    fn a_directive_in_a_group_that_may_be_skipped_is_written_again_after_it() {
        let mut lines = original_lines(b"#ifdef A\nint a;\n#else\nint b;\n#endif\nint c;\n");
        lines.insert(1, added("int x;\n"));
        check(&lines, "#ifdef A\nint x;\n#line 2\nint a;\n#else\n#line 4\nint b;\n#endif\n#line 6\nint c;\n");
    }
}
