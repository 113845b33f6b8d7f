//! The text of source lines.

use crate::explanation::Place;
use crate::visible::visible;
use std::cell::RefCell;
use std::collections::HashMap;

/// How much of a source line is shown, in characters.
const LONGEST_LINE: usize = 200;

/// A line of a source file with the number that the compiler has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedLine {
    /// From 1. Not always in order: a patched file's lines have numbers of the original.
    pub number: u32,
    /// Without its end.
    pub text: String,
}

/// Gives a file's lines, by its path from the tree's root or a whole one; `None` if there is no such file.
pub type Read<'a> = &'a dyn Fn(&str) -> Option<Vec<NumberedLine>>;

/// What the two sides were compiled from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The original's files.
    pub original: Read<'a>,
    /// The patched files.
    pub patched: Read<'a>,
}

impl NumberedLine {
    /// The lines of a file that no patch changes.
    pub fn of_file(bytes: &[u8]) -> Vec<NumberedLine> {
        let lines = String::from_utf8_lossy(bytes);
        lines.lines().zip(1..).map(|(text, number)| NumberedLine { number, text: text.to_owned() }).collect()
    }
}

/// The lines by their numbers; `None` for a file that cannot be read.
type File = Option<HashMap<u32, Vec<String>>>;

/// One side's files, each read once.
pub(crate) struct Files<'a> {
    read: Read<'a>,
    known: RefCell<HashMap<String, File>>,
}

impl<'a> Files<'a> {
    pub(crate) fn new(read: Read<'a>) -> Self {
        Files { read, known: RefCell::default() }
    }

    /// A place with its text. Of several lines with one number those are taken that have a word at the column.
    pub(crate) fn place(&self, file: &str, line: u32, column: Option<u32>, others: &Files<'_>) -> Place {
        let mut text = self.text(file, line);
        text.dedup();
        if let (Some(column), 2..) = (column, text.len()) {
            let fitting: Vec<String> =
                text.iter().filter(|line| begins_a_word(line, column)).cloned().collect();
            if !fitting.is_empty() {
                text = fitting;
            }
        }
        let other = others.text(file, line);
        let touched = text.iter().any(|line| !other.contains(line));
        Place { file: visible(file), line, text, touched }
    }

    /// The lines of a number.
    fn text(&self, file: &str, line: u32) -> Vec<String> {
        let mut known = self.known.borrow_mut();
        if !known.contains_key(file) {
            known.insert(file.to_owned(), self.load(file));
        }
        let lines = known.get(file).and_then(Option::as_ref);
        lines.and_then(|lines| lines.get(&line)).cloned().unwrap_or_default()
    }

    fn load(&self, file: &str) -> File {
        let mut lines: HashMap<u32, Vec<String>> = HashMap::new();
        for line in (self.read)(file)? {
            let text: String = line.text.trim_end().chars().take(LONGEST_LINE).collect();
            lines.entry(line.number).or_default().push(visible(&text));
        }
        Some(lines)
    }
}

/// Whether the compiler can mean this line by a column: a token begins there.
fn begins_a_word(line: &str, column: u32) -> bool {
    let Some(at) = (column as usize).checked_sub(1) else { return true };
    let bytes = line.as_bytes();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let before = at.checked_sub(1).and_then(|before| bytes.get(before));
    match bytes.get(at) {
        None => false,
        Some(byte) if byte.is_ascii_whitespace() => false,
        Some(&byte) => !(is_word(byte) && before.is_some_and(|&before| is_word(before))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_two_lines_share_is_told_by_the_column() {
        let line = |number, text: &str| NumberedLine { number, text: text.into() };
        let read = |file: &str| {
            (file == "a.c")
                .then(|| vec![line(1, "int f(void)"), line(2, "\tif (x)"), line(2, "\t\treturn\u{202e};")])
        };
        let other = |_: &str| Some(vec![line(2, "\tif (x)")]);
        let (files, others) = (Files::new(&read), Files::new(&other));
        let place = |file: &str, line, column| files.place(file, line, column, &others);
        let added = place("a.c", 2, Some(3));
        assert_eq!(added.text, ["\t\treturn\\u{202e};"]);
        let kept = place("a.c", 2, Some(2));
        assert_eq!(kept.text, ["\tif (x)"]);
        assert!(added.touched && !kept.touched);
        assert_eq!(place("a.c", 2, None).text.len(), 2, "not known which");
        assert_eq!(place("a.c", 2, Some(99)).text.len(), 2);
        assert!(place("b.c", 2, None).text.is_empty() && place("a.c", 9, None).text.is_empty());
    }
}
