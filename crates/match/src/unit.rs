//! The compiled unit, prepared for the match.

use crate::error::MatchError;
use crate::names::is_label;
use crate::shipped::{Named, Shipped};
use crate::sites::{self, Site};
use kmend_object::{Binding, Object, Place, Relocation, Section, SectionId, SymbolId, SymbolKind, elf};
use std::ops::Range;

/// A unit with what the stages look up again and again.
pub(crate) struct Unit<'a> {
    pub(crate) object: &'a Object,
    parts: Vec<Part>,
    /// The shipped symbols of each symbol's name, by symbol.
    named: Vec<Vec<Named>>,
}

/// What belongs to one section.
#[derive(Default)]
struct Part {
    relocations: Vec<Relocation>,
    sites: Vec<Site>,
    symbols: Vec<SymbolId>,
}

/// A stretch of a section: a function, a datum, or what lies between.
pub(crate) struct Stretch {
    pub(crate) symbol: Option<SymbolId>,
    pub(crate) range: Range<u64>,
}

impl<'a> Unit<'a> {
    pub(crate) fn new(object: &'a Object, shipped: &dyn Shipped) -> Result<Self, MatchError> {
        let mut parts: Vec<Part> = object.sections.iter().map(prepare).collect::<Result<_, _>>()?;
        for (section, site) in sites::jump_labels(object) {
            if let Some(part) = parts.get_mut(section.index()) {
                part.sites.push(site);
            }
        }
        let mut named = vec![Vec::new(); object.symbols.len()];
        for id in object.symbol_ids() {
            let symbol = object.symbol(id);
            let has_name = !matches!(symbol.kind, SymbolKind::File | SymbolKind::Section);
            if !has_name || is_label(&symbol.name) {
                continue;
            }
            if let Some(found) = named.get_mut(id.index()) {
                *found = shipped.named(&symbol.name);
            }
            let part = symbol.section().and_then(|section| parts.get_mut(section.index()));
            if let Some(part) = part {
                part.symbols.push(id);
            }
        }
        for part in &mut parts {
            part.symbols.sort_by_key(|&id| (object.symbol(id).value, id));
            part.sites.sort_by_key(|site| site.offset);
        }
        Ok(Unit { object, parts, named })
    }

