//! The packed names, their count before them and their markers after them.

use super::align;
use super::tokens::Tokens;
use crate::le;
use std::ops::Range;

/// One marker for so many names.
const MARKER_STEP: usize = 256;
/// More symbols than 3 bytes can number cannot be (`kallsyms_seqs_of_names`).
const MOST: usize = 1 << 24;
/// Longest name, in bytes: `KSYM_NAME_LEN` is 512 (since 6.1, b8a94bfb3395), and a table may raise it.
const LONGEST: usize = 2048;
/// Names grow at most so many times when they are expanded, all together; 2.5 times is usual.
const LARGEST_RATIO: usize = 32;

/// The names' tables, not yet expanded.
pub(super) struct Names {
    /// Where the count is, the first of the tables.
    pub(super) start: usize,
    /// How many names there are.
    pub(super) count: usize,
    /// Where `kallsyms_seqs_of_names` is, if it is among these tables.
    pub(super) seqs: Option<usize>,
    /// The packed names.
    packed: Range<usize>,
}

/// One expanded name, without the type that is its first byte.
pub(super) struct Name {
    pub(super) kind: u8,
    pub(super) name: Box<str>,
}

/// The nearest tables before `before` that end where the token table begins.
pub(super) fn find_before(
    section: &[u8],
    before: usize,
    tokens: &Tokens<'_>,
    steps: &mut usize,
) -> Option<Names> {
    let last = before.checked_sub(16)? & !7;
    let mut start = last;
    while *steps > 0 {
        *steps -= 1;
        if let Some(names) = read_at(section, start, tokens.start, steps) {
            return Some(names);
        }
        start = start.checked_sub(8)?;
    }
    None
}

/// The tables at `start`, if a count is there and everything that follows it fits up to `end`.
fn read_at(section: &[u8], start: usize, end: usize, steps: &mut usize) -> Option<Names> {
    // The count is a 32-bit number and padding; before 5.0 it had 64 bits. Both read the same.
    let count = usize::try_from(le::u64_at(section, start)?).ok()?;
    let first = start + 8;
    // Each name takes at least its length and one byte.
    if count == 0 || count > MOST || count * 2 > end.checked_sub(first)? {
        return None;
    }
    let (packed_end, markers) = walk(section, first, count, end, steps)?;
    let at = align(packed_end);
    let equal = markers.iter().enumerate().all(|(number, &marker)| {
        le::u32_at(section, at + number * size_of::<u32>()).is_some_and(|found| found as usize == marker)
    });
    if !equal {
        return None;
    }
    let after = align(at + markers.len() * size_of::<u32>());
    let seqs = if after == end {
        None
    } else if align(after + count * SEQ) == end {
        Some(after)
    } else {
        return None;
    };
    Some(Names { start, count, seqs, packed: first..packed_end })
}

/// Where the names end, and the offset of every 256th, if there are `count` of them before `end`.
fn walk(
    section: &[u8],
    first: usize,
    count: usize,
    end: usize,
    steps: &mut usize,
) -> Option<(usize, Vec<usize>)> {
    let mut at = first;
    let mut markers = Vec::new();
    for number in 0..count {
        if number % MARKER_STEP == 0 {
            markers.push(at - first);
        }
        *steps = steps.checked_sub(1)?;
        let (length, header) = length_at(section, at)?;
        at += header + length;
        if length == 0 || at > end {
            return None;
        }
    }
    Some((at, markers))
}

/// A name's length and the bytes that the length itself takes: ULEB128 of up to two bytes since 6.1
/// (73bbb94466fd). Before, lengths had one byte, and none above 127 could occur.
fn length_at(section: &[u8], at: usize) -> Option<(usize, usize)> {
    let low = usize::from(*section.get(at)?);
    if low < 0x80 {
        return Some((low, 1));
    }
    let high = usize::from(*section.get(at + 1)?);
    Some((low & 0x7f | high << 7, 2))
}

impl Names {
    /// The names in full; `None` where one is no text or longer than any name is.
    pub(super) fn expand(&self, section: &[u8], tokens: &Tokens<'_>) -> Option<Vec<Name>> {
        let mut names = Vec::with_capacity(self.count);
        let mut room = self.packed.len().saturating_mul(LARGEST_RATIO);
        let mut at = self.packed.start;
        let mut full = Vec::with_capacity(LONGEST);
        for _ in 0..self.count {
            let (length, header) = length_at(section, at)?;
            let packed = section.get(at + header..at + header + length)?;
            at += header + length;
            full.clear();
            for &byte in packed {
                full.extend_from_slice(tokens.text(byte));
                if full.len() > LONGEST {
                    return None;
                }
            }
            room = room.checked_sub(full.len())?;
            let (&kind, name) = full.split_first()?;
            let name = std::str::from_utf8(name).ok().filter(|_| kind.is_ascii_graphic())?;
            names.push(Name { kind, name: name.into() });
        }
        Some(names)
    }
}

/// Bytes of an entry of `kallsyms_seqs_of_names`.
pub(super) const SEQ: usize = 3;

/// The symbols' numbers in the order of their names, if the table is a permutation.
pub(super) fn read_seqs(section: &[u8], at: usize, count: usize) -> Option<Vec<u32>> {
    let bytes = section.get(at..at.checked_add(count.checked_mul(SEQ)?)?)?;
    let mut seen = vec![false; count];
    bytes
        .chunks_exact(SEQ)
        .map(|entry| {
            // Big-endian: `get_symbol_seq` in kernel/kallsyms.c.
            let number = u32::from_be_bytes([0, entry[0], entry[1], entry[2]]);
            let seen = seen.get_mut(number as usize)?;
            (!std::mem::replace(seen, true)).then_some(number)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_big_symbol_has_a_length_of_two_bytes() {
        assert_eq!(length_at(&[0x7f], 0), Some((0x7f, 1)));
        assert_eq!(length_at(&[0x81, 0x02], 0), Some((0x101, 2)));
        assert_eq!(length_at(&[0x81], 0), None);
    }

    #[test]
    fn seqs_must_be_a_permutation() {
        assert_eq!(read_seqs(&[0, 0, 1, 0, 0, 0], 0, 2), Some(vec![1, 0]));
        assert_eq!(read_seqs(&[0, 0, 1, 0, 0, 1], 0, 2), None);
        assert_eq!(read_seqs(&[0, 0, 1, 0, 0, 2], 0, 2), None);
        assert_eq!(read_seqs(&[0, 0, 1], 0, 2), None);
    }
}
