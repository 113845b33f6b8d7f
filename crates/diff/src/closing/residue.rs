//! What no struck atom covers, in pieces that can be compared without knowing what they are.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::names;
use crate::references::{self, RawReference, Target};
use crate::special::Treatment;
use iced_x86::{Code as Instruction, Decoder, DecoderOptions};
use kmend_object::{SectionId, elf};
use std::collections::HashSet;

/// How many bytes of a piece are shown.
const SHOWN_BYTES: usize = 16;

/// A run of bytes with what its relocations lead to, without its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Piece {
    /// The section's name, without the compiler's numbering.
    pub(super) section: String,
    /// In bytes; more than `bytes` has where the section holds none.
    size: u64,
    /// Zero where relocations fill them.
    bytes: Vec<u8>,
    /// Offset, kind and target of each relocation.
    references: Vec<(u64, u32, String)>,
}

/// Where a piece is, for a person.
pub(super) struct At {
    /// The symbol that it belongs to or follows, else the section.
    pub(super) subject: String,
    /// In the section, in bytes.
    pub(super) offset: u64,
}

impl Piece {
    pub(super) fn what(&self) -> String {
        match self.references.len() {
            0 => format!("{} bytes of {}", self.size, self.section),
            1 => format!("{} bytes of {} with a relocation", self.size, self.section),
            n => format!("{} bytes of {} with {n} relocations", self.size, self.section),
        }
    }

    /// What is in it.
    pub(super) fn lines(&self) -> Vec<String> {
        let shown = hex::encode(&self.bytes[..self.bytes.len().min(SHOWN_BYTES)]);
        let more = if self.bytes.len() > SHOWN_BYTES { "…" } else { "" };
        let references = self.references.iter().take(SHOWN_BYTES);
        std::iter::once(format!("{shown}{more}"))
            .chain(references.map(|(offset, _, target)| format!("+{offset:#x}: {target}")))
            .collect()
    }
}

/// All pieces of a unit's loaded sections that are not struck.
pub(super) fn pieces(unit: &Unit<'_>, struck: &HashSet<AtomId>) -> Vec<(Piece, At)> {
    let raw = references::raw(unit.object);
    let mut found = Vec::new();
    for section in unit.object.section_ids().filter(|&id| counts(unit, id)) {
        let mut end = 0;
        for &id in unit.atoms_in(section) {
            let atom = unit.atom(id);
            found.extend(gap(unit, section, (end, atom.start), &raw));
            if !struck.contains(&id) {
                found.push((of_atom(unit, id), At { subject: unit.name(id), offset: atom.start }));
            }
            end = end.max(atom.end());
        }
        found.extend(gap(unit, section, (end, unit.object.section(section).size), &raw));
    }
    found
}

/// Whether a section is loaded and is neither text that is found by its contents nor made afresh.
fn counts(unit: &Unit<'_>, id: SectionId) -> bool {
    let section = unit.object.section(id);
    let treatment = unit.treatments[id.index()];
    let is_text = section.is_strings() && treatment == Treatment::Plain;
    section.is_allocated() && !is_text && !matches!(treatment, Treatment::Derived | Treatment::Ignored)
}

fn of_atom(unit: &Unit<'_>, id: AtomId) -> Piece {
    let atom = unit.atom(id);
    let references = atom.references.iter();
    Piece {
        section: names::base(&unit.section_of(id).name),
        size: atom.size,
        bytes: unit.masked_bytes(id),
        references: references
            .map(|reference| (reference.offset, reference.kind, target(unit, &reference.target)))
            .collect(),
    }
}

/// What lies between two atoms: nothing, if it is padding.
fn gap(
    unit: &Unit<'_>,
    id: SectionId,
    (start, end): (u64, u64),
    raw: &[Vec<RawReference>],
) -> Option<(Piece, At)> {
    let section = unit.object.section(id);
    let length = end.checked_sub(start).filter(|&length| length > 0)?;
    let here = |reference: &&RawReference| (start..end).contains(&reference.offset);
    let references: Vec<&RawReference> = raw[id.index()].iter().filter(here).collect();
    let mut bytes = section.bytes(start, length).unwrap_or_default().to_vec();
    if references.is_empty() && is_padding(&bytes, section.is_code()) {
        return None;
    }
    for reference in &references {
        let from = (reference.offset - start) as usize;
        let width = elf::width(reference.kind).unwrap_or(0) as usize;
        if let Some(hole) = bytes.get_mut(from..from.saturating_add(width)) {
            hole.fill(0);
        }
    }
    let lead = |reference: &&RawReference| {
        let target_of = references::target(unit, reference);
        (reference.offset - start, reference.kind, target(unit, &target_of))
    };
    let before = unit.atom_at(id, start).map_or_else(|| section.name.clone(), |atom| unit.name(atom));
    let piece = Piece {
        section: names::base(&section.name),
        size: length,
        bytes,
        references: references.iter().map(lead).collect(),
    };
    Some((piece, At { subject: before, offset: start }))
}

/// Zeros, or instructions that do nothing where code is (the assembler fills with those up to an alignment).
fn is_padding(bytes: &[u8], is_code: bool) -> bool {
    if bytes.iter().all(|&byte| byte == 0) {
        return true;
    }
    if !is_code {
        return false;
    }
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    decoder.iter().all(|instruction| {
        instruction.mnemonic() == iced_x86::Mnemonic::Nop || instruction.code() == Instruction::Int3
    })
}

/// A target by names that both objects have for it.
fn target(unit: &Unit<'_>, target: &Target) -> String {
    match target {
        Target::Atom { id, offset } => {
            let name = match unit.atom(*id).kind {
                AtomKind::Content if unit.atom(*id).symbol.is_none() => hex::encode(unit.masked_bytes(*id)),
                _ => unit.base_name(*id),
            };
            format!("{name}{offset:+#x}")
        }
        other => unit.describe(other),
    }
}
