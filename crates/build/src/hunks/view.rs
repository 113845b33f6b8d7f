//! A unit's two objects, with the lines that their functions have code of.

use crate::error::BuildError;
use crate::units::{self, Compared, ProvenUnit};
use kmend_compile::{Change, CompiledUnit};
use kmend_diff::FunctionChange;
use kmend_explain::LineTable;
use kmend_object::{Object, Symbol, SymbolId, elf};
use std::collections::BTreeSet;

/// A unit's two objects with their lines.
pub(super) struct View<'a> {
    pub(super) unit: &'a CompiledUnit,
    result: &'a Compared,
    pub(super) original: Object,
    pub(super) patched: Object,
    original_lines: LineTable,
    patched_lines: LineTable,
}

/// Lines of a file, in the original and as patched.
pub(super) type Lines<'a> = (&'a BTreeSet<u32>, &'a BTreeSet<u32>);

impl<'a> View<'a> {
    pub(super) fn new(unit: &'a CompiledUnit, result: &'a Compared) -> Result<Self, BuildError> {
        let source = &unit.unit.source;
        let (original, patched) =
            (units::parse(source, &unit.original)?, units::parse(source, &unit.patched)?);
        let (original_lines, patched_lines) = (LineTable::read(&original), LineTable::read(&patched));
        Ok(View { unit, result, original, patched, original_lines, patched_lines })
    }

