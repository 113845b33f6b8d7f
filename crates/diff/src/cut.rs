//! Where sections are cut into atoms.

use crate::atoms::{Atom, AtomId, AtomKind, IrregularSection, Unit};
use crate::names;
use crate::references::RawReference;
use crate::special::Treatment;
use kmend_object::{Object, SectionId, SymbolId, SymbolKind, elf};
use std::collections::BTreeSet;

impl Unit<'_> {
    fn push(
        &mut self,
        kind: AtomKind,
        section: SectionId,
        range: (u64, u64),
        named: Option<(SymbolId, u64)>,
    ) {
        let id = AtomId(self.atoms.len() as u32);
        self.atoms.push(Atom {
            kind,
            section,
            start: range.0,
            size: range.1.saturating_sub(range.0),
            origin: named.map_or(range.0, |(_, value)| value),
            symbol: named.map(|(symbol, _)| symbol),
            references: Vec::new(),
            entries: Vec::new(),
            undecoded: false,
        });
        self.by_section[section.index()].push(id);
    }

    /// Cuts all sections. Those tables come back whose entries do not have the shape that is known of them.
    pub(crate) fn cut(
        &mut self,
        symbols: &[Vec<SymbolId>],
        raw: &[Vec<RawReference>],
    ) -> Vec<IrregularSection> {
        let mut irregular = Vec::new();
        let cuts = referred_offsets(self.object, raw, |_| true);
        let object = self.object;
        for id in object.section_ids() {
            let section = object.section(id);
            let whole = (0, section.size);
            match self.treatments[id.index()] {
                Treatment::Derived | Treatment::Ignored => {}
                Treatment::Registration(_) | Treatment::Unknown if !section.is_allocated() => {}
                Treatment::Registration(_) | Treatment::Unknown => {
                    if symbols[id.index()].is_empty() && !section.is_strings() && section.size > 0 {
                        self.push(AtomKind::Fixed, id, whole, None);
                    }
                    self.cut_at_symbols(id, &symbols[id.index()], AtomKind::Fixed);
                }
                Treatment::Entries { relocations, .. } => {
                    // Without CONFIG_DEBUG_BUGVERBOSE a __bug_table entry has one relocation. An entry of __ex_table had three
                    // since Linux 4.6, its handler, until that became a number in 5.16 (arch/x86/include/asm/asm.h).
                    let rhythms = [relocations, relocations + 1, 1];
                    let mut cut = |to_code| {
                        rhythms.iter().any(|&n| self.cut_entries(id, &raw[id.index()], n, to_code).is_some())
                    };
                    if !cut(true) && !cut(false) {
                        irregular.push(IrregularSection { section: id });
                    }
                }
                Treatment::RuntimePointer => {
                    if self.cut_entries(id, &raw[id.index()], 1, false).is_none() {
                        irregular.push(IrregularSection { section: id });
                    }
                }
                Treatment::Fragments => self.cut_fragments(id, &cuts[id.index()]),
                Treatment::Plain if section.is_strings() => {}
                Treatment::Plain | Treatment::PerUse if symbols[id.index()].is_empty() => {
                    if section.flags & elf::SHF_MERGE != 0 && section.entsize > 0 {
                        self.cut_fragments(id, &cuts[id.index()]);
                    } else if section.size > 0 {
                        self.push(AtomKind::Content, id, whole, None);
                    }
                }
                Treatment::Plain | Treatment::PerUse => {
                    let kind = if section.is_code() { AtomKind::Function } else { AtomKind::Variable };
                    self.cut_at_symbols(id, &symbols[id.index()], kind);
                }
            }
        }
        irregular
    }

    /// Cuts a section at its symbols. A symbol without a size reaches to the next one. What lies between two
    /// is alignment; it differs with the neighbours and belongs to nobody.
    fn cut_at_symbols(&mut self, section: SectionId, symbols: &[SymbolId], kind: AtomKind) {
        let object = self.object;
        let end = object.section(section).size;
        let mut previous_end = 0;
        let mut index = 0;
        while let Some(&symbol) = symbols.get(index) {
            let value = object.symbol(symbol).value;
            let next = symbols[index..].iter().position(|&other| object.symbol(other).value > value);
            let limit = next.map_or(end, |offset| object.symbol(symbols[index + offset]).value);
            let aliases = &symbols[index..next.map_or(symbols.len(), |offset| index + offset)];
            let named = preferred(object, aliases);
            let size = aliases.iter().map(|&alias| object.symbol(alias).size).max().unwrap_or(0);
            let start = self.prefix_start(section, previous_end, value);
            let stop = if size > 0 { value.saturating_add(size).min(limit).min(end) } else { limit };
            self.push(self.refine(kind, section, named), section, (start, stop), Some((named, value)));
            previous_end = stop;
            index += aliases.len();
        }
    }

    /// Where a function's prefix begins: the padding that -fpatchable-function-entry=N,M puts before its
    /// entry, told by the table that the compiler writes of it.
    fn prefix_start(&self, section: SectionId, previous_end: u64, value: u64) -> u64 {
        self.prefixes[section.index()].range(previous_end.min(value)..=value).next().copied().unwrap_or(value)
    }

    /// A named atom may still be one whose identity is its content.
    fn refine(&self, kind: AtomKind, section: SectionId, symbol: SymbolId) -> AtomKind {
        let name = &self.object.symbol(symbol).name;
        let treatment = self.treatments[section.index()];
        let read_only = !self.object.section(section).is_writable();
        match kind {
            AtomKind::Variable if treatment == Treatment::PerUse => AtomKind::Content,
            AtomKind::Variable if read_only && names::is_content_only(name) => AtomKind::Content,
            AtomKind::Function if names::cold_parent(name).is_some() => AtomKind::Content,
            other => other,
        }
    }

    /// Cuts a table into entries of equal size, told by the places and kinds of its relocations, which are the same in each, and
    /// by the first, which leads to code of this unit if `to_code`. `None` where its relocations do not have this rhythm.
    fn cut_entries(
        &mut self,
        section: SectionId,
        raw: &[RawReference],
        per_entry: usize,
        to_code: bool,
    ) -> Option<()> {
        if self.object.section(section).size == 0 {
            return Some(());
        }
        if raw.is_empty() || !raw.len().is_multiple_of(per_entry) {
            return None;
        }
        let (stride, length) = self.shape(section, raw, per_entry)?;
        // The relocations of an entry stand behind each other, in all tables that the kernel makes of its code.
        let is_packed = raw[..per_entry].windows(2).all(|pair| {
            elf::width(pair[0].kind)
                .is_some_and(|width| pair[0].offset.saturating_add(width) == pair[1].offset)
        });
        let lead_to_code = raw.chunks(per_entry).all(|group| self.leads_to_code(&group[0]));
        if to_code && !(is_packed && lead_to_code) {
            return None;
        }
        for start in (0..(raw.len() / per_entry) as u64).map(|index| index * stride) {
            self.push(AtomKind::Entry, section, (start, start + length), None);
        }
        Some(())
    }

    /// How far the entries of a table stand from each other, and how long they are, if each has as many relocations.
    fn shape(&self, section: SectionId, raw: &[RawReference], per_entry: usize) -> Option<(u64, u64)> {
        let section = self.object.section(section);
        let last = (raw.len() / per_entry) as u64 - 1;
        let stride = match raw.get(per_entry) {
            Some(second) => second.offset.checked_sub(raw[0].offset)?,
            None => section.size,
        };
        // What aligns an entry may stand before it alone, so that behind the last there is nothing (`_paravirt_alt()` of
        // arch/x86/include/asm/paravirt_types.h, in older kernels).
        let length = section.size.checked_sub(stride.checked_mul(last)?)?;
        if length == 0 || length > stride {
            return None;
        }
        let is_regular = raw.chunks(per_entry).zip(0..).all(|(group, index)| {
            let start = index * stride;
            group.iter().zip(raw).all(|(reference, first)| {
                let inside = reference.offset.checked_sub(start).filter(|inside| *inside < length);
                inside == Some(first.offset) && reference.kind == first.kind
            })
        });
        let is_padded = |index: u64| {
            let padding = section.bytes(index * stride + length, stride - length);
            padding.is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0))
        };
        (is_regular && (0..last).all(is_padded)).then_some((stride, length))
    }

    /// Whether it leads to code of this unit.
    fn leads_to_code(&self, reference: &RawReference) -> bool {
        let section = self.object.symbol(reference.symbol).section();
        section.is_some_and(|section| self.object.section(section).is_code())
    }

    /// Cuts a section without symbols at the offsets that others refer to.
    fn cut_fragments(&mut self, section: SectionId, cuts: &BTreeSet<u64>) {
        let size = self.object.section(section).size;
        let entsize = self.object.section(section).entsize;
        let mut starts: Vec<u64> = cuts.iter().copied().filter(|&cut| cut < size).collect();
        if starts.first() != Some(&0) && size > 0 {
            starts.insert(0, 0);
        }
        for (index, &start) in starts.iter().enumerate() {
            let next = starts.get(index + 1).copied().unwrap_or(size);
            let end = if entsize > 0 { next.min(start.saturating_add(entsize)) } else { next };
            self.push(AtomKind::Content, section, (start, end), None);
        }
    }
}

