//! Bytes and references of what is placed, against what ships.

use crate::matched::{Difference, FunctionMatch, Outcome, SectionMatch};
use crate::place::Placement;
use crate::refer::{self, Wrong};
use crate::shipped::{Contents, Shipped};
use crate::show;
use crate::unit::{Stretch, Unit, is_merged};
use kmend_object::{Binding, Relocation, Section, SectionId, elf};
use std::ops::Range;

/// Sections that a tool fills in after the compiler: `resolve_btfids` writes type numbers (since 5.10,
/// 33a57ce0a54d).
const FILLED_IN: [&str; 1] = [".BTF_ids"];
/// Beginnings of names of sections that the kernel's linker script may leave out of the kernel proper
/// (include/asm-generic/vmlinux.lds.h, `DISCARDS`).
const DISCARDED: [&str; 2] = [".exit", ".discard"];

/// Differences that are counted to tell places apart; more make no difference.
const MOST_COUNTED: usize = 1 << 16;

/// A place where the two sides differ.
pub(crate) struct Finding<'a> {
    /// Offset in the section.
    pub(crate) offset: u64,
    pub(crate) what: What<'a>,
}

/// How they differ.
pub(crate) enum What<'a> {
    /// Another byte.
    Byte,
    /// A reference with something wrong about it.
    Reference(&'a Relocation, Wrong),
    /// A reference where the unit has none.
    Surplus,
    /// Nothing but its place: the symbol of this name is elsewhere.
    Misplaced,
    /// The shipped kernel ends before.
    Missing,
}

/// Goes through one stretch of a section, whose first byte should be at `at`, and gives the first `limit`
/// differences.
fn differences<'a>(
    unit: &'a Unit<'_>,
    shipped: &dyn Shipped,
    placement: &Placement,
    section: SectionId,
    range: &Range<u64>,
    at: u64,
    limit: usize,
) -> Vec<Finding<'a>> {
    let length = range.end.saturating_sub(range.start);
    let compiled = unit.object.section(section).bytes(range.start, length);
    let (Some(compiled), Contents::Held(held)) = (compiled, shipped.contents(at, length)) else {
        return vec![Finding { offset: range.start, what: What::Missing }];
    };
    let sides = Sides { compiled, held, start: range.start, at };
    let rewritten: Vec<Range<u64>> = unit
        .sites_in(section, range)
        .iter()
        .filter(|site| sides.holds(site.offset, site.rewritten))
        .map(|site| site.offset..site.offset + site.rewritten.len() as u64)
        .collect();
    let references = unit.relocations_in(section, range).iter();
    let references: Vec<_> =
        references.filter(|one| !rewritten.iter().any(|site| site.contains(&one.offset))).collect();
    let mut holes: Vec<Range<u64>> = references.iter().map(|one| hole(one)).chain(rewritten).collect();
    holes.sort_by_key(|hole| hole.start);
    let mut next = references.into_iter().peekable();
    let mut from = range.start;
    let mut found = Vec::new();
    for hole in holes.into_iter().chain(std::iter::once(range.end..range.end)) {
        sides.plain(shipped, from..hole.start, limit, &mut found);
        if let Some(reference) = next.next_if(|reference| reference.offset == hole.start) {
            let place = at.wrapping_add(reference.offset - range.start);
            if let Err(wrong) = refer::check(unit, shipped, placement, place, reference) {
                found.push(Finding { offset: reference.offset, what: What::Reference(reference, wrong) });
            }
        }
        if found.len() >= limit {
            break;
        }
        from = from.max(hole.end);
    }
    found
}

fn hole(relocation: &Relocation) -> Range<u64> {
    relocation.offset..relocation.offset.saturating_add(elf::width(relocation.kind).unwrap_or(0))
}

/// One stretch on both sides.
struct Sides<'s> {
    compiled: &'s [u8],
    held: &'s [u8],
    start: u64,
    at: u64,
}

