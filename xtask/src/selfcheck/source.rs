//! A C source of the kernel, as far as its style tells what is where.
//!
//! The style is trusted (Documentation/process/coding-style.rst): what begins in the first column is outside of functions, and
//! a function's body is between a `{` and a `}` alone there. What is not written so is not found, and no operator applies to it.

use kmend_compile::{Conditional, line_starts};
use std::ops::Range;

/// A source file.
pub(super) struct Source {
    /// From the tree's root.
    pub(super) path: String,
    /// With their line ends.
    pub(super) lines: Vec<String>,
    /// Functions with a body, outside of conditional groups.
    pub(super) functions: Vec<Function>,
    /// Variables of the file, outside of conditional groups.
    pub(super) variables: Vec<Variable>,
}

/// A function.
pub(super) struct Function {
    pub(super) name: String,
    /// The lines before the `{`.
    pub(super) head: Range<usize>,
    /// The lines between `{` and `}`.
    pub(super) body: Range<usize>,
    /// The head in one line.
    pub(super) text: String,
}

/// A variable of one declaration.
pub(super) struct Variable {
    pub(super) name: String,
    /// Its lines, to the `;`.
    pub(super) lines: Range<usize>,
    /// What stands before the initial value or the `;`.
    pub(super) text: String,
    pub(super) has_value: bool,
}

impl Function {
    pub(super) fn has(&self, word: &str) -> bool {
        has_word(&self.text, word)
    }

    /// A function of its own in the object, most likely: neither inline nor marked.
    pub(super) fn is_plain(&self) -> bool {
        !["inline", "__always_inline", "noinstr", "__visible", "asmlinkage", "__weak"]
            .iter()
            .any(|word| self.has(word))
            && !self.is_start_code()
    }

    pub(super) fn is_start_code(&self) -> bool {
        self.text.contains("__init") || self.text.contains("__exit") || self.text.contains("__meminit")
    }
}

impl Variable {
    pub(super) fn has(&self, word: &str) -> bool {
        has_word(&self.text, word)
    }

    pub(super) fn is_array(&self) -> bool {
        self.text.contains('[')
    }

    /// Whether an attribute says where it lies.
    pub(super) fn is_placed(&self) -> bool {
        words(&self.text).any(|word| word.starts_with("__") && word != "__maybe_unused" && word != "__used")
    }
}

impl Source {
    /// Reads it. `None` for a text that is not UTF-8.
    pub(super) fn of(path: &str, text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        let starts = line_starts(lines.iter().map(String::as_bytes));
        let mut source =
            Source { path: path.to_owned(), lines, functions: Vec::new(), variables: Vec::new() };
        let (mut depth, mut at) = (0_u32, 0);
        while let Some(line) = source.lines.get(at) {
            let start = &starts[at];
            match start.conditional {
                Some(Conditional::Open) => depth += 1,
                Some(Conditional::Close) => depth = depth.saturating_sub(1),
                _ => {}
            }
            let is_declaration = start.is_safe
                && !start.is_comment
                && line.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            let end = if line.trim_end() == "{" && at > 0 {
                source.function(at, depth)
            } else if is_declaration {
                source.variable(at, depth)
            } else {
                None
            };
            // What a declaration holds may open and close groups, in pairs.
            at = end.unwrap_or(at) + 1;
        }
        Some(source)
    }

    /// The function whose body begins at this line: the line at which it ends.
    fn function(&mut self, at: usize, depth: u32) -> Option<usize> {
        let end = (at + 1..self.lines.len()).find(|&index| self.lines[index].starts_with('}'))?;
        let is_head = |line: &str| {
            let text = line.trim_end();
            let ends = text.is_empty() || text.ends_with([';', '}', '\\']) || text.ends_with("*/");
            !ends && !text.starts_with(['#', '}', '*', '/'])
        };
        let start = (0..at).rev().take_while(|&index| is_head(&self.lines[index])).last()?;
        let text: Vec<&str> = self.lines[start..at].iter().map(|line| line.trim()).collect();
        let text = text.join(" ");
        if let Some(name) = text.split_once('(').and_then(|(before, _)| words(before).last())
            && depth == 0
            && !name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            && !name.starts_with("__printf")
            && name != "__attribute__"
            && text.ends_with(')')
            // A type before the name: else it is a macro's call.
            && words(text.split('(').next().unwrap_or_default()).count() > 1
        {
            let name = name.to_owned();
            self.functions.push(Function { name, head: start..at, body: at + 1..end, text });
        }
        Some(end)
    }

