//! The two disassemblies side by side.
//!
//! The instructions are aligned by their keys, in which places within the function do not show, so that code that
//! only moved is the same. Whether a branch still goes to the same instruction is known once all is aligned.

use crate::explanation::{CONTEXT, EXCERPT, Instruction, Piece, Row, Stretch};
use crate::instructions::{Decoded, disassemble};
use crate::side::{self, Side};
use crate::visible::visible;
use kmend_diff::FunctionChange;
use similar::{Algorithm, DiffOp, capture_diff_slices};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// Beyond this product of the two sides' differing lengths they are not aligned but set side by side as they are: the
/// time of an alignment grows with it. Two wholly different functions of 8,000 instructions are just below.
const LARGEST_ALIGNMENT: usize = 64_000_000;
/// How many differing rows of one function are kept.
const FUNCTION_ROOM: usize = 4_000;

/// How many rows there is still room for, so that the explanation of a large livepatch can still be looked at.
#[derive(Debug)]
pub(crate) struct Room {
    differing: usize,
    same: usize,
}

impl Default for Room {
    fn default() -> Self {
        Room { differing: 24_000, same: 12_000 }
    }
}

/// Two instructions that stand beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    original: Option<usize>,
    patched: Option<usize>,
    differs: bool,
}

/// One piece of one side, disassembled.
struct Code {
    range: side::Range,
    instructions: Vec<Decoded>,
}

/// The pieces of a function with their rows.
pub(crate) fn pieces(
    original: &Side<'_>,
    patched: &Side<'_>,
    change: &FunctionChange,
    room: &mut Room,
) -> Vec<Piece> {
    let before = change.sides.original.map(|symbol| original.pieces(symbol)).unwrap_or_default();
    let after = patched.pieces(change.sides.patched);
    let suffixes: BTreeSet<&String> = before.iter().chain(&after).map(|(suffix, _)| suffix).collect();
    let code = |side: &Side<'_>, pieces: &[(String, side::Range)], suffix: &str| {
        let number = pieces.iter().position(|(other, _)| other == suffix)?;
        let range = pieces.get(number)?.1;
        Some((number, Code { range, instructions: disassemble(side, pieces, number) }))
    };
    let mut both: Vec<_> = suffixes
        .into_iter()
        .map(|suffix| {
            let (old, new) = (code(original, &before, suffix), code(patched, &after, suffix));
            let pairs = align(instructions(old.as_ref()), instructions(new.as_ref()));
            (old, new, pairs)
        })
        .collect();
    let partners = Partners::of(&both);
    for (old, new, pairs) in &mut both {
        partners.check(instructions(old.as_ref()), instructions(new.as_ref()), pairs);
    }
    if both.iter().all(|(_, _, pairs)| pairs.iter().all(|pair| !pair.differs)) {
        // Only the compiler's numbers are left to tell the two apart: other functions or constants are meant.
        for (old, new, pairs) in &mut both {
            check_texts(instructions(old.as_ref()), instructions(new.as_ref()), pairs);
        }
    }
    let mut left = FUNCTION_ROOM;
    both.iter()
        .map(|(old, new, pairs)| {
            let (old, new) = (old.as_ref().map(|it| &it.1), new.as_ref().map(|it| &it.1));
            let name = match (new, old) {
                (Some(new), _) => patched.name(Some(new.range.symbol)),
                (None, Some(old)) => original.name(Some(old.range.symbol)),
                (None, None) => None,
            };
            let row = |pair: &Pair| Row {
                differs: pair.differs,
                original: old.zip(pair.original).and_then(|(code, at)| code.show(original, at)),
                patched: new.zip(pair.patched).and_then(|(code, at)| code.show(patched, at)),
            };
            Piece {
                name: name.unwrap_or_default(),
                original: old.map_or(0, |code| code.instructions.len()),
                patched: new.map_or(0, |code| code.instructions.len()),
                differing: pairs.iter().filter(|pair| pair.differs).count(),
                stretches: stretches(pairs, row, room, &mut left),
            }
        })
        .collect()
}

type Numbered = Option<(usize, Code)>;

fn instructions(code: Option<&(usize, Code)>) -> &[Decoded] {
    code.map_or(&[], |(_, code)| &code.instructions)
}

impl Code {
    fn show(&self, side: &Side<'_>, at: usize) -> Option<Instruction> {
        let decoded = self.instructions.get(at)?;
        let place = self.range.start.checked_add(decoded.offset)?;
        Some(Instruction {
            offset: decoded.offset,
            text: visible(&decoded.text),
            place: side.place(self.range.section, place),
        })
    }
}

