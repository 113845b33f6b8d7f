//! An object cut into atoms: the pieces that are kept, dropped and compared as one.
//!
//! A function is an atom, and a variable, an entry of a table, a piece of code without a name. With
//! -ffunction-sections most atoms are a section of their own, but not all: `__sched` functions share
//! `.sched.text`, `__read_mostly` variables share `.data..read_mostly`. So sections are cut at their symbols,
//! and those without symbols at the places that others refer to.
//!
//! Strings are no atoms. A reference to a string is the string's text, wherever it lies.

use crate::names;
use crate::references::{self, RawReference, Reference, Target};
use crate::special::{self, Treatment};
use kmend_object::{Object, Section, SectionId, Symbol, SymbolId, SymbolKind, elf};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The compiler's table of padding (-fpatchable-function-entry).
const PADDING_TABLE: &str = "__patchable_function_entries";

/// Index of an atom in [`Unit::atoms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AtomId(pub(crate) u32);

impl AtomId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an atom is, which says how its identity is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum AtomKind {
    /// A function: paired by name, kept as a whole.
    Function,
    /// A variable or a named constant: paired by name; the running kernel's copy is the one in use.
    Variable,
    /// What has no identity but its content: a constant, a cold part, code beside a function.
    Content,
    /// One entry of a table, owned by a function.
    Entry,
    /// What registers something, or an unknown section: never kept.
    Fixed,
}

/// A piece of an object.
#[derive(Debug)]
pub(crate) struct Atom {
    pub(crate) kind: AtomKind,
    pub(crate) section: SectionId,
    /// First byte, as an offset in the section. A function's prefix (padding before its entry) is inside.
    pub(crate) start: u64,
    /// Size in bytes.
    pub(crate) size: u64,
    /// What offsets of references are counted from: where its symbol stands.
    pub(crate) origin: u64,
    /// The symbol that names it.
    pub(crate) symbol: Option<SymbolId>,
    pub(crate) references: Vec<Reference>,
    /// The table entries that belong to it, in the tables' order. Functions and contents only.
    pub(crate) entries: Vec<AtomId>,
    /// Instructions could not be decoded where a relocation lies: its references are not certain.
    pub(crate) undecoded: bool,
}

impl Atom {
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// An object with its atoms.
pub(crate) struct Unit<'a> {
    pub(crate) object: &'a Object,
    /// Whether it is a part of the image, not of a module.
    pub(crate) built_in: bool,
    pub(crate) atoms: Vec<Atom>,
    /// By section: its atoms in order of their start.
    by_section: Vec<Vec<AtomId>>,
    pub(crate) treatments: Vec<Treatment>,
    /// By symbol: the atom it stands in.
    by_symbol: HashMap<SymbolId, AtomId>,
    /// By section: where `__patchable_function_entries` says that a function's padding begins.
    prefixes: Vec<BTreeSet<u64>>,
}

/// Sections whose entries do not have the shape that the table says.
#[derive(Debug)]
pub(crate) struct IrregularSection {
    pub(crate) section: SectionId,
}

impl<'a> Unit<'a> {
    /// Cuts the object. Irregular tables are returned beside it, to be refused if they matter.
    pub(crate) fn of(object: &'a Object, built_in: bool) -> (Self, Vec<IrregularSection>) {
        let treatments = object.sections.iter().map(|section| special::treatment(&section.name)).collect();
        let mut unit = Unit {
            object,
            built_in,
            atoms: Vec::new(),
            by_section: vec![Vec::new(); object.sections.len()],
            treatments,
            by_symbol: HashMap::new(),
            prefixes: Vec::new(),
        };
        let symbols = symbols_by_section(object);
        let mut raw = references::raw(object);
        unit.prefixes = referred_offsets(object, &raw, |name| name == PADDING_TABLE);
        let irregular = unit.cut(&symbols, &raw);
        unit.index_symbols();
        references::decode(&unit, &mut raw);
        unit.resolve(raw);
        unit.own_entries();
        (unit, irregular)
    }

