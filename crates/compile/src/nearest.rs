//! Where in a file a hunk would nearly fit, to show why it does not.

use std::hash::{BuildHasher, RandomState};

/// How many comparisons of lines a search may take; beyond it, only the neighbourhood is searched.
const MOST_COMPARISONS: usize = 20_000_000;

/// The best place for some lines that stand nowhere in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    /// The line of the file at which the place starts, from 0.
    pub start: usize,
    /// The index of the first line that differs, in the lines looked for.
    pub differs: usize,
}

/// The place in `file` at which most of `wanted` stands, nearest to `expected`; `None` if none of it does.
pub fn nearest(file: &[&[u8]], wanted: &[&[u8]], expected: usize) -> Option<Nearest> {
    let state = RandomState::new();
    let hash = |lines: &[&[u8]]| -> Vec<u64> { lines.iter().map(|line| state.hash_one(line)).collect() };
    let (file_hashes, wanted_hashes) = (hash(file), hash(wanted));
    let width = MOST_COMPARISONS / wanted.len().max(1);
    let (from, to) = (expected.saturating_sub(width / 2), expected.saturating_add(width / 2).min(file.len()));
    let equal = |start: usize| -> usize {
        let here = file_hashes.get(start..).unwrap_or_default();
        // A blank line or a brace alone says nothing about the place.
        let counts = |line: &[u8]| line.iter().filter(|byte| !byte.is_ascii_whitespace()).count() > 1;
        here.iter()
            .zip(&wanted_hashes)
            .zip(wanted)
            .filter(|((found, wanted), line)| found == wanted && counts(line))
            .count()
    };
    let best = (from..to)
        .map(|start| (equal(start), start))
        .filter(|(equal, _)| *equal > 0)
        .max_by_key(|(equal, start)| (*equal, std::cmp::Reverse(start.abs_diff(expected))))?;
    let start = best.1;
    let differs =
        wanted.iter().enumerate().position(|(index, line)| file.get(start + index) != Some(line))?;
    Some(Nearest { start, differs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<&[u8]> {
        text.split_inclusive('\n').map(str::as_bytes).collect()
    }

    #[test]
    fn the_place_with_most_equal_lines_wins_then_the_nearest() {
        let file = lines("aa\nbb\ncc\ndd\nbb\nxx\ndd\n");
        assert_eq!(nearest(&file, &lines("bb\ncx\ndd\n"), 0), Some(Nearest { start: 1, differs: 1 }));
        assert_eq!(nearest(&file, &lines("bb\ncx\ndd\n"), 6), Some(Nearest { start: 4, differs: 1 }));
        assert_eq!(nearest(&file, &lines("nowhere\n"), 0), None);
    }

    #[test]
    fn the_end_of_the_file_differs_too() {
        assert_eq!(
            nearest(&lines("aa\nbb\n"), &lines("bb\ncc\n"), 0),
            Some(Nearest { start: 1, differs: 1 })
        );
    }
}