/// Aligns two lists of instructions by their keys.
fn align(before: &[Decoded], after: &[Decoded]) -> Vec<Pair> {
    let same = |(one, other): &(&Decoded, &Decoded)| one.key == other.key;
    let head = before.iter().zip(after).take_while(same).count();
    let (rest, other_rest) = (&before[head..], &after[head..]);
    let tail = rest.iter().rev().zip(other_rest.iter().rev()).take_while(same).count();
    let (old, new) = (&rest[..rest.len() - tail], &other_rest[..other_rest.len() - tail]);
    let mut pairs = Vec::new();
    equal(&mut pairs, 0, 0, head);
    if old.len().saturating_mul(new.len()) > LARGEST_ALIGNMENT {
        beside(&mut pairs, (before, head..head + old.len()), (after, head..head + new.len()));
    } else {
        let (old, new): (Vec<&str>, Vec<&str>) = (keys(old), keys(new));
        for op in capture_diff_slices(Algorithm::Myers, &old, &new) {
            let (a, b) = (op.old_range(), op.new_range());
            if let DiffOp::Equal { len, .. } = op {
                equal(&mut pairs, head + a.start, head + b.start, len);
            } else {
                let (old, new) = (head + a.start..head + a.end, head + b.start..head + b.end);
                beside(&mut pairs, (before, old), (after, new));
            }
        }
    }
    equal(&mut pairs, head + old.len(), head + new.len(), tail);
    pairs
}

fn keys(list: &[Decoded]) -> Vec<&str> {
    list.iter().map(|decoded| decoded.key.as_str()).collect()
}

fn equal(pairs: &mut Vec<Pair>, original: usize, patched: usize, count: usize) {
    let pair = |at| Pair { original: Some(original + at), patched: Some(patched + at), differs: false };
    pairs.extend((0..count).map(pair));
}

/// What has no certain counterpart, one beside the other as far as both reach.
fn beside(
    pairs: &mut Vec<Pair>,
    (before, mut original): (&[Decoded], Range<usize>),
    (after, mut patched): (&[Decoded], Range<usize>),
) {
    while !original.is_empty() || !patched.is_empty() {
        let (original, patched) = (original.next(), patched.next());
        let key = |list: &[Decoded], at: Option<usize>| Some(list.get(at?)?.key.clone());
        let differs = key(before, original) != key(after, patched);
        pairs.push(Pair { original, patched, differs });
    }
}

/// Which instruction of the patched function stands beside which of the original.
struct Partners {
    /// By piece of the original and offset in it.
    original: HashMap<(usize, u64), (usize, u64)>,
}

impl Partners {
    fn of(all: &[(Numbered, Numbered, Vec<Pair>)]) -> Self {
        let mut original = HashMap::new();
        for (old, new, pairs) in all {
            let (Some((a, old)), Some((b, new))) = (old, new) else { continue };
            for pair in pairs {
                let sides = pair.original.zip(pair.patched);
                let found =
                    sides.and_then(|(x, y)| Some((old.instructions.get(x)?, new.instructions.get(y)?)));
                if let Some((x, y)) = found {
                    original.insert((*a, x.offset), (*b, y.offset));
                }
            }
        }
        Partners { original }
    }

    /// Marks the branches that go to another instruction than before.
    fn check(&self, old: &[Decoded], new: &[Decoded], pairs: &mut [Pair]) {
        for pair in pairs.iter_mut().filter(|pair| !pair.differs) {
            let target = |list: &[Decoded], at: Option<usize>| list.get(at?)?.inside;
            let (before, after) = (target(old, pair.original), target(new, pair.patched));
            if let (Some(before), Some(after)) = (before, after) {
                pair.differs = self.original.get(&before) != Some(&after);
            }
        }
    }
}

/// Marks the instructions whose texts differ in more than a place in the function.
fn check_texts(old: &[Decoded], new: &[Decoded], pairs: &mut [Pair]) {
    for pair in pairs {
        let text = |list: &[Decoded], at: Option<usize>| {
            list.get(at?).filter(|decoded| decoded.inside.is_none()).map(|decoded| decoded.text.clone())
        };
        pair.differs = text(old, pair.original) != text(new, pair.patched);
    }
}

/// Cuts rows into stretches, and keeps as many as there is room for.
fn stretches(pairs: &[Pair], row: impl Fn(&Pair) -> Row, room: &mut Room, left: &mut usize) -> Vec<Stretch> {
    let mut near = vec![false; pairs.len()];
    for at in pairs.iter().enumerate().filter(|(_, pair)| pair.differs).map(|(at, _)| at) {
        let end = (at + CONTEXT + 1).min(pairs.len());
        near[at.saturating_sub(CONTEXT)..end].fill(true);
    }
    let mut stretches = Vec::new();
    let mut start = 0;
    while start < pairs.len() {
        let differs = near[start];
        let count = near[start..].iter().take_while(|&&other| other == differs).count();
        let group = &pairs[start..start + count];
        start += count;
        stretches.push(if differs {
            // Of every function at least the first difference is kept.
            let first = if *left == FUNCTION_ROOM { EXCERPT } else { 0 };
            let kept = count.min((*left).min(room.differing).max(first));
            *left = left.saturating_sub(kept);
            room.differing = room.differing.saturating_sub(kept);
            Stretch::Differs { count, rows: group[..kept].iter().map(&row).collect() }
        } else {
            let kept = if count <= room.same { count } else { 0 };
            room.same -= kept;
            Stretch::Same { count, rows: group[..kept].iter().map(&row).collect() }
        });
    }
    stretches
}