    /// The variable that is declared at this line: the line at which it ends.
    fn variable(&mut self, at: usize, depth: u32) -> Option<usize> {
        let line = self.lines[at].trim_end();
        let (before, value) = match line.split_once('=') {
            Some((before, value)) => (before.trim_end(), Some(value.trim())),
            None => (line.strip_suffix(';')?.trim_end(), None),
        };
        if before.contains(['(', ',', '{', '}', ':', '"']) || line.contains("/*") {
            return None;
        }
        let end = match value {
            Some(value) if value.ends_with(';') => at,
            None => at,
            Some("{") => (at + 1..self.lines.len()).find(|&index| self.lines[index].starts_with("};"))?,
            Some(_) => return None,
        };
        let first = words(before).next()?;
        let declarator = before.split('[').next().unwrap_or(before);
        let name = words(declarator).filter(|word| !word.starts_with("__")).last()?;
        let is_other = ["typedef", "extern", "return", "enum", "union", "goto", "module_param"].contains(&first)
            || words(declarator).filter(|word| !word.starts_with("__")).count() < 2
            // A forward declaration: `struct page;`.
            || (first == "struct" && words(declarator).count() < 3)
            || words(before).any(|word| word == "extern" || word == "typedef");
        if depth == 0 && !is_other {
            let (name, text, has_value) = (name.to_owned(), before.to_owned(), value.is_some());
            self.variables.push(Variable { name, lines: at..end + 1, text, has_value });
        }
        Some(end)
    }

    /// How often a word stands in the file.
    pub(super) fn count(&self, word: &str) -> usize {
        self.lines.iter().map(|line| words(line).filter(|other| *other == word).count()).sum()
    }
}

/// The identifiers and numbers of a text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

pub(super) fn has_word(text: &str, word: &str) -> bool {
    words(text).any(|other| other == word)
}

/// The text with a word exchanged wherever it stands alone.
pub(super) fn with_word(text: &str, old: &str, new: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut result, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(old) {
        let (before, after) = (&rest[..at], &rest[at + old.len()..]);
        let alone = !before.ends_with(is_word) && !after.starts_with(is_word);
        let alone = alone && !(before.is_empty() && result.ends_with(is_word));
        result.push_str(before);
        result.push_str(if alone { new } else { old });
        rest = after;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#include <a.h>\nstatic int count;\nstatic const char *names[] = {\n\t\"a\",\n};\nint total __read_mostly = 5;\n\
        struct page;\n#ifdef X\nstatic int hidden;\n#endif\nstatic int __init start(int a,\n\t\tint b)\n{\n\tstatic int calls;\n\n\treturn a;\n}\n\
        SYSCALL_DEFINE1(x, int, y)\n{\n\treturn 1;\n}\nextern int far;\n";

    #[test]
    fn functions_and_variables_are_found() {
        let source = Source::of("a.c", TEXT.as_bytes()).unwrap();
        let names: Vec<&str> = source.variables.iter().map(|variable| variable.name.as_str()).collect();
        assert_eq!(names, ["count", "names", "total"]);
        assert!(source.variables[1].is_array() && source.variables[1].lines == (2..5));
        assert!(source.variables[2].is_placed() && source.variables[2].has_value);
        assert_eq!(source.functions.len(), 1);
        let start = &source.functions[0];
        assert_eq!((start.name.as_str(), start.head.clone(), start.body.clone()), ("start", 10..12, 13..16));
        assert!(start.is_start_code() && start.has("static"));
    }

    #[test]
    fn a_word_is_exchanged_where_it_stands_alone() {
        assert_eq!(with_word("a + ab + a->x(a_b, a)", "a", "z"), "z + ab + z->x(a_b, z)");
        assert_eq!(with_word("aa a", "a", "z"), "aa z");
    }
}
