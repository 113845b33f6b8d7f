//! The addresses, in whichever place and encoding they are.

use super::align;
use super::names::{Name, Names};
use super::tokens::Tokens;
use crate::le;
use std::ops::Range;

/// The addresses of all names.
pub(super) struct Addresses {
    /// One for each name.
    pub(super) values: Vec<u64>,
    /// Where `kallsyms_seqs_of_names` is.
    pub(super) seqs: Option<usize>,
}

/// How an entry of the table tells an address.
#[derive(Clone, Copy)]
enum Encoding {
    /// It is the address, 64 bits (without `CONFIG_KALLSYMS_BASE_RELATIVE`; gone in 6.11).
    Absolute,
    /// 32 bits, unsigned, to add to the base.
    Relative(u64),
    /// 32 bits, signed: not negative is the address itself (per-CPU), negative is `base - 1 - entry`
    /// (`CONFIG_KALLSYMS_ABSOLUTE_PERCPU`; gone in 6.15).
    PercpuRelative(u64),
    /// 32 bits, signed, to add to the entry's own address; of the table, whose address this is.
    PlaceRelative(u64),
}

impl Encoding {
    /// Bytes of an entry.
    fn width(self) -> usize {
        match self {
            Encoding::Absolute => 8,
            Encoding::Relative(_) | Encoding::PercpuRelative(_) | Encoding::PlaceRelative(_) => 4,
        }
    }

    fn decode(self, section: &[u8], table: usize, number: usize) -> Option<u64> {
        let at = table.checked_add(number.checked_mul(self.width())?)?;
        match self {
            Encoding::Absolute => le::u64_at(section, at),
            Encoding::Relative(base) => Some(base.wrapping_add(le::u32_at(section, at)?.into())),
            Encoding::PercpuRelative(base) => {
                let entry = i64::from(le::i32_at(section, at)?);
                Some(if entry >= 0 { entry as u64 } else { base.wrapping_sub(1).wrapping_add_signed(-entry) })
            }
            Encoding::PlaceRelative(address) => {
                let place = address.wrapping_add(number as u64 * 4);
                Some(place.wrapping_add_signed(le::i32_at(section, at)?.into()))
            }
        }
    }
}

/// The addresses that fit the names, in a section linked at `address`: `None` when no place and no encoding
/// does.
pub(super) fn find(
    section: &[u8],
    address: u64,
    names: &Names,
    tokens: &Tokens<'_>,
    anchor: &Anchor,
) -> Option<Addresses> {
    let before = before_count(section, names);
    let after = after_index(section, address, names.count, align(tokens.end));
    before.into_iter().chain(after).flatten().find_map(|place| {
        // The anchor first: it is one entry, and decides nearly always.
        let found = place.encoding.decode(section, place.table, anchor.number)?;
        if !anchor.allowed.contains(&found) {
            return None;
        }
        let values = (0..names.count)
            .map(|number| place.encoding.decode(section, place.table, number))
            .collect::<Option<Vec<_>>>()?;
        values.is_sorted().then_some(Addresses { values, seqs: place.seqs.or(names.seqs) })
    })
}

/// A symbol whose address is known from the sections.
pub(super) struct Anchor {
    number: usize,
    allowed: Range<u64>,
}

impl Anchor {
    /// `_text` is where `.text` begins (arch/x86/kernel/vmlinux.lds.S); `_stext` is in it.
    pub(super) fn among(symbols: &[Name], text: &Range<u64>) -> Option<Anchor> {
        let number = |wanted: &str| symbols.iter().position(|symbol| &*symbol.name == wanted);
        if let Some(number) = number("_text") {
            return Some(Anchor { number, allowed: text.start..text.start.saturating_add(1) });
        }
        number("_stext").map(|number| Anchor { number, allowed: text.clone() })
    }
}

/// A place where the addresses may be, and how they may be told there.
struct Place {
    encoding: Encoding,
    table: usize,
    seqs: Option<usize>,
}

/// Until 6.3: offsets and base, or addresses, end where the count begins.
fn before_count(section: &[u8], names: &Names) -> [Option<Place>; 3] {
    let place = |encoding, table| Place { encoding, table, seqs: None };
    let base_at = names.start.checked_sub(8);
    let table = base_at.and_then(|base| base.checked_sub(align(names.count * 4)));
    let relative = table.zip(base_at.and_then(|at| le::u64_at(section, at)));
    let addresses = names.start.checked_sub(names.count * 8);
    [
        relative.map(|(table, base)| place(Encoding::PercpuRelative(base), table)),
        relative.map(|(table, base)| place(Encoding::Relative(base), table)),
        addresses.map(|table| place(Encoding::Absolute, table)),
    ]
}

/// Since 6.4: after the token index come offsets and base, offsets without a base, or addresses; then seqs.
fn after_index(section: &[u8], address: u64, count: usize, table: usize) -> [Option<Place>; 4] {
    let place = |encoding, seqs| Place { encoding, table, seqs: Some(seqs) };
    let base_at = table + align(count * 4);
    let base = le::u64_at(section, base_at);
    [
        base.map(|base| place(Encoding::PercpuRelative(base), base_at + 8)),
        base.map(|base| place(Encoding::Relative(base), base_at + 8)),
        Some(place(Encoding::PlaceRelative(address.wrapping_add(table as u64)), base_at)),
        Some(place(Encoding::Absolute, table + count * 8)),
    ]
}
