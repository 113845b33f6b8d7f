//! What code and data refer to.
//!
//! A relocation names a symbol, often a whole section, and an addend. For a relative operand the addend also
//! hides how far the instruction reaches beyond it (`cmpl $1, x(%rip)` has -5 where `call x` has -4), so the
//! instructions are decoded: only then it is certain which object an offset in a section means.
//! A branch between two functions of one section carries no relocation at all; it is found by decoding too.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::marks::TRACER;
use crate::special;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use kmend_object::{Object, Section, SectionId, SymbolId, SymbolKind, elf};
use std::collections::BTreeSet;

/// A relocation as the object has it, before its target is known.
#[derive(Debug, Clone)]
pub(crate) struct RawReference {
    /// Offset in the section.
    pub(crate) offset: u64,
    pub(crate) kind: u32,
    pub(crate) symbol: SymbolId,
    pub(crate) addend: i64,
    /// From the place to the end of its instruction, for relative operands of code; else 0.
    pub(crate) tail: i64,
    /// Whether it is the target of a call or jump.
    pub(crate) branch: bool,
    /// Whether the displacement stands in the code, without a relocation.
    pub(crate) in_place: bool,
    /// It lies in code that could not be decoded.
    pub(crate) undecoded: bool,
}

/// What an atom refers to, at one place.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    /// Offset in the atom.
    pub(crate) offset: u64,
    /// `R_X86_64_*`.
    pub(crate) kind: u32,
    /// What the addend has to subtract for relative operands.
    pub(crate) tail: i64,
    /// Whether it is the target of a call or jump.
    pub(crate) branch: bool,
    /// Whether the displacement stands in the code, without a relocation.
    pub(crate) in_place: bool,
    pub(crate) target: Target,
}

impl Reference {
    /// Whether it points into an atom.
    pub(crate) fn leads_to(&self, atom: AtomId) -> bool {
        matches!(self.target, Target::Atom { id, .. } if id == atom)
    }
}

/// Where a reference points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Into an atom, at an offset from its origin.
    Atom { id: AtomId, offset: i64 },
    /// At a string's text.
    Text { section: SectionId, offset: u64 },
    /// At what another object defines, at an offset.
    External { symbol: SymbolId, offset: i64 },
    /// At a number, or at nothing that can be named.
    Other { symbol: SymbolId, offset: i64 },
}

/// Every section's relocations in order of their offset. Those of debug information are left out: it refers to all
/// code and data and needs none of it.
pub(crate) fn raw(object: &Object) -> Vec<Vec<RawReference>> {
    let of_section = |section: &Section| {
        if section.name.starts_with(".debug_") {
            return Vec::new();
        }
        let mut list = sorted(section);
        if section.name == special::ALTERNATIVES {
            lead_empty_replacements_home(&section.data, &mut list);
        }
        list
    };
    object.sections.iter().map(of_section).collect()
}

/// An alternative without instructions still says where they are: where those of the next begin, which may be another
/// function's. Nothing is read there, so it is led to the place that the alternative is for.
fn lead_empty_replacements_home(entries: &[u8], list: &mut [RawReference]) {
    let (pairs, rest) = list.as_chunks_mut::<2>();
    let size = entries.len().checked_div(pairs.len()).unwrap_or(0);
    // Where `replacementlen` is in `struct alt_instr` (arch/x86/include/asm/alternative.h): last, but before `padlen` where
    // there is one (until 5.9, which has an entry of 13 bytes).
    let Some(length) =
        [(12, 11), (13, 11), (14, 13)].iter().find(|shape| shape.0 == size).map(|shape| shape.1)
    else {
        return;
    };
    if !rest.is_empty() || pairs.len() * size != entries.len() {
        return;
    }
    for (entry, [place, replacement]) in entries.chunks(size).zip(pairs) {
        if entry.get(length) == Some(&0) {
            (replacement.symbol, replacement.addend) = (place.symbol, place.addend);
        }
    }
}

/// The relocations of the sections of one name, in order of their offset.
pub(crate) fn of_section_named(unit: &Unit<'_>, name: &str) -> Vec<RawReference> {
    unit.object.sections.iter().filter(|section| section.name == name).flat_map(sorted).collect()
}

fn sorted(section: &Section) -> Vec<RawReference> {
    let mut list: Vec<RawReference> = section
        .relocations
        .iter()
        .filter(|relocation| relocation.kind != elf::R_X86_64_NONE)
        .map(|relocation| RawReference {
            offset: relocation.offset,
            kind: relocation.kind,
            symbol: relocation.symbol,
            addend: relocation.addend,
            tail: 0,
            branch: false,
            in_place: false,
            undecoded: false,
        })
        .collect();
    list.sort_by_key(|reference| reference.offset);
    list
}

/// By section: where relocations to the tracer stand that do nothing any more.
pub(crate) fn traced_nops(object: &Object) -> Vec<BTreeSet<u64>> {
    let is_nop = |relocation: &&kmend_object::Relocation| {
        relocation.kind == elf::R_X86_64_NONE && object.symbol(relocation.symbol).name == TRACER
    };
    let of_section = |section: &Section| {
        section.relocations.iter().filter(is_nop).map(|relocation| relocation.offset).collect()
    };
    object.sections.iter().map(of_section).collect()
}