impl Sides<'_> {
    fn piece<'s>(&self, bytes: &'s [u8], range: &Range<u64>) -> &'s [u8] {
        let offset = |at: u64| usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let end = offset(range.end).min(bytes.len());
        bytes.get(offset(range.start).min(end)..end).unwrap_or_default()
    }

    /// Whether the shipped side holds these bytes at an offset.
    fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        self.piece(self.held, &(offset..offset.saturating_add(bytes.len() as u64))) == bytes
    }

    /// Compares what is outside of holes.
    fn plain(&self, shipped: &dyn Shipped, range: Range<u64>, limit: usize, found: &mut Vec<Finding<'_>>) {
        if range.is_empty() {
            return;
        }
        let place = |offset: u64| self.at.wrapping_add(offset - self.start);
        if let Some(surplus) = shipped.has_relocation(place(range.start)..place(range.end)) {
            let offset = self.start.wrapping_add(surplus.wrapping_sub(self.at));
            found.push(Finding { offset, what: What::Surplus });
        }
        let (compiled, held) = (self.piece(self.compiled, &range), self.piece(self.held, &range));
        if compiled == held {
            return;
        }
        let bytes = compiled.iter().zip(held).enumerate().filter(|(_, (one, other))| one != other);
        let room = limit.saturating_sub(found.len());
        found.extend(
            bytes
                .take(room)
                .map(|(number, _)| Finding { offset: range.start + number as u64, what: What::Byte }),
        );
    }
}

/// How badly a section fits to a place: the number of differences, or more than any if it is not there.
pub(crate) fn misfit(
    unit: &Unit<'_>,
    shipped: &dyn Shipped,
    placement: &Placement,
    section: SectionId,
    base: u64,
) -> u64 {
    let parsed = unit.object.section(section);
    if parsed.kind == elf::SHT_NOBITS {
        return u64::from(shipped.contents(base, parsed.size) == Contents::Nowhere);
    }
    let found = differences(unit, shipped, placement, section, &(0..parsed.size), base, MOST_COUNTED);
    if found.iter().any(|finding| matches!(finding.what, What::Missing)) {
        u64::MAX
    } else {
        found.len() as u64
    }
}

/// Every function of the unit.
pub(crate) fn functions(unit: &Unit<'_>, shipped: &dyn Shipped, placement: &Placement) -> Vec<FunctionMatch> {
    let code = unit.kept().filter(|(_, section)| section.is_code());
    code.flat_map(|(section, _)| {
        let stretches = unit.stretches(section).into_iter();
        stretches
            .filter_map(|stretch| function(unit, shipped, placement, section, &stretch))
            .collect::<Vec<_>>()
    })
    .collect()
}

fn function(
    unit: &Unit<'_>,
    shipped: &dyn Shipped,
    placement: &Placement,
    section: SectionId,
    stretch: &Stretch,
) -> Option<FunctionMatch> {
    let expected = placement.base(section).map(|base| base.wrapping_add(stretch.range.start));
    let address = expected.map(|expected| address_of(unit, shipped, stretch, expected));
    let outcome = match expected.zip(address) {
        None => not_placed(unit, placement, section),
        Some(places) => compare(unit, shipped, placement, section, stretch, places),
    };
    // What lies between functions is padding, which is compared like all else but not worth a row.
    if stretch.symbol.is_none() && !matches!(outcome, Outcome::Differs(_)) {
        return None;
    }
    Some(FunctionMatch {
        name: name(unit, section, stretch),
        section: unit.object.section(section).name.clone(),
        offset_in_unit: stretch.range.start,
        size: stretch.range.end - stretch.range.start,
        address: address.map_or(0, |address| shipped.shown(address)),
        outcome,
    })
}

