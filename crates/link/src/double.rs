//! A kernel, a match and extracts made by hand, for the tests of this crate.

use crate::{Candidate, Exported, KernelSymbols, LinkInput, Locate, Location, UnitInput};
use kmend_diff::{Delta, Extract, FunctionChange, Reference};
use kmend_object::{
    Binding, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId, SymbolKind, elf,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn location(object: &str, name: &str, position: u32, count: u32) -> Location {
    Location { object: object.into(), name: name.into(), position, count }
}

/// A kernel that says what it was told.
#[derive(Default)]
pub(crate) struct Kernel {
    exports: BTreeMap<String, Exported>,
    symbols: BTreeMap<(String, String), Vec<bool>>,
    needs: Vec<(String, String)>,
    freed: Vec<String>,
    sealed: Vec<String>,
}

impl Kernel {
    pub(crate) fn export(mut self, symbol: &str, by: &str, namespaced: bool) -> Self {
        self.exports.insert(symbol.into(), Exported { by: by.into(), namespaced });
        self
    }

    /// Adds one symbol for each flag, which says whether it is global.
    pub(crate) fn symbol(mut self, object: &str, name: &str, globals: &[bool]) -> Self {
        self.symbols.insert((object.into(), name.into()), globals.to_vec());
        self
    }

    pub(crate) fn free(mut self, symbol: &str) -> Self {
        self.freed.push(symbol.into());
        self
    }

    /// Of this function no address may be taken.
    pub(crate) fn seal(mut self, symbol: &str) -> Self {
        self.sealed.push(symbol.into());
        self
    }

    pub(crate) fn need(mut self, module: &str, other: &str) -> Self {
        self.needs.push((module.into(), other.into()));
        self
    }
}

impl KernelSymbols for Kernel {
    fn exported(&self, symbol: &str) -> Option<Exported> {
        self.exports.get(symbol).cloned()
    }

    fn needs(&self, module: &str, other: &str) -> bool {
        module == other || self.needs.contains(&(module.into(), other.into()))
    }

    fn is_freed(&self, location: &Location) -> bool {
        self.freed.contains(&location.name)
    }

    fn is_called_by_name_alone(&self, location: &Location) -> bool {
        self.sealed.contains(&location.name)
    }

    fn candidates(&self, object: &str, symbol: &str) -> Vec<Candidate> {
        let globals = self.symbols.get(&(object.into(), symbol.into())).cloned().unwrap_or_default();
        let count = globals.len() as u32;
        (1..)
            .zip(globals)
            .map(|(position, global)| Candidate {
                location: location(object, symbol, position, count),
                global,
                weak: false,
            })
            .collect()
    }
}

/// A match that says what it was told.
#[derive(Default)]
pub(crate) struct Matched(BTreeMap<String, Location>);

impl Matched {
    pub(crate) fn at(mut self, name: &str, location: Location) -> Self {
        self.0.insert(name.into(), location);
        self
    }
}

impl Locate for Matched {
    fn locate(&self, name: &str) -> Option<Location> {
        self.0.get(name).cloned()
    }

    fn locate_in(&self, unit: &str, name: &str) -> Option<Location> {
        self.0.get(&format!("{unit}:{name}")).cloned()
    }
}

/// An extract under construction.
#[derive(Default)]
pub(crate) struct Unit {
    pub(crate) delta: Delta,
}

impl Unit {
    pub(crate) fn new() -> Self {
        let extract = Extract { object: Object::new(), references: BTreeMap::new(), ends: BTreeSet::new() };
        Unit { delta: Delta { extract, ..Delta::default() } }
    }

    pub(crate) fn section(&mut self, name: &str, flags: u64, data: &[u8]) -> SectionId {
        self.delta.extract.object.add_section(Section::allocated(name, flags, 4, data.to_vec()))
    }

    pub(crate) fn define(
        &mut self,
        name: &str,
        kind: SymbolKind,
        binding: Binding,
        place: SectionId,
    ) -> SymbolId {
        let size = if kind == SymbolKind::Section { 0 } else { 16 };
        let place = Place::Section(place);
        let symbol = Symbol { name: name.into(), size, binding, kind, place, ..Symbol::null() };
        self.delta.extract.object.add_symbol(symbol)
    }

    /// A function of 16 bytes in a section of its own, with what it replaces.
    pub(crate) fn function(&mut self, name: &str, original: Option<&str>, binding: Binding) -> SymbolId {
        let section = self.section(&format!(".text.{name}"), elf::SHF_EXECINSTR, &[0x90; 16]);
        let symbol = self.define(name, SymbolKind::Function, binding, section);
        self.delta.functions.push(FunctionChange {
            name: name.into(),
            original: original.map(str::to_owned),
            home: None,
            carried: false,
            jumps: false,
            reasons: Vec::new(),
            sides: kmend_diff::Sides { original: None, patched: SymbolId::NULL },
            symbol,
        });
        symbol
    }

    pub(crate) fn reference(&mut self, name: &str, reference: Reference) -> SymbolId {
        let id = self.delta.extract.object.add_symbol(Symbol::undefined(name));
        self.delta.extract.references.insert(id, reference);
        id
    }

    /// An undefined symbol of another unit.
    pub(crate) fn external(&mut self, name: &str) -> SymbolId {
        self.reference(name, Reference::External { name: name.into() })
    }

    /// An undefined symbol that stands for the living original.
    pub(crate) fn original(&mut self, name: &str) -> SymbolId {
        self.reference(name, Reference::Original { name: name.into() })
    }

    pub(crate) fn relocate(&mut self, section: SectionId, offset: u64, symbol: SymbolId, addend: i64) {
        self.relocate_as(elf::R_X86_64_PC32, section, offset, symbol, addend);
    }

    pub(crate) fn relocate_as(
        &mut self,
        kind: u32,
        section: SectionId,
        offset: u64,
        symbol: SymbolId,
        addend: i64,
    ) {
        let relocation = Relocation { offset, kind, symbol, addend };
        self.delta.extract.object.sections[section.index()].relocations.push(relocation);
    }

    pub(crate) fn section_of(&self, symbol: SymbolId) -> SectionId {
        self.delta.extract.object.symbol(symbol).section().unwrap()
    }

    pub(crate) fn input<'a>(
        &'a self,
        source: &'a str,
        owner: &'a str,
        matched: &'a Matched,
    ) -> UnitInput<'a> {
        UnitInput { source, owner, delta: &self.delta, matched }
    }
}

static NOTHING: crate::Mends = crate::Mends { fixes: Vec::new(), subjects: Vec::new() };

/// All of it for one livepatch called `test`.
pub(crate) fn input<'a>(units: &'a [UnitInput<'a>], kernel: &'a Kernel) -> LinkInput<'a> {
    LinkInput { name: "test", replace: true, units, kernel, build_id: "00ff", mends: &NOTHING, engine: None }
}
