//! One side: an object with what is looked up in it again and again.

use crate::explanation::Place;
use crate::lines::Lines;
use crate::sources::{Files, Read};
use kmend_object::{Object, Relocation, SectionId, SymbolId, SymbolKind};

pub(crate) struct Side<'a> {
    pub(crate) object: &'a Object,
    /// By section: the named symbols in it in order of their value.
    symbols: Vec<Vec<SymbolId>>,
    /// By section: its relocations in order of their offset.
    relocations: Vec<Vec<&'a Relocation>>,
    lines: Lines,
    files: Files<'a>,
    /// The other side's.
    others: Files<'a>,
}

/// A range of a code section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) symbol: SymbolId,
    pub(crate) section: SectionId,
    /// Of its first byte, in the section.
    pub(crate) start: u64,
    /// Behind its last byte.
    pub(crate) end: u64,
}

impl<'a> Side<'a> {
    pub(crate) fn new(object: &'a Object, read: Read<'a>, other: Read<'a>) -> Self {
        let mut symbols = vec![Vec::new(); object.sections.len()];
        for id in object.symbol_ids() {
            let symbol = object.symbol(id);
            let Some(list) = symbol.section().and_then(|section| symbols.get_mut(section.index())) else {
                continue;
            };
            if !matches!(symbol.kind, SymbolKind::Section | SymbolKind::File) && !symbol.name.is_empty() {
                list.push(id);
            }
        }
        for list in &mut symbols {
            list.sort_by_key(|&id| (object.symbol(id).value, id));
        }
        let sorted = |section: &'a kmend_object::Section| {
            let mut list: Vec<&Relocation> = section.relocations.iter().collect();
            list.sort_by_key(|relocation| relocation.offset);
            list
        };
        let relocations = object.sections.iter().map(sorted).collect();
        Side {
            object,
            symbols,
            relocations,
            lines: Lines::read(object),
            files: Files::new(read),
            others: Files::new(other),
        }
    }

    pub(crate) fn name(&self, symbol: Option<SymbolId>) -> Option<String> {
        self.object.symbols.get(symbol?.index()).map(|symbol| symbol.name.clone())
    }

    /// The named symbol that an offset of a section belongs to: the last that stands at or before it.
    pub(crate) fn symbol_at(&self, section: SectionId, offset: u64) -> Option<SymbolId> {
        let list = self.symbols.get(section.index())?;
        let next = list.partition_point(|&id| self.object.symbol(id).value <= offset);
        let last = *list.get(next.checked_sub(1)?)?;
        let value = self.object.symbol(last).value;
        // Of several at one place the first, whatever their number is.
        list.iter().copied().find(|&id| self.object.symbol(id).value == value)
    }

    pub(crate) fn relocations(&self, section: SectionId, from: u64, to: u64) -> &[&'a Relocation] {
        let Some(list) = self.relocations.get(section.index()) else { return &[] };
        let first = list.partition_point(|relocation| relocation.offset < from);
        let last = list.partition_point(|relocation| relocation.offset < to);
        list.get(first..last).unwrap_or_default()
    }

    /// What a function's symbol covers.
    pub(crate) fn range(&self, symbol: SymbolId) -> Option<Range> {
        let found = self.object.symbols.get(symbol.index())?;
        let section = found.section()?;
        let size = self.object.section(section).size;
        let next = || {
            let values = self.symbols[section.index()].iter().map(|&id| self.object.symbol(id));
            values
                .filter(|other| other.is_function())
                .map(|other| other.value)
                .find(|&value| value > found.value)
        };
        let end = if found.size > 0 { found.value.checked_add(found.size)? } else { next().unwrap_or(size) };
        Some(Range { symbol, section, start: found.value, end: end.min(size) })
    }

    /// A function and the parts that the compiler put elsewhere (`NAME.cold`), each with the end of its name.
    pub(crate) fn pieces(&self, symbol: SymbolId) -> Vec<(String, Range)> {
        let Some(main) = self.range(symbol) else { return Vec::new() };
        let name = self.object.symbol(symbol).name.clone();
        let is_part = |rest: &str| rest == ".cold" || rest.starts_with(".cold.");
        let parts = self.object.symbol_ids().filter_map(|id| {
            let rest = self.object.symbol(id).name.strip_prefix(&name).filter(|rest| is_part(rest))?;
            Some((rest.to_owned(), self.range(id)?))
        });
        [(String::new(), main)].into_iter().chain(parts).collect()
    }

    /// The source line of the code at a place.
    pub(crate) fn place(&self, section: SectionId, offset: u64) -> Option<Place> {
        let line = self.lines.at(section, offset)?;
        Some(self.files.place(line.file, line.number, line.column, &self.others))
    }
}