/// Decodes the code of every atom and completes its references.
pub(crate) fn decode(unit: &Unit<'_>, raw: &mut [Vec<RawReference>]) {
    for section in unit.object.section_ids() {
        if !unit.object.section(section).is_code() {
            continue;
        }
        let list = &mut raw[section.index()];
        let mut found = Vec::new();
        for &atom in unit.atoms_in(section) {
            decode_atom(unit, atom, list, &mut found);
        }
        list.append(&mut found);
        list.sort_by_key(|reference| reference.offset);
    }
}

fn decode_atom(unit: &Unit<'_>, id: AtomId, list: &mut [RawReference], found: &mut Vec<RawReference>) {
    let atom = unit.atom(id);
    let bytes = unit.bytes(id);
    let first = list.partition_point(|reference| reference.offset < atom.start);
    let last = list.partition_point(|reference| reference.offset < atom.end());
    let mut pending = &mut list[first..last];
    let mut decoder = Decoder::with_ip(64, bytes, atom.start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let end = instruction.next_ip();
        let here = pending.iter().take_while(|reference| reference.offset < end).count();
        if instruction.is_invalid() {
            for reference in pending.iter_mut() {
                reference.undecoded = true;
            }
            return;
        }
        let is_branch = is_near_branch(&instruction);
        if here == 0 && is_branch {
            found.extend(branch_in_place(unit, id, &instruction));
        }
        let (now, rest) = pending.split_at_mut(here);
        for reference in now {
            if elf::is_relative(reference.kind) {
                reference.tail = end.wrapping_sub(reference.offset) as i64;
            }
            reference.branch = is_branch;
        }
        pending = rest;
    }
    for reference in pending {
        reference.undecoded = true;
    }
}

pub(crate) fn is_near_branch(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::Call
            | FlowControl::UnconditionalBranch
            | FlowControl::ConditionalBranch
            | FlowControl::XbeginXabortXend
    ) && instruction.op_count() > 0
        && matches!(
            instruction.op0_kind(),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        )
}

/// A branch without relocation that leaves its atom, as a reference to where it goes.
fn branch_in_place(unit: &Unit<'_>, source: AtomId, instruction: &Instruction) -> Option<RawReference> {
    let atom = unit.atom(source);
    let target = instruction.near_branch_target();
    if target >= atom.start && target < atom.end() {
        return None;
    }
    let section_symbol = unit.object.symbol_ids().find(|&id| {
        let symbol = unit.object.symbol(id);
        symbol.kind == SymbolKind::Section && symbol.section() == Some(atom.section)
    });
    let width = if instruction.len() >= 5 { 4 } else { 1 };
    let offset = instruction.next_ip() - width;
    let named = unit.atom_at(atom.section, target).and_then(|id| unit.atom(id).symbol);
    let (symbol, base) = match (section_symbol, named) {
        (Some(symbol), _) => (symbol, 0),
        (None, Some(symbol)) => (symbol, unit.object.symbol(symbol).value as i64),
        (None, None) => return None,
    };
    Some(RawReference {
        offset,
        kind: if width == 4 { elf::R_X86_64_PLT32 } else { elf::R_X86_64_PC8 },
        symbol,
        addend: (target as i64).wrapping_sub(base).wrapping_sub(width as i64),
        tail: width as i64,
        branch: true,
        in_place: true,
        undecoded: false,
    })
}

/// Resolves a relocation to what it points at.
pub(crate) fn target(unit: &Unit<'_>, reference: &RawReference) -> Target {
    let object = unit.object;
    let symbol = object.symbol(reference.symbol);
    let beyond = reference.addend.wrapping_add(reference.tail);
    let Some(section) = symbol.section() else {
        return if symbol.is_undefined() && reference.symbol != SymbolId::NULL {
            Target::External { symbol: reference.symbol, offset: beyond }
        } else {
            Target::Other { symbol: reference.symbol, offset: beyond }
        };
    };
    let place = (symbol.value as i64).wrapping_add(beyond);
    if object.section(section).is_strings() {
        return match u64::try_from(place) {
            Ok(offset) if offset < object.section(section).size => Target::Text { section, offset },
            _ => Target::Other { symbol: reference.symbol, offset: beyond },
        };
    }
    // A named symbol says which object is meant, whatever the offset; a section symbol does not.
    let atom = if symbol.kind == SymbolKind::Section {
        unit.atom_at(section, u64::try_from(place).unwrap_or(0))
    } else {
        unit.atom_of_symbol(reference.symbol)
    };
    match atom {
        Some(id) if unit.atom(id).kind != AtomKind::Entry => {
            Target::Atom { id, offset: place.wrapping_sub(unit.atom(id).origin as i64) }
        }
        _ => Target::Other { symbol: reference.symbol, offset: beyond },
    }
}
