//! The token table: 256 texts, one for each byte of a packed name, and the index of where each begins.

use crate::le;
use std::ops::Range;

/// Texts in the table.
const COUNT: usize = 256;
/// Longest text of one token, in bytes: a token cannot be longer than a symbol (`KSYM_NAME_LEN` is 512).
const LONGEST: usize = 512;

/// A token table with its index.
pub(super) struct Tokens<'a> {
    /// Where the table begins in its section.
    pub(super) start: usize,
    /// Where the index after it ends.
    pub(super) end: usize,
    texts: Vec<&'a [u8]>,
}

impl<'a> Tokens<'a> {
    /// The text that a byte of a packed name stands for.
    pub(super) fn text(&self, byte: u8) -> &'a [u8] {
        self.texts.get(usize::from(byte)).copied().unwrap_or_default()
    }
}

/// Everything in the section that is built like a token table and its index.
pub(super) fn candidates(section: &[u8]) -> impl Iterator<Item = Tokens<'_>> {
    // The labels are aligned to 8 bytes; 4 costs little more and takes in the 32-bit ALGN.
    (0..section.len()).step_by(4).filter_map(|at| {
        let index = read_index(section, at)?;
        table_before(section, at, &index)
    })
}

/// The 256 offsets at `at`, if they begin with 0 and rise: every text takes at least its terminator.
fn read_index(section: &[u8], at: usize) -> Option<Vec<u16>> {
    // The first two decide nearly always; only then is it worth looking at them all.
    if le::u16_at(section, at)? != 0 || le::u16_at(section, at + 2)? == 0 {
        return None;
    }
    let bytes = section.get(at..at + COUNT * size_of::<u16>())?;
    let rising = bytes
        .windows(4)
        .step_by(2)
        .all(|pair| u16::from_le_bytes([pair[0], pair[1]]) < u16::from_le_bytes([pair[2], pair[3]]));
    rising.then(|| bytes.chunks_exact(2).map(|entry| u16::from_le_bytes([entry[0], entry[1]])).collect())
}

/// The table that ends where the index begins. Its last text's length is in no index, so each aligned start
/// is tried, from the shortest text to the longest.
fn table_before<'a>(section: &'a [u8], index_start: usize, index: &[u16]) -> Option<Tokens<'a>> {
    let last = usize::from(*index.last()?);
    let latest = index_start.checked_sub(last + 1)? & !3;
    let earliest = latest.saturating_sub(LONGEST + 8) & !3;
    (earliest..=latest).rev().step_by(4).find_map(|start| {
        let table = section.get(start..index_start)?;
        let texts = texts(table, index)?;
        Some(Tokens { start, end: index_start + COUNT * size_of::<u16>(), texts })
    })
}

/// The texts, if each ends where the next begins and only padding follows the last.
fn texts<'a>(table: &'a [u8], index: &[u16]) -> Option<Vec<&'a [u8]>> {
    let ends = index.iter().skip(1).map(|&next| usize::from(next));
    let begins = index.iter().map(|&begin| usize::from(begin));
    let last = usize::from(*index.last()?);
    let last_end = last + table.get(last..)?.iter().position(|&byte| byte == 0)? + 1;
    let padding = table.get(last_end..)?;
    if padding.len() >= 8 || padding.iter().any(|&byte| byte != 0) {
        return None;
    }
    begins.zip(ends.chain([last_end])).map(|(begin, end)| text(table, begin..end)).collect()
}

/// One text without its terminator, if that is the only NUL in the range.
fn text(table: &[u8], range: Range<usize>) -> Option<&[u8]> {
    let (&terminator, text) = table.get(range)?.split_last()?;
    (terminator == 0 && text.len() <= LONGEST && !text.contains(&0)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(texts: &[&str]) -> (Vec<u8>, usize) {
        let mut table = vec![0xee; 16];
        let mut index = Vec::new();
        for number in 0..COUNT {
            index.extend_from_slice(&u16::try_from(table.len() - 16).unwrap().to_le_bytes());
            table.extend_from_slice(texts.get(number).unwrap_or(&"").as_bytes());
            table.push(0);
        }
        table.resize(super::super::align(table.len()), 0);
        let index_start = table.len();
        table.extend_from_slice(&index);
        table.extend_from_slice(&[0xee; 16]);
        (table, index_start)
    }

    #[test]
    fn finds_the_table_and_its_texts() {
        let (section, index_start) = table(&["one", "", "two"]);
        let found: Vec<_> = candidates(&section).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].start, found[0].end), (16, index_start + 512));
        assert_eq!(found[0].text(0), b"one");
        assert_eq!(found[0].text(1), b"");
        assert_eq!(found[0].text(2), b"two");
    }

    #[test]
    fn a_missing_terminator_spoils_it() {
        let (mut section, _) = table(&["one", "two"]);
        section[16 + 3] = b'x';
        assert_eq!(candidates(&section).count(), 0);
    }
}