    pub(crate) fn atom(&self, id: AtomId) -> &Atom {
        &self.atoms[id.index()]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = AtomId> + use<> {
        (0..self.atoms.len() as u32).map(AtomId)
    }

    pub(crate) fn section_of(&self, id: AtomId) -> &Section {
        self.object.section(self.atom(id).section)
    }

    /// The atom's name: its symbol's, or its section's and offset.
    pub(crate) fn name(&self, id: AtomId) -> String {
        let atom = self.atom(id);
        match atom.symbol {
            Some(symbol) => self.object.symbol(symbol).name.clone(),
            None if atom.start == 0 => self.object.section(atom.section).name.clone(),
            None => format!("{}+{:#x}", self.object.section(atom.section).name, atom.start),
        }
    }

    /// The atom's name without the compiler's numbering; empty for atoms without a name.
    pub(crate) fn base_name(&self, id: AtomId) -> String {
        self.atom(id).symbol.map(|symbol| names::base(&self.object.symbol(symbol).name)).unwrap_or_default()
    }

    pub(crate) fn symbol_of(&self, id: AtomId) -> Option<&Symbol> {
        self.atom(id).symbol.map(|symbol| self.object.symbol(symbol))
    }

    /// The atom's bytes; empty where it lies in `.bss`.
    pub(crate) fn bytes(&self, id: AtomId) -> &[u8] {
        let atom = self.atom(id);
        self.object.section(atom.section).bytes(atom.start, atom.size).unwrap_or_default()
    }

    /// The section's alignment, unless the atom's place in a shared section shows that it has less.
    pub(crate) fn alignment(&self, id: AtomId) -> u64 {
        let atom = self.atom(id);
        let section = self.section_of(id).align.max(1);
        let by_place = if atom.start == 0 { section } else { 1 << atom.start.trailing_zeros().min(12) };
        section.min(by_place.max(1))
    }

    pub(crate) fn atoms_in(&self, section: SectionId) -> &[AtomId] {
        &self.by_section[section.index()]
    }

    pub(crate) fn atom_of_symbol(&self, symbol: SymbolId) -> Option<AtomId> {
        self.by_symbol.get(&symbol).copied()
    }

    /// The atom at an offset of a section: the last that starts at or before it.
    pub(crate) fn atom_at(&self, section: SectionId, offset: u64) -> Option<AtomId> {
        let atoms = &self.by_section[section.index()];
        let after = atoms.partition_point(|&id| self.atom(id).start <= offset);
        after.checked_sub(1).or(if atoms.is_empty() { None } else { Some(0) }).map(|index| atoms[index])
    }

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

    fn cut(&mut self, symbols: &[Vec<SymbolId>], raw: &[Vec<RawReference>]) -> Vec<IrregularSection> {
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
                    // Without CONFIG_DEBUG_BUGVERBOSE a __bug_table entry has one relocation.
                    let rhythms = [relocations, 1];
                    if !rhythms.iter().any(|&n| self.cut_entries(id, &raw[id.index()], n).is_some()) {
                        irregular.push(IrregularSection { section: id });
                    }
                }
                Treatment::RuntimePointer => {
                    if self.cut_entries(id, &raw[id.index()], 1).is_none() {
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

    /// Cuts a table into entries of equal size. `None` where its relocations do not have one rhythm.
    fn cut_entries(&mut self, section: SectionId, raw: &[RawReference], per_entry: usize) -> Option<()> {
        let size = self.object.section(section).size;
        if size == 0 {
            return Some(());
        }
        if raw.is_empty() || !raw.len().is_multiple_of(per_entry) {
            return None;
        }
        let count = (raw.len() / per_entry) as u64;
        let stride = size / count;
        if stride == 0 || stride * count != size {
            return None;
        }
        for (index, group) in raw.chunks(per_entry).enumerate() {
            let start = index as u64 * stride;
            if group.iter().any(|reference| reference.offset < start || reference.offset >= start + stride) {
                return None;
            }
        }
        for index in 0..count {
            self.push(AtomKind::Entry, section, (index * stride, (index + 1) * stride), None);
        }
        Some(())
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

    fn index_symbols(&mut self) {
        for id in self.object.symbol_ids() {
            let symbol = self.object.symbol(id);
            if symbol.kind == SymbolKind::Section || symbol.kind == SymbolKind::File {
                continue;
            }
            let Some(section) = symbol.section() else { continue };
            // A symbol at the end of its section (a label after the last instruction) is in no atom.
            if let Some(atom) = self.atom_at(section, symbol.value) {
                self.by_symbol.insert(id, atom);
            }
        }
    }

    /// Gives every atom its references, with their targets resolved to atoms.
    fn resolve(&mut self, raw: Vec<Vec<RawReference>>) {
        for (index, list) in raw.into_iter().enumerate() {
            let section = SectionId(index as u32);
            for reference in list {
                let Some(source) = self.atom_at(section, reference.offset) else { continue };
                let target = references::target(self, &reference);
                let start = self.atom(source).start;
                let atom = &mut self.atoms[source.index()];
                if reference.offset < start || reference.offset >= atom.end() {
                    continue;
                }
                atom.undecoded |= reference.undecoded;
                atom.references.push(Reference {
                    offset: reference.offset - start,
                    kind: reference.kind,
                    tail: reference.tail,
                    branch: reference.branch,
                    in_place: reference.in_place,
                    target,
                });
            }
        }
    }

    /// Hands every entry to the code that its first reference lies in.
    fn own_entries(&mut self) {
        let mut owned: BTreeMap<AtomId, Vec<AtomId>> = BTreeMap::new();
        for id in self.ids() {
            let atom = self.atom(id);
            if atom.kind != AtomKind::Entry {
                continue;
            }
            if let Some(Target::Atom { id: owner, .. }) = atom.references.first().map(|first| &first.target)
                && self.section_of(*owner).is_code()
            {
                owned.entry(*owner).or_default().push(id);
            }
        }
        for (owner, entries) in owned {
            self.atoms[owner.index()].entries = entries;
        }
    }
}

/// The symbols that cut each section, in order of their value.
fn symbols_by_section(object: &Object) -> Vec<Vec<SymbolId>> {
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

/// Of several symbols at one place the one to name it by: a global one, else the first.
fn preferred(object: &Object, aliases: &[SymbolId]) -> SymbolId {
    let global = aliases.iter().find(|&&id| object.symbol(id).binding == kmend_object::Binding::Global);
    *global.unwrap_or(&aliases[0])
}

/// Where in each section the others' relocations point, instruction tails not counted.
fn referred_offsets(
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
