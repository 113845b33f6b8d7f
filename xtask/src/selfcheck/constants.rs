//! Integer constants in the functions of a C source.

/// A constant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Constant {
    /// The index of its line.
    pub(super) line: usize,
    /// Where it begins in the line, in bytes.
    pub(super) column: usize,
    /// As it is written, with its suffix.
    pub(super) text: String,
}

impl Constant {
    /// [`another`].
    pub(super) fn changed(&self, more: u64) -> Option<String> {
        another(&self.text, more)
    }
}

/// Another constant, greater by `more`, of the same base and suffix; `None` where there is no room.
pub(super) fn another(text: &str, more: u64) -> Option<String> {
    let (digits, suffix) = text.split_at(text.trim_end_matches(['u', 'U', 'l', 'L']).len());
    if let Some(digits) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        let value = u64::from_str_radix(digits, 16).ok()?.checked_add(more)?;
        return Some(format!("{value:#x}{suffix}"));
    }
    // Octal constants are file modes: one more would not be octal.
    let is_decimal = digits == "0" || !digits.starts_with('0');
    let value = digits.parse::<u64>().ok().filter(|_| is_decimal)?.checked_add(more)?;
    Some(format!("{value}{suffix}"))
}

/// The constants of a line that neither a comment nor a directive goes on into, each with its column.
pub(super) fn in_line(line: &[u8]) -> Vec<(usize, String)> {
    State::default().scan(line)
}

/// Finds them. The kernel's style is trusted (Documentation/process/coding-style.rst, section 3): a function's body is
/// between a `{` and a `}` in the first column.
pub(super) fn find(lines: &[&[u8]]) -> Vec<Constant> {
    let mut found = Vec::new();
    let mut state = State::default();
    let mut in_body = false;
    for (number, line) in lines.iter().enumerate() {
        let starts_fresh = !state.in_comment && !state.continued;
        match line.first() {
            Some(b'{') if starts_fresh => in_body = true,
            Some(b'}') if starts_fresh => in_body = false,
            _ => {}
        }
        let here = state.scan(line);
        if in_body {
            found.extend(here.into_iter().map(|(column, text)| Constant { line: number, column, text }));
        }
    }
    found
}

/// What goes on from one line to the next.
#[derive(Debug, Default)]
struct State {
    in_comment: bool,
    /// The last line ended in a backslash.
    continued: bool,
    /// In a directive, or in a label of a switch, where another constant may be a duplicate.
    is_directive: bool,
}

impl State {
    /// The constants of a line, each with its column.
    fn scan(&mut self, line: &[u8]) -> Vec<(usize, String)> {
        let trimmed = line.trim_ascii();
        if !self.continued && !self.in_comment {
            self.is_directive = trimmed.starts_with(b"#");
        }
        let skips =
            self.is_directive || self.continued || trimmed.starts_with(b"case ") || trimmed.contains(&b'"');
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(&byte) = line.get(at) {
            let rest = line.get(at..).unwrap_or_default();
            at += match byte {
                _ if self.in_comment => {
                    self.in_comment = !rest.starts_with(b"*/");
                    if self.in_comment { 1 } else { 2 }
                }
                b'/' if rest.starts_with(b"/*") => {
                    self.in_comment = true;
                    2
                }
                b'/' if rest.starts_with(b"//") => break,
                b'"' | b'\'' => quoted(rest, byte),
                byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                    let word = rest
                        .iter()
                        .take_while(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(byte))
                        .count();
                    let text = String::from_utf8_lossy(rest.get(..word).unwrap_or_default()).into_owned();
                    if byte.is_ascii_digit() && !skips && !text.contains(['.', '_']) {
                        found.push((at, text));
                    }
                    word
                }
                _ => 1,
            };
        }
        self.continued = trimmed.ends_with(b"\\");
        found
    }
}

/// The length of a string or character constant that begins here; to the line's end if it is not closed.
fn quoted(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        if byte == quote {
            return at + 1;
        }
        at += if byte == b'\\' { 2 } else { 1 };
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let lines: Vec<&[u8]> = text.as_bytes().split_inclusive(|&byte| byte == b'\n').collect();
        find(&lines)
            .into_iter()
            .map(|constant| format!("{}:{}:{}", constant.line, constant.column, constant.text))
            .collect()
    }

    #[test]
    fn only_constants_of_functions_are_found() {
        assert_eq!(
            found(
                "int a = 1;\nint f(void)\n{\n\tint x2 = 0x10UL; /* 3\n 4 */ return '5' + g(6);\n}\nint b = 7;\n"
            ),
            ["3:10:0x10UL", "4:21:6"]
        );
        assert_eq!(
            found(
                "int f(void)\n{\n#if 1\n\tcase 2:\n\tp(\"3\", 4);\n\td = 5.0; // 6\n#define X \\\n\t7\n}\n"
            ),
            [] as [&str; 0]
        );
    }

    #[test]
    fn base_and_suffix_stay() {
        let changed = |text: &str| Constant { line: 0, column: 0, text: text.into() }.changed(2);
        assert_eq!(changed("0xffUL").as_deref(), Some("0x101UL"));
        assert_eq!(changed("9u").as_deref(), Some("11u"));
        assert_eq!(changed("0").as_deref(), Some("2"));
        assert_eq!(changed("0644"), None);
        assert_eq!(changed("18446744073709551615"), None);
    }
}
