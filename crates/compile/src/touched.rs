//! Which functions of a source a patch touches.
//!
//! This only explains: a function that changed though the patch does not touch it changed because the
//! compiler put another one into it. So the kernel's coding style is trusted: a function's
//! body opens with `{` in the first column and closes with `}` there (Documentation/process/coding-style.rst,
//! section 3).

use crate::apply::Line;
use std::collections::BTreeSet;

/// What `SYSCALL_DEFINE` makes of a system call's name (include/linux/syscalls.h and
/// arch/x86/include/asm/syscall_wrapper.h).
const SYSTEM_CALL_PREFIXES: &[&str] =
    &["__do_sys_", "__se_sys_", "__x64_sys_", "__ia32_sys_", "__do_compat_sys_", "__ia32_compat_sys_"];

/// A function that a patch touches.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touched {
    /// Its name in the source.
    pub name: String,
    /// Whether it is marked as `__init`.
    pub is_start: bool,
}

/// The functions whose bodies or heads hold added lines or lack removed ones, by their names in the source.
pub fn touched_functions(lines: &[Line]) -> BTreeSet<Touched> {
    let mut names = BTreeSet::new();
    let mut expected = 1;
    for (index, line) in lines.iter().enumerate() {
        let is_added = line.origin.is_none();
        let follows_removed = line.origin.is_some_and(|origin| origin != expected);
        if is_added || follows_removed {
            names.extend(enclosing(lines, index));
        }
        if let Some(origin) = line.origin {
            expected = origin + 1;
        }
    }
    names
}

/// The function that a line belongs to, under all its names.
pub fn enclosing(lines: &[Line], index: usize) -> Vec<Touched> {
    let Some(Extent { head, open, .. }) = extent(lines, index) else { return Vec::new() };
    let head: Vec<u8> = lines[head..=open].iter().flat_map(|line| line.bytes.iter().copied()).collect();
    let head = String::from_utf8_lossy(&head);
    let is_start = head.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == "__init");
    function_names(&head).into_iter().map(|name| Touched { name, is_start }).collect()
}

/// The lines of a function, or of what else braces in the first column hold: where its head begins, its body opens and closes.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    pub head: usize,
    pub open: usize,
    pub close: usize,
}

/// What a line belongs to.
pub fn extent(lines: &[Line], index: usize) -> Option<Extent> {
    let starts = |at: usize, with: u8| lines[at].bytes.first() == Some(&with);
    let close = (index..lines.len()).find(|&at| starts(at, b'}'))?;
    // Some heads end with the brace.
    let opens = |at: usize| {
        let line = &lines[at].bytes;
        let is_head = line.first().is_some_and(|&byte| byte.is_ascii_alphabetic() || byte == b'_');
        starts(at, b'{') || (is_head && line.trim_ascii_end().ends_with(b"{"))
    };
    let open = (0..close).rev().find(|&at| opens(at) || starts(at, b'}'))?;
    if starts(open, b'}') || close <= open {
        return None;
    }
    let head = (0..open).rev().take_while(|&at| !ends_declaration(&lines[at].bytes)).last().unwrap_or(open);
    (index >= head).then_some(Extent { head, open, close })
}

/// Whether a line cannot be part of the head that follows it.
fn ends_declaration(line: &[u8]) -> bool {
    let text = line.trim_ascii_end();
    text.is_empty()
        || text.starts_with(b"#")
        || text.starts_with(b"}")
        || text.ends_with(b"*/")
        || text.ends_with(b";")
}

/// The name before the parameters; for a system call, the names of what its macro defines.
fn function_names(head: &str) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let Some(open) = head.find('(') else { return Vec::new() };
    // An initializer can have parentheses in its head, as that of `DEFINE_PER_CPU(struct x, y) = {` has.
    if head.trim_end().strip_suffix('{').is_some_and(|head| head.trim_end().ends_with('=')) {
        return Vec::new();
    }
    let before = head[..open].trim_end();
    let name = before.rsplit(|c| !is_word(c)).next().unwrap_or_default();
    if !name.contains("SYSCALL_DEFINE") {
        return if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
    }
    let argument: String = head[open + 1..].trim_start().chars().take_while(|&c| is_word(c)).collect();
    SYSTEM_CALL_PREFIXES.iter().map(|prefix| format!("{prefix}{argument}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::original_lines;

    const SOURCE: &str = "/* about */\nstatic int one(int x)\n{\n\treturn x;\n}\n\nstatic int\ntwo(int a,\n    int b)\n{\n\tif (a)\n\t\treturn b;\n\treturn a;\n}\n\nSYSCALL_DEFINE1(three, int, x)\n{\n\treturn x;\n}\nint table[] = {\n\t1,\n};\n";

    fn touch(change: impl Fn(&mut Vec<Line>)) -> Vec<String> {
        let mut lines = original_lines(SOURCE.as_bytes());
        change(&mut lines);
        touched_functions(&lines).into_iter().map(|function| function.name).collect()
    }

    #[test]
    fn an_added_line_touches_its_function() {
        let add = |at: usize| {
            move |lines: &mut Vec<Line>| {
                lines.insert(at, Line { bytes: b"\tfoo();\n".to_vec(), origin: None, hunk: None });
            }
        };
        assert_eq!(touch(add(3)), ["one"]);
        assert_eq!(touch(add(11)), ["two"]);
        assert!(touch(add(17)).contains(&"__do_sys_three".to_owned()));
    }

    #[test]
    fn a_removed_line_touches_its_function() {
        assert_eq!(touch(|lines| drop(lines.remove(12))), ["two"]);
    }

    #[test]
    fn a_mark_and_a_brace_in_the_head_are_seen() {
        let mut lines = original_lines(b"static int __init one(void) {\n\treturn 1;\n}\n");
        lines[1].origin = None;
        let one = Touched { name: "one".to_owned(), is_start: true };
        assert_eq!(touched_functions(&lines), BTreeSet::from([one]));
    }

    #[test]
    fn an_initializer_with_parentheses_is_no_function() {
        let mut lines = original_lines(b"static DEFINE_PER_CPU(struct x, y) = {\n\t.a = 1,\n};\n");
        lines[1].origin = None;
        assert_eq!(touched_functions(&lines), BTreeSet::new());
    }

    #[test]
    fn what_is_outside_of_functions_touches_none() {
        assert!(touch(|_| ()).is_empty());
        assert!(
            touch(|lines| lines.insert(0, Line { bytes: b"/* more */\n".to_vec(), origin: None, hunk: None })).is_empty()
        );
        assert!(touch(|lines| drop(lines.remove(20))).is_empty());
    }
}
