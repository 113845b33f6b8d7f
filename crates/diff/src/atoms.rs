//! An object cut into atoms: the pieces that are kept, dropped and compared as one.
//!
//! A function is an atom, and a variable, an entry of a table, a piece of code without a name. With
//! -ffunction-sections most atoms are a section of their own, but not all: `__sched` functions share
//! `.sched.text`, `__read_mostly` variables share `.data..read_mostly`. So sections are cut at their symbols,
//! and those without symbols at the places that others refer to.
//!
//! Strings are no atoms. A reference to a string is the string's text, wherever it lies.

use crate::cut::{referred_offsets, symbols_by_section};
use crate::names;
use crate::references::{self, RawReference, Reference, Target};
use crate::special::{self, Treatment};
use kmend_object::{Object, Section, SectionId, Symbol, SymbolId, SymbolKind};
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
    pub(crate) by_section: Vec<Vec<AtomId>>,
    pub(crate) treatments: Vec<Treatment>,
    /// By section: the symbols that cut it, in order of their value.
    symbols: Vec<Vec<SymbolId>>,
    /// By symbol: the atom it stands in.
    by_symbol: HashMap<SymbolId, AtomId>,
    /// By section: where a call of the tracer was made a nop.
    pub(crate) traced_nops: Vec<BTreeSet<u64>>,
    /// By place: the symbols that stand there.
    names_at: HashMap<(SectionId, u64), Vec<SymbolId>>,
    /// By section: where `__patchable_function_entries` says that a function's padding begins.
    pub(crate) prefixes: Vec<BTreeSet<u64>>,
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
            symbols: Vec::new(),
            by_symbol: HashMap::new(),
            traced_nops: references::traced_nops(object),
            names_at: HashMap::new(),
            prefixes: Vec::new(),
        };
        let symbols = symbols_by_section(object);
        let mut raw = references::raw(object);
        unit.prefixes = referred_offsets(object, &raw, |name| name == PADDING_TABLE);
        let irregular = unit.cut(&symbols, &raw);
        unit.symbols = symbols;
        unit.index_symbols();
        references::decode(&unit, &mut raw);
        unit.resolve(raw);
        unit.own_entries();
        unit.own_label_tables();
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

    /// How its section is treated.
    pub(crate) fn treatment_of(&self, id: AtomId) -> Treatment {
        self.treatments[self.atom(id).section.index()]
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

    /// All names of the place where the atom's symbol stands.
    pub(crate) fn names(&self, id: AtomId) -> impl Iterator<Item = &str> {
        let atom = self.atom(id);
        let names = self.names_at.get(&(atom.section, atom.origin));
        names.into_iter().flatten().map(|&symbol| self.object.symbol(symbol).name.as_str())
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
        self.section_of(id).alignment_at(self.atom(id).start)
    }

    pub(crate) fn atoms_in(&self, section: SectionId) -> &[AtomId] {
        &self.by_section[section.index()]
    }

    pub(crate) fn symbols_in(&self, section: SectionId) -> &[SymbolId] {
        &self.symbols[section.index()]
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

    fn index_symbols(&mut self) {
        for id in self.object.symbol_ids() {
            let symbol = self.object.symbol(id);
            if symbol.kind == SymbolKind::Section || symbol.kind == SymbolKind::File {
                continue;
            }
            let Some(section) = symbol.section() else { continue };
            if !symbol.name.is_empty() {
                self.names_at.entry((section, symbol.value)).or_default().push(id);
            }
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
