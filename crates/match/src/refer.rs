//! One reference: where it leads in the shipped kernel, and whether it should.

use crate::place::Placement;
use crate::shipped::{Contents, Shipped};
use crate::unit::{Unit, is_merged};
use kmend_object::{Binding, Place, Relocation, SectionId, SymbolId, SymbolKind, elf};

/// What a reference in a hole says of the unit's own sections.
pub(crate) enum Claim {
    /// This section is at this address.
    Base(SectionId, u64),
    /// This symbol of another unit is at this address.
    Symbol(SymbolId, u64),
    /// Nothing: constants that the linker merged, weak symbols that another unit may define.
    Nothing,
}

/// What is wrong with a reference.
pub(crate) enum Wrong {
    /// There is none.
    Missing,
    /// It leads to something else.
    Elsewhere {
        /// The address that it leads to, addend included.
        found: u64,
    },
    /// It leads to another text or constant.
    Constant {
        /// The address that it leads to.
        found: u64,
    },
}

/// What a reference at `place` tells of where the unit is.
pub(crate) fn claim(unit: &Unit<'_>, shipped: &dyn Shipped, place: u64, relocation: &Relocation) -> Claim {
    let Some(target) = shipped.target(place, relocation) else { return Claim::Nothing };
    let symbol = unit.object.symbol(relocation.symbol);
    match symbol.place {
        Place::Section(section) if symbol.binding == Binding::Weak || merged(unit, section) => Claim::Nothing,
        Place::Section(section) => Claim::Base(section, target.wrapping_sub(symbol.value)),
        Place::Undefined | Place::Common => Claim::Symbol(relocation.symbol, target),
        Place::Absolute | Place::Livepatch => Claim::Nothing,
    }
}

fn merged(unit: &Unit<'_>, section: SectionId) -> bool {
    is_merged(unit.object.section(section))
}

/// Whether the reference at `place` leads where the compiled one does.
pub(crate) fn check(
    unit: &Unit<'_>,
    shipped: &dyn Shipped,
    placement: &Placement,
    place: u64,
    relocation: &Relocation,
) -> Result<(), Wrong> {
    let target = shipped.target(place, relocation).ok_or(Wrong::Missing)?;
    let elsewhere = Err(Wrong::Elsewhere { found: target.wrapping_add_signed(relocation.addend) });
    let symbol = unit.object.symbol(relocation.symbol);
    let is_right = match symbol.place {
        Place::Section(section) if merged(unit, section) => {
            return check_constant(unit, shipped, target, relocation, section);
        }
        Place::Section(section) => {
            let expected = placement.base(section).map(|base| base.wrapping_add(symbol.value));
            let named = unit.named(relocation.symbol);
            let overridden =
                symbol.binding == Binding::Weak && named.iter().any(|named| named.address == target);
            overridden || expected.is_none_or(|expected| expected == target)
        }
        Place::Undefined | Place::Common => {
            let absent = symbol.binding == Binding::Weak && target == 0;
            match unit.named(relocation.symbol) {
                [] => absent || placement.unnamed(relocation.symbol).is_none_or(|known| known == target),
                _ => absent || unit.may_be_at(relocation.symbol, target),
            }
        }
        Place::Absolute => symbol.value == target,
        Place::Livepatch => false,
    };
    if is_right { Ok(()) } else { elsewhere }
}

fn check_constant(
    unit: &Unit<'_>,
    shipped: &dyn Shipped,
    target: u64,
    relocation: &Relocation,
    section: SectionId,
) -> Result<(), Wrong> {
    let symbol = unit.object.symbol(relocation.symbol);
    // gas refers to a label where the reference is relative, and to the section where it is absolute: only
    // then can the linker tell the element from the addend.
    let share = if symbol.kind == SymbolKind::Section { relocation.addend } else { 0 };
    let found = target.wrapping_add_signed(share);
    let offset = symbol.value.checked_add_signed(share);
    let Some(expected) = offset.and_then(|offset| unit.element(section, offset)) else {
        return Err(Wrong::Constant { found });
    };
    match shipped.contents(found, expected.len() as u64) {
        Contents::Held(held) if held == expected => Ok(()),
        _ => Err(Wrong::Constant { found }),
    }
}

/// The compiled reference in words: `name+0x10`, or the text that it refers to.
pub(crate) fn describe(unit: &Unit<'_>, relocation: &Relocation) -> String {
    let symbol = unit.object.symbol(relocation.symbol);
    let addend = relocation.addend + end_of_place(relocation);
    let Place::Section(section) = symbol.place else { return with_offset(&symbol.name, addend) };
    if merged(unit, section) {
        let share = if symbol.kind == SymbolKind::Section { relocation.addend } else { 0 };
        let offset = symbol.value.checked_add_signed(share);
        let element = offset.and_then(|offset| unit.element(section, offset)).unwrap_or_default();
        return constant(element);
    }
    if symbol.kind != SymbolKind::Section {
        return with_offset(&symbol.name, addend);
    }
    nearest(unit, section, symbol.value.wrapping_add_signed(addend))
}

/// An offset in a section of the unit, as a distance from the nearest symbol before it.
pub(crate) fn nearest(unit: &Unit<'_>, section: SectionId, offset: u64) -> String {
    let symbols = unit.symbols(section);
    let after = symbols.partition_point(|&id| unit.object.symbol(id).value <= offset);
    match after.checked_sub(1).and_then(|last| symbols.get(last)) {
        Some(&nearest) => {
            let nearest = unit.object.symbol(nearest);
            with_offset(&nearest.name, (offset - nearest.value) as i64)
        }
        None => with_offset(&unit.object.section(section).name, offset as i64),
    }
}

/// What a relative reference adds because the processor counts from the end of the instruction; an
/// immediate after the hole is not seen here.
fn end_of_place(relocation: &Relocation) -> i64 {
    if elf::is_relative(relocation.kind) { elf::width(relocation.kind).unwrap_or(0) as i64 } else { 0 }
}

pub(crate) fn with_offset(name: &str, offset: i64) -> String {
    match offset {
        0 => name.to_owned(),
        1.. => format!("{name}+{offset:#x}"),
        _ => format!("{name}-{:#x}", offset.unsigned_abs()),
    }
}

/// A text in quotes, or bytes.
pub(crate) fn constant(bytes: &[u8]) -> String {
    let text = bytes.strip_suffix(&[0]).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match text {
        Some(text) if !text.contains('\0') => format!("{text:?}"),
        _ => format!("{bytes:02x?}"),
    }
}