    pub(super) fn source(&self) -> &'a str {
        &self.unit.unit.source
    }

    pub(super) fn proven(&self) -> Option<&'a ProvenUnit> {
        self.result.result.as_ref().ok()
    }

    pub(super) fn refusals(&self) -> impl Iterator<Item = &'a kmend_refusal::Refusal> + use<'a> {
        self.result.result.as_ref().err().into_iter().flatten()
    }

    /// The functions that go into the module; none if the unit is refused.
    pub(super) fn changes(&self) -> &'a [FunctionChange] {
        self.proven().map_or(&[], |proven| &proven.delta.functions)
    }

    /// The variables that go into the module, or are exchanged.
    pub(super) fn variables(&self) -> impl Iterator<Item = &'a String> + use<'a> {
        let delta = self.proven().map(|proven| &proven.delta);
        let updates = delta.into_iter().flat_map(|delta| delta.updates.iter().map(|update| &update.variable));
        updates.chain(delta.into_iter().flat_map(|delta| &delta.variables))
    }

    /// The lines that a function of the patched object has code of.
    pub(super) fn lines(&self, function: SymbolId) -> BTreeSet<(&str, u32)> {
        self.patched_lines.of(&self.patched, function)
    }

    /// Whether a function of the module has code of these lines of a file.
    pub(super) fn covers(&self, file: &str, lines: Lines<'_>, function: &FunctionChange) -> bool {
        // The original of one that moved here is in the object of another unit.
        let original = function.sides.original.filter(|_| function.home.is_none());
        self.has_lines(file, lines, (original, Some(function.sides.patched)), &function.name)
    }

    fn has_lines(
        &self,
        file: &str,
        (original_lines, patched_lines): Lines<'_>,
        (original, patched): (Option<SymbolId>, Option<SymbolId>),
        name: &str,
    ) -> bool {
        let has = |rows: BTreeSet<(&str, u32)>, lines: &BTreeSet<u32>| {
            rows.into_iter().any(|(of, line)| of == file && lines.contains(&line))
        };
        let cold = format!("{name}.cold");
        let colds = |object: &Object| object.symbols_named(&cold).collect::<Vec<_>>();
        let patched = patched.into_iter().chain(colds(&self.patched));
        let original = original.into_iter().chain(colds(&self.original));
        patched.into_iter().any(|id| has(self.patched_lines.of(&self.patched, id), patched_lines))
            || original.into_iter().any(|id| has(self.original_lines.of(&self.original, id), original_lines))
    }

    /// The functions of the patched object that have code of the functions that a hunk is in.
    pub(super) fn hosts(&self, file: &str, change: &Change) -> Vec<&str> {
        let functions = self.patched.symbol_ids().map(|id| (id, self.patched.symbol(id)));
        let functions = functions.filter(|(_, symbol)| symbol.is_function() && symbol.section().is_some());
        let none = BTreeSet::new();
        let has = |id| self.has_lines(file, (&none, &change.bodies.1), (None, Some(id)), "");
        functions.filter(|(id, _)| has(*id)).map(|(_, symbol)| symbol.name.as_str()).collect()
    }

    /// The functions of the patched object with this name in the source.
    pub(super) fn named<'v>(&'v self, function: &'v str) -> impl Iterator<Item = &'v str> {
        let is_it = |symbol: &&Symbol| symbol.is_function() && symbol.section().is_some();
        let names = self.patched.symbols.iter().filter(is_it).map(|symbol| symbol.name.as_str());
        names.filter(move |name| kmend_diff::source_function(name) == function)
    }

    /// Whether both objects have something of this name, and its bytes differ. Places of relocations do not count here: what
    /// they lead to only the differ can tell.
    pub(super) fn differs(&self, name: &str) -> bool {
        let bytes = |object: &Object| -> Option<Vec<u8>> {
            let mut all = object.symbols_named(name).map(|id| object.symbol(id));
            let symbol = all.find(|symbol| symbol.section().is_some())?;
            let section = object.section(symbol.section()?);
            let mut bytes = section.bytes(symbol.value, symbol.size)?.to_vec();
            for relocation in &section.relocations {
                let width = elf::width(relocation.kind).unwrap_or(8) as usize;
                let Some(start) = relocation.offset.checked_sub(symbol.value) else { continue };
                for byte in bytes.iter_mut().skip(start as usize).take(width) {
                    *byte = 0;
                }
            }
            Some(bytes)
        };
        matches!((bytes(&self.original), bytes(&self.patched)), (Some(one), Some(other)) if one != other)
    }

    /// Whether only the patched object defines something of a name.
    pub(super) fn is_new(&self, name: &str) -> bool {
        let is_there = |id: SymbolId| self.original.symbol(id).section().is_some();
        !name.contains('.') && !self.original.symbols_named(name).any(is_there)
    }

    /// What the patched object defines of the words that a hunk has outside of functions.
    pub(super) fn defined<'v>(
        &'v self,
        change: &'v Change,
        functions: bool,
    ) -> impl Iterator<Item = &'v str> {
        let is_kind = move |symbol: &&Symbol| {
            symbol.section().is_some() && !symbol.name.is_empty() && symbol.is_function() == functions
        };
        let names = self.patched.symbols.iter().filter(is_kind).map(|symbol| symbol.name.as_str());
        names.filter(|name| change.words.contains(name.split('.').next().unwrap_or_default()))
    }

    /// Whether a note of the comparison, or what it leaves as it is, speaks of something by any of its names.
    pub(super) fn tells(&self, name: &str) -> bool {
        let place = |symbol: &Symbol| symbol.section().map(|section| (section, symbol.value));
        let places: Vec<_> =
            self.patched.symbols_named(name).filter_map(|id| place(self.patched.symbol(id))).collect();
        let is_there = |symbol: &&Symbol| place(symbol).is_some_and(|place| places.contains(&place));
        let aliases = self.patched.symbols.iter().filter(is_there).map(|symbol| symbol.name.as_str());
        aliases.filter(|alias| !alias.is_empty()).chain([name]).any(|name| self.tells_of(name))
    }

    fn tells_of(&self, name: &str) -> bool {
        let Some(proven) = self.proven() else { return true };
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let root = kmend_diff::source_function(name);
        let has = |text: &str| text.split(|c| !is_word(c)).any(|word| word == name || word == root);
        let passed = &proven.delta.passed_over;
        proven.delta.notes.iter().any(|note| has(note))
            || passed.iter().any(|refusal| kmend_diff::source_function(&refusal.subject) == root)
            || proven.delta.functions.iter().any(|function| function.name == name)
            || self.variables().any(|variable| variable == name)
    }
}