    /// The sections that the linker keeps, in order.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (SectionId, &'a Section)> + use<'a> {
        let object = self.object;
        object
            .section_ids()
            .map(|id| (id, object.section(id)))
            .filter(|(_, section)| section.is_allocated() && section.size > 0)
    }

    /// A section's relocations, by offset.
    pub(crate) fn relocations(&self, section: SectionId) -> &[Relocation] {
        self.parts.get(section.index()).map_or(&[], |part| &part.relocations)
    }

    /// The relocations whose first byte is in a range of offsets.
    pub(crate) fn relocations_in(&self, section: SectionId, range: &Range<u64>) -> &[Relocation] {
        let all = self.relocations(section);
        let first = all.partition_point(|relocation| relocation.offset < range.start);
        let tail = all.get(first..).unwrap_or_default();
        tail.get(..tail.partition_point(|relocation| relocation.offset < range.end)).unwrap_or_default()
    }

    /// The rewritten sites that begin in a range of offsets.
    pub(crate) fn sites_in(&self, section: SectionId, range: &Range<u64>) -> &[Site] {
        let all = self.parts.get(section.index()).map_or(&[][..], |part| &part.sites);
        let first = all.partition_point(|site| site.offset < range.start);
        let tail = all.get(first..).unwrap_or_default();
        tail.get(..tail.partition_point(|site| site.offset < range.end)).unwrap_or_default()
    }

    /// The symbols with names that a section defines, by offset.
    pub(crate) fn symbols(&self, section: SectionId) -> &[SymbolId] {
        self.parts.get(section.index()).map_or(&[], |part| &part.symbols)
    }

    /// The shipped symbols that have this symbol's name.
    pub(crate) fn named(&self, symbol: SymbolId) -> &[Named] {
        self.named.get(symbol.index()).map_or(&[], Vec::as_slice)
    }

    /// Whether the kernel that ships may have this symbol at this address: it has one of this name there, or
    /// none of this name at all. Where it has global ones of the name, a global or undefined symbol is one of
    /// those.
    pub(crate) fn may_be_at(&self, symbol: SymbolId, address: u64) -> bool {
        let named = self.named(symbol);
        let local = self.object.symbol(symbol).binding == Binding::Local;
        let only_global = !local && named.iter().any(|named| named.global);
        let mut candidates = named.iter().filter(|named| !only_global || named.global);
        named.is_empty() || candidates.any(|named| named.address == address)
    }

    /// Whether the kernel that ships has the symbol of this name elsewhere only. A weak one may: another
    /// unit's definition overrides it.
    pub(crate) fn is_misplaced(&self, symbol: SymbolId, address: u64) -> bool {
        self.object.symbol(symbol).binding != Binding::Weak && !self.may_be_at(symbol, address)
    }

    /// Whether the definition of another unit is in force: the name is in the kernel, but not here.
    pub(crate) fn is_overridden(&self, symbol: SymbolId, address: u64) -> bool {
        self.object.symbol(symbol).binding == Binding::Weak && !self.may_be_at(symbol, address)
    }

    /// How many of a section's symbols the shipped kernel has where this address of the section puts them.
    pub(crate) fn hits(&self, section: SectionId, base: u64) -> usize {
        let symbols = self.symbols(section).iter();
        symbols
            .filter(|&&id| {
                let address = base.wrapping_add(self.object.symbol(id).value);
                self.named(id).iter().any(|named| named.address == address)
            })
            .count()
    }

    /// A section cut at its symbols: each with its size, and the rest between them. Aliases, and symbols in
    /// the middle of another, have a stretch of their own; together the stretches cover the section.
    pub(crate) fn stretches(&self, section: SectionId) -> Vec<Stretch> {
        let size = self.object.section(section).size;
        let symbols = self.symbols(section);
        let mut stretches = Vec::new();
        let mut covered = 0;
        for (number, &id) in symbols.iter().enumerate() {
            let symbol = self.object.symbol(id);
            let start = symbol.value.min(size);
            if covered < start {
                stretches.push(Stretch { symbol: None, range: covered..start });
            }
            let next = || symbols.get(number + 1).map_or(size, |&next| self.object.symbol(next).value);
            let end = match symbol.size {
                0 => next(),
                bytes => start.saturating_add(bytes),
            };
            let range = start..end.clamp(start, size);
            covered = covered.max(range.end);
            stretches.push(Stretch { symbol: Some(id), range });
        }
        if covered < size {
            stretches.push(Stretch { symbol: None, range: covered..size });
        }
        stretches
    }

    /// The element of a section of mergeable constants that begins at an offset: the linker keeps it
    /// anywhere. A text includes its terminator.
    pub(crate) fn element(&self, section: SectionId, offset: u64) -> Option<&'a [u8]> {
        let section = self.object.section(section);
        let width = usize::try_from(section.entsize).ok().filter(|&width| width > 0)?;
        let start = usize::try_from(offset).ok()?;
        if section.is_strings() {
            return section.string_at(offset).map(|text| text.whole);
        }
        section.data.get(start..)?.get(..width - start % width)
    }

    /// The section and offset that a reference without the place's own share leads to.
    pub(crate) fn definition(&self, symbol: SymbolId) -> Option<(SectionId, u64)> {
        let symbol = self.object.symbols.get(symbol.index())?;
        match symbol.place {
            Place::Section(section) => Some((section, symbol.value)),
            Place::Undefined | Place::Absolute | Place::Common | Place::Livepatch => None,
        }
    }
}

/// Whether the linker merges the section's elements with those of other units.
pub(crate) fn is_merged(section: &Section) -> bool {
    section.flags & elf::SHF_MERGE != 0 && section.entsize > 0
}

fn prepare(section: &Section) -> Result<Part, MatchError> {
    let mut relocations = section.relocations.clone();
    relocations.retain(|relocation| relocation.kind != elf::R_X86_64_NONE);
    relocations.sort_by_key(|relocation| relocation.offset);
    let mut end = 0;
    for relocation in &relocations {
        if relocation.offset < end {
            return Err(MatchError::Damaged(format!(
                "two relocations overlap at {}+{:#x}",
                section.name, relocation.offset
            )));
        }
        end = relocation.offset.saturating_add(elf::width(relocation.kind).unwrap_or(0));
    }
    if end > section.size {
        return Err(MatchError::Damaged(format!("a relocation reaches beyond {}", section.name)));
    }
    Ok(Part { relocations, ..Part::default() })
}