/// The symbols that cut each section, in order of their value.
pub(crate) fn symbols_by_section(object: &Object) -> Vec<Vec<SymbolId>> {
    let mut lists = vec![Vec::new(); object.sections.len()];
    for id in object.symbol_ids() {
        let symbol = object.symbol(id);
        let Some(section) = symbol.section() else { continue };
        let is_code = object.section(section).is_code();
        // Code is cut at functions only: a label in the middle of a function is no function.
        let cuts = match symbol.kind {
            SymbolKind::Function => true,
            SymbolKind::Object => !is_code,
            SymbolKind::None => !is_code && !symbol.name.is_empty(),
            SymbolKind::Section | SymbolKind::File | SymbolKind::Other(_) => false,
        };
        if cuts && symbol.value <= object.section(section).size {
            lists[section.index()].push(id);
        }
    }
    for list in &mut lists {
        list.sort_by_key(|&id| (object.symbol(id).value, id));
    }
    lists
}

/// Of several symbols at one place the one to name it by: a global one, else the first that the source names.
fn preferred(object: &Object, aliases: &[SymbolId]) -> SymbolId {
    let global = aliases.iter().find(|&&id| object.symbol(id).binding == kmend_object::Binding::Global);
    let named = || aliases.iter().find(|&&id| !names::is_numbered(&object.symbol(id).name));
    *global.or_else(named).unwrap_or(&aliases[0])
}

/// Where in each section the others' relocations point, instruction tails not counted.
pub(crate) fn referred_offsets(
    object: &Object,
    raw: &[Vec<RawReference>],
    from: impl Fn(&str) -> bool,
) -> Vec<BTreeSet<u64>> {
    let mut cuts = vec![BTreeSet::new(); object.sections.len()];
    for (source, list) in raw.iter().enumerate() {
        if !from(&object.sections[source].name) {
            continue;
        }
        let from_code = object.sections[source].is_code();
        for reference in list {
            let symbol = object.symbol(reference.symbol);
            let Some(section) = symbol.section() else { continue };
            let tail = if from_code && elf::is_relative(reference.kind) { 4 } else { 0 };
            if let Some(offset) = symbol.value.checked_add_signed(reference.addend.wrapping_add(tail)) {
                cuts[section.index()].insert(offset);
            }
        }
    }
    cuts
}