/// Where to compare a function. If the section is one block, that is where its own offset puts it. If the
/// compiler was another, an earlier function may have another size; then the symbol of this name tells more.
fn address_of(unit: &Unit<'_>, shipped: &dyn Shipped, stretch: &Stretch, expected: u64) -> u64 {
    let Some(symbol) = stretch.symbol else { return expected };
    let parsed = unit.object.symbol(symbol);
    if parsed.binding == Binding::Weak || shipped.names_at(expected).contains(&parsed.name.as_str()) {
        return expected;
    }
    match unit.named(symbol) {
        [only] => only.address,
        _ => expected,
    }
}

fn not_placed(unit: &Unit<'_>, placement: &Placement, section: SectionId) -> Outcome {
    if let Some(places) = placement.ambiguous(section) {
        return Outcome::Ambiguous { places };
    }
    let name = &unit.object.section(section).name;
    if DISCARDED.iter().any(|discarded| name.starts_with(discarded)) {
        Outcome::Dropped
    } else {
        Outcome::Absent
    }
}

fn compare(
    unit: &Unit<'_>,
    shipped: &dyn Shipped,
    placement: &Placement,
    section: SectionId,
    stretch: &Stretch,
    (expected, address): (u64, u64),
) -> Outcome {
    let found = differences(unit, shipped, placement, section, &stretch.range, address, 1);
    let finding = found.into_iter().next().or_else(|| {
        let misplaced = unit.is_misplaced(stretch.symbol?, expected) || address != expected;
        misplaced.then_some(Finding { offset: stretch.range.start, what: What::Misplaced })
    });
    if let Some(finding) = finding {
        let shown = show::difference(unit, shipped, section, &stretch.range, address, &finding);
        return Outcome::Differs(Difference { function: name(unit, section, stretch), ..shown });
    }
    match stretch.symbol {
        Some(symbol) if unit.is_overridden(symbol, address) => Outcome::Overridden,
        _ => Outcome::Equal,
    }
}

fn name(unit: &Unit<'_>, section: SectionId, stretch: &Stretch) -> String {
    match stretch.symbol {
        Some(symbol) => unit.object.symbol(symbol).name.clone(),
        None => refer::with_offset(&unit.object.section(section).name, stretch.range.start as i64),
    }
}

/// Every section of the unit that is not judged function by function: data, and code without symbols, such
/// as the replacements of alternatives.
pub(crate) fn sections(unit: &Unit<'_>, shipped: &dyn Shipped, placement: &Placement) -> Vec<SectionMatch> {
    let by_function = |id, section: &Section| section.is_code() && !unit.symbols(id).is_empty();
    let rest = unit.kept().filter(|&(id, section)| !is_merged(section) && !by_function(id, section));
    rest.map(|(id, section)| {
        let address = placement.base(id);
        SectionMatch {
            name: section.name.clone(),
            address: address.map(|address| shipped.shown(address)),
            differs: address.and_then(|base| differing(unit, shipped, placement, id, base)),
        }
    })
    .collect()
}

/// What of a section that is placed differs; `None` if it has no contents to compare.
fn differing(
    unit: &Unit<'_>,
    shipped: &dyn Shipped,
    placement: &Placement,
    id: SectionId,
    base: u64,
) -> Option<Vec<String>> {
    let section = unit.object.section(id);
    let comparable = section.kind != elf::SHT_NOBITS
        && !FILLED_IN.contains(&section.name.as_str())
        && shipped.contents(base, section.size) != Contents::Zeros;
    let differs = |stretch: &Stretch| {
        let at = base.wrapping_add(stretch.range.start);
        stretch.symbol.is_some_and(|symbol| unit.is_misplaced(symbol, at))
            || (comparable && !differences(unit, shipped, placement, id, &stretch.range, at, 1).is_empty())
    };
    let stretches = unit.stretches(id).into_iter().filter(differs);
    let names: Vec<_> = stretches.map(|stretch| name(unit, id, &stretch)).collect();
    (comparable || !names.is_empty()).then_some(names)
}
