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
    numbered(lines).0
}

/// The text with line directives, and the number that each line has for the compiler. (It is not known for lines in
/// a group that is skipped, which give no code, nor behind one up to the next directive.)
pub fn numbered(lines: &[Line]) -> (Vec<u8>, Vec<u32>) {
    let starts = line_starts(lines.iter().map(|line| line.bytes.as_slice()));
    let mut numbers = Vec::with_capacity(lines.len());
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
        numbers.push(number);
        number = number.saturating_add(1);
    }
    (text, numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::original_lines;

    fn added(text: &str) -> Line {
        Line { bytes: text.as_bytes().to_vec(), origin: None, hunk: None }
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
        assert_eq!(numbered(&lines).1, [1, 2, 2, 3]);
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
        assert_eq!(numbered(&lines).1, [1, 2, 3, 4, 4], "as the compiler counts");
    }

    #[test]
    fn a_directive_in_a_group_that_may_be_skipped_is_written_again_after_it() {
        let mut lines = original_lines(b"#ifdef A\nint a;\n#else\nint b;\n#endif\nint c;\n");
        lines.insert(1, added("int x;\n"));
        check(&lines, "#ifdef A\nint x;\n#line 2\nint a;\n#else\n#line 4\nint b;\n#endif\n#line 6\nint c;\n");
    }

    /// Numbers from a fixed start, so that a failing round can be run again.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % bound
        }
    }

    /// Pieces of C. Lines with `@` are statements of their own; their numbers must be right.
    const PIECES: &[&[&str]] = &[
        &["int @;"],
        &["/* comment (", " more */ int x;"],
        &["#define M(a) \\", "\tf(a, \\", "\t  1)", "int @;"],
        &["call(a,", "     \"str ( \\\" /*\",", "     b);", "int @;"],
        &["#ifdef A", "int @;", "#else", "int @;", "#endif", "int @;"],
        &["#if B", "if (a &&", "#elif C", "if (b &&", "#else", "if (", "#endif", "    c)", "int @;"],
        &["#ifdef A", "#ifdef B", "int @;", "#endif", "int @;", "#endif", "int @;"],
        &["char c = '(';", "int @;", "// don't (", "int @;"],
        &["MACRO", "(x, y)", "int @;"],
    ];

    /// A source of some pieces, with lines added and removed at random.
    fn edited(random: &mut Random) -> Vec<Line> {
        let pieces: Vec<&str> =
            (0..12).flat_map(|_| PIECES[random.below(PIECES.len())].iter().copied()).collect();
        let source: String = pieces.iter().flat_map(|line| [*line, "\n"]).collect();
        let mut lines = Vec::new();
        for line in original_lines(source.as_bytes()) {
            if random.below(6) == 0 {
                lines.extend((0..=random.below(3)).map(|_| added("int added;\n")));
            }
            // Only what stands alone is removed: half a comment would be another program.
            if random.below(6) != 0 || !line.bytes.starts_with(b"int @") {
                lines.push(line);
            }
        }
        lines
    }

    /// Checks the numbers as a compiler counts them that takes the branches which `random` says.
    fn check_numbers(text: &str, lines: &[Line], random: &mut Random) {
        let mut origins = lines.iter();
        let (mut number, mut groups) = (1u32, Vec::<(bool, bool)>::new());
        for line in text.lines() {
            let active = groups.iter().all(|(taken, _)| *taken);
            if let Some(given) = line.strip_prefix("#line ") {
                number = if active { given.parse().unwrap() } else { number + 1 };
                continue;
            }
            let origin = origins.next().unwrap().origin;
            if line == "int @;" && active {
                assert_eq!(Some(number), origin, "{text}");
            }
            match line.split(' ').next() {
                Some("#ifdef" | "#if") => {
                    let taken = random.below(2) == 0;
                    groups.push((taken, taken));
                }
                Some("#else" | "#elif") => {
                    let (taken, before) = groups.last_mut().unwrap();
                    *taken = !*before && (line == "#else" || random.below(2) == 0);
                    *before |= *taken;
                }
                Some("#endif") => drop(groups.pop()),
                _ => {}
            }
            number += 1;
        }
    }

    #[test]
    fn untouched_statements_keep_their_numbers_whatever_is_added_or_removed() {
        for round in 0..2000 {
            let mut random = Random(round);
            let lines = edited(&mut random);
            let text = String::from_utf8(with_line_numbers(&lines)).unwrap();
            check_numbers(&text, &lines, &mut random);
        }
    }
}
