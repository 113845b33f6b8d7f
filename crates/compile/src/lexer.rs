//! At the start of which lines of a C source a directive may be inserted without changing its meaning.
//!
//! Not inside a comment, after a line that a backslash continues, or inside parentheses: a directive among
//! the arguments of a macro is undefined (C11 6.10.3 paragraph 11), and whether a name is a macro is not
//! known here. The text is raw bytes; only what matters for these three is understood.

/// What is known at the start of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineStart {
    /// Whether a directive may stand before this line.
    pub is_safe: bool,
    /// What the line does to conditional groups.
    pub conditional: Option<Conditional>,
    /// Whether the whole line is part of a comment.
    pub is_comment: bool,
}

/// A directive that opens, changes or closes a conditional group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditional {
    /// `#if`, `#ifdef`, `#ifndef`.
    Open,
    /// `#else`, `#elif`, `#elifdef`, `#elifndef`.
    Else,
    /// `#endif`.
    Close,
}

/// Looks at all lines of a source in their order.
pub fn line_starts<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<LineStart> {
    let mut lexer = Lexer::default();
    lines.into_iter().map(|line| lexer.line(line)).collect()
}

#[derive(Debug, Default)]
struct Lexer {
    in_comment: bool,
    /// The last line ended in a backslash.
    continued: bool,
    /// A string or character constant that the last line's backslash continues, by its quote.
    quote: Option<u8>,
    /// In a directive, whose parentheses are its own.
    in_directive: bool,
    /// Open parentheses.
    depth: u32,
    /// The depth at which each open conditional group began: each of its branches starts from it.
    groups: Vec<u32>,
}

impl Lexer {
    fn line(&mut self, line: &[u8]) -> LineStart {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let first = text.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        let starts_fresh = !self.in_comment && !self.continued;
        // An argument list may start on the line after the macro's name.
        let is_safe = starts_fresh && self.depth == 0 && first != Some(b'(');
        let mut conditional = None;
        if starts_fresh {
            self.quote = None;
            self.in_directive = first == Some(b'#');
            if self.in_directive {
                conditional = conditional_of(text);
                self.enter(conditional);
            }
        }
        let depth = self.depth;
        let is_comment = self.in_comment && memchr::memmem::find(text, b"*/").is_none();
        self.scan(text);
        if self.in_directive {
            self.depth = depth;
        }
        self.continued = text.ends_with(b"\\");
        if !self.continued {
            self.quote = None;
        }
        LineStart { is_safe, conditional, is_comment }
    }

    fn enter(&mut self, conditional: Option<Conditional>) {
        match conditional {
            Some(Conditional::Open) => self.groups.push(self.depth),
            Some(Conditional::Else) => self.depth = self.groups.last().copied().unwrap_or(self.depth),
            Some(Conditional::Close) => drop(self.groups.pop()),
            None => {}
        }
    }

    fn scan(&mut self, text: &[u8]) {
        let mut bytes = text.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            if self.in_comment {
                if byte == b'*' && bytes.peek() == Some(&b'/') {
                    bytes.next();
                    self.in_comment = false;
                }
                continue;
            }
            if let Some(quote) = self.quote {
                if byte == b'\\' {
                    bytes.next();
                } else if byte == quote {
                    self.quote = None;
                }
                continue;
            }
            match byte {
                b'/' if bytes.peek() == Some(&b'*') => {
                    bytes.next();
                    self.in_comment = true;
                }
                b'/' if bytes.peek() == Some(&b'/') => return,
                b'"' | b'\'' => self.quote = Some(byte),
                b'(' => self.depth = self.depth.saturating_add(1),
                b')' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }
}

/// The conditional directive on a line that starts with `#`.
fn conditional_of(text: &[u8]) -> Option<Conditional> {
    let text = text.trim_ascii_start().strip_prefix(b"#")?.trim_ascii_start();
    let end = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
    match text.get(..end)? {
        b"if" | b"ifdef" | b"ifndef" => Some(Conditional::Open),
        b"else" | b"elif" | b"elifdef" | b"elifndef" => Some(Conditional::Else),
        b"endif" => Some(Conditional::Close),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `y` for each line before which a directive is safe, `-` for the others.
    fn safe(text: &str) -> String {
        let lines = text.split_inclusive('\n').map(str::as_bytes);
        line_starts(lines).iter().map(|start| if start.is_safe { 'y' } else { '-' }).collect()
    }

    #[test]
    fn comments_continuations_and_parentheses_are_not_safe() {
        assert_eq!(safe("int a;\n/* one\n two */ int b;\nint c; // x /*\nint d;\n"), "yy-yy");
        assert_eq!(safe("#define A(x) \\\n\t((x) + \\\n\t 1)\nint b;\n"), "y--y");
        assert_eq!(safe("f(a,\n  b);\nint c;\nFOO\n(x);\n"), "y-yy-");
        assert_eq!(safe("char *s = \"( /* \\\" \";\nint c = '(';\nint d;\n"), "yyy");
        assert_eq!(safe("char *s = \"a\\\n(b\";\nint d;\n"), "y-y");
    }

    #[test]
    fn every_branch_starts_from_the_same_depth() {
        assert_eq!(safe("#ifdef A\nif (a &&\n#else\nif (\n#endif\n b) {\n}\n"), "yy-y--y");
    }

    #[test]
    fn prose_in_a_skipped_group_does_no_harm() {
        assert_eq!(safe("#if 0\ndon't\n#endif\nint a;\n"), "yyyy");
    }

    #[test]
    fn comments_in_directives_go_on() {
        assert_eq!(safe("#define A 1 /* one\n two */\nint a;\n"), "y-y");
    }
}
