//! One object from the units' extracts.
//!
//! Tables that the kernel or objtool finds by their section's name (`__bug_table`, `.altinstructions`,
//! `.data..percpu`) must be one section, so sections of one name are joined; code keeps a section a function.
//! Every definition becomes local: a reference by name from another unit means the living kernel, unless
//! the patch itself brings the name into being.

mod sections;
mod symbols;

use crate::clear::{self, Clearing};
use crate::names::UniqueNames;
use crate::plan::{self, Resolution, Unresolved};
use crate::{LinkInput, PlannedSymbol, UnitInput};
use kmend_diff::Reference;
use kmend_object::{
    Binding, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId, SymbolKind, elf,
};
use kmend_refusal::{Code, Refusal};
use sections::Pieces;
use std::collections::BTreeMap;

/// Symbols that the build system defines in every module: a reference to those of the patched module must
/// not bind to the livepatch's own.
const OF_EVERY_MODULE: [&str; 3] = ["__this_module", "init_module", "cleanup_module"];

/// Where functions are defined until the finish that do not return.
const DEAD_ENDS: &str = ".text.kmend_ends";
/// The code of one: `ud2`, and padding that objtool takes for that.
const DEAD_END: [u8; 16] = {
    let mut code = [0xcc; 16];
    (code[0], code[1]) = (0x0f, 0x0b);
    code
};

/// The merged object and what is known of its symbols.
pub(crate) struct Merged {
    pub(crate) object: Object,
    pub(crate) symbols: Vec<PlannedSymbol>,
    pub(crate) renamed: BTreeMap<String, String>,
    pub(crate) clearing: Option<[String; 3]>,
    pub(crate) warnings: Vec<String>,
    /// For each unit, its symbols' ids in the merged object, by their index in the extract.
    pub(crate) placed: Vec<Vec<Option<SymbolId>>>,
}

/// The state of a merge.
struct Merge<'a, 'r> {
    input: &'a LinkInput<'a>,
    refusals: &'r mut Vec<Refusal>,
    names: UniqueNames,
    merged: Merged,
    /// Undefined symbols already in the merged object.
    known: BTreeMap<(String, Resolution, bool), SymbolId>,
    /// The merged object's section symbols.
    section_symbols: BTreeMap<SectionId, SymbolId>,
}

/// Merges all units. What cannot be resolved is added to `refusals`.
pub(crate) fn merge(input: &LinkInput<'_>, refusals: &mut Vec<Refusal>) -> Merged {
    let mut names = UniqueNames::default();
    for name in OF_EVERY_MODULE {
        names.take(name);
    }
    let placed = input.units.iter().map(|unit| vec![None; unit.delta.extract.object.symbols.len()]).collect();
    let merged = Merged {
        object: Object::new(),
        symbols: Vec::new(),
        renamed: BTreeMap::new(),
        clearing: None,
        warnings: Vec::new(),
        placed,
    };
    let mut merge =
        Merge { input, refusals, names, merged, known: BTreeMap::new(), section_symbols: BTreeMap::new() };
    let new_globals = symbols::new_globals(input, merge.refusals);
    let internal = merge.undefined(&new_globals);
    merge.clearing();
    if let Some(dead_ends) = merge.merged.object.section_named(DEAD_ENDS) {
        merge.section_symbol(dead_ends);
    }
    let pieces = sections::join(input, &mut merge.merged.object, merge.refusals);
    symbols::define(&mut merge, &pieces);
    merge.bind(&internal);
    merge.relocations(&pieces);
    sections::restore_order(&mut merge.merged.object);
    merge.merged
}

/// A reference from one unit to what another unit of the patch brings into being:
/// (unit, symbol) → (unit, symbol).
type Internal = Vec<((usize, SymbolId), (usize, SymbolId))>;

impl Merge<'_, '_> {
    /// Plans every undefined symbol and adds it to the merged object. Undefined symbols come before
    /// definitions, because they keep their names where both want one.
    fn undefined(&mut self, new_globals: &BTreeMap<&str, (usize, SymbolId)>) -> Internal {
        let mut internal = Internal::new();
        let input = self.input;
        for (index, unit) in input.units.iter().enumerate() {
            let extract = &unit.delta.extract;
            for id in extract.object.symbol_ids() {
                let symbol = extract.object.symbol(id);
                if !symbol.is_undefined() || symbol.name.is_empty() {
                    continue;
                }
                let by_name = || Reference::External { name: symbol.name.clone() };
                let reference = extract.references.get(&id).cloned().unwrap_or_else(by_name);
                if let Reference::External { name } = &reference
                    && let Some(&target) = new_globals.get(name.as_str())
                {
                    internal.push(((index, id), target));
                    continue;
                }
                let planned = self.plan(unit, id, &reference);
                self.merged.placed[index][id.index()] = planned;
                let is_late = planned.and_then(|id| self.planned(id)?.resolution.waits_for()).is_some();
                if let Some(key) = plan::static_call_key(&reference).filter(|_| !is_late) {
                    self.plan(unit, id, &key);
                }
            }
        }
        internal
    }

    fn plan(&mut self, unit: &UnitInput<'_>, id: SymbolId, reference: &Reference) -> Option<SymbolId> {
        let name = reference.name();
        match plan::resolve(unit, reference, self.input.kernel) {
            Ok(resolution) => {
                // What the kernel exports is known to objtool by its name, if it does not return.
                let ends = resolution != Resolution::Export && unit.delta.extract.ends.contains(&id);
                Some(self.intern(name, resolution, ends))
            }
            Err(Unresolved { code, why }) => {
                let user = symbols::user_of(&unit.delta.extract.object, id);
                let why = match user {
                    Some(user) => format!("{user} refers to it, but {why}"),
                    None => why,
                };
                self.refusals.push(Refusal::new(code, name, why).at(unit.source, None));
                None
            }
        }
    }

    /// Plans what the patch table needs to clear late relocations; the consistency engine clears them itself.
    fn clearing(&mut self) {
        if self.input.engine.is_some() {
            return;
        }
        let waiting = self.merged.symbols.iter().find_map(|symbol| symbol.resolution.waits_for());
        let Some(module) = waiting.map(str::to_owned) else { return };
        match clear::decide(self.input.kernel) {
            Clearing::NotNeeded => {}
            Clearing::Impossible => self.merged.warnings.push(format!(
                "once unloaded, {module} cannot be loaded again while this livepatch is loaded"
            )),
            Clearing::ByCallback(resolutions) => {
                let mut names = clear::NEEDED.into_iter();
                let placeholders = resolutions.map(|resolution| {
                    let id = self.intern(names.next().unwrap_or_default(), resolution, false);
                    self.merged.object.symbol(id).name.clone()
                });
                self.merged.clearing = Some(placeholders);
            }
        }
    }

    /// The symbol for one name and resolution: undefined, or one that objtool sees not to return.
    fn intern(&mut self, name: &str, resolution: Resolution, ends: bool) -> SymbolId {
        let key = (name.to_owned(), resolution, ends);
        if let Some(&known) = self.known.get(&key) {
            return known;
        }
        // The build system would resolve what a module exports and make the livepatch depend on that
        // module, and refuses what is exported to a namespace: both are hidden from it.
        let hidden = key.1 != Resolution::Export && self.input.kernel.exported(name).is_some();
        let placeholder = match plan::plain_call(name, &key.1) {
            Some(call) => self.names.take(&call),
            None if hidden => self.names.take_other(name),
            None => self.names.take(name),
        };
        let symbol = if ends { self.dead_end(&placeholder) } else { Symbol::undefined(&placeholder) };
        let id = self.merged.object.add_symbol(symbol);
        let (name, resolution, ends) = key.clone();
        self.merged.symbols.push(PlannedSymbol { placeholder, name, resolution, ends });
        self.known.insert(key, id);
        id
    }

    /// A function that does not return, in a section of such.
    fn dead_end(&mut self, name: &str) -> Symbol {
        let object = &mut self.merged.object;
        let id = object.section_named(DEAD_ENDS).unwrap_or_else(|| {
            let flags = elf::SHF_ALLOC | elf::SHF_EXECINSTR;
            object.add_section(Section::allocated(DEAD_ENDS, flags, DEAD_END.len() as u64, Vec::new()))
        });
        let section = &mut object.sections[id.index()];
        let value = section.size;
        section.data.extend(DEAD_END);
        section.size += DEAD_END.len() as u64;
        Symbol {
            name: name.to_owned(),
            value,
            size: 2,
            binding: Binding::Local,
            kind: SymbolKind::Function,
            place: Place::Section(id),
            ..Symbol::null()
        }
    }

    fn bind(&mut self, internal: &Internal) {
        for &((unit, symbol), (home, definition)) in internal {
            let target = self.merged.placed[home][definition.index()];
            self.merged.placed[unit][symbol.index()] = target;
        }
    }

    fn relocations(&mut self, pieces: &Pieces) {
        for (index, unit) in self.input.units.iter().enumerate() {
            let extract = &unit.delta.extract.object;
            for id in extract.section_ids() {
                let Some(piece) = pieces.get(index, id) else { continue };
                for relocation in &extract.section(id).relocations {
                    self.check_late(unit, id, relocation, index);
                    self.check_landing(unit, id, relocation, index);
                    let Some(moved) = self.moved(index, extract, relocation, pieces) else { continue };
                    let offset = moved.offset + piece.offset;
                    let list = &mut self.merged.object.sections[piece.section.index()].relocations;
                    list.push(Relocation { offset, ..moved });
                }
            }
        }
    }

    /// The relocation with the merged object's symbol. `None` where the symbol was refused.
    ///
    /// References to code are to the section, as an assembler writes those to local symbols: objtool takes a
    /// jump to a function's symbol for a tail call, and wants sections in its annotations
    /// (tools/objtool/check.c, `add_jump_destinations` and `add_dead_ends`).
    fn moved(
        &mut self,
        unit: usize,
        extract: &Object,
        relocation: &Relocation,
        pieces: &Pieces,
    ) -> Option<Relocation> {
        if relocation.symbol == SymbolId::NULL {
            return Some(*relocation);
        }
        let target = extract.symbols.get(relocation.symbol.index())?;
        if let Some(section) = target.section()
            && (target.kind == SymbolKind::Section || extract.sections.get(section.index())?.is_code())
        {
            let piece = pieces.get(unit, section)?;
            let symbol = self.section_symbol(piece.section);
            let shift = piece.offset.wrapping_add(target.value);
            return Some(Relocation {
                symbol,
                addend: relocation.addend.wrapping_add_unsigned(shift),
                ..*relocation
            });
        }
        let symbol = self.merged.placed[unit].get(relocation.symbol.index()).copied().flatten()?;
        Some(Relocation { symbol, ..*relocation })
    }

    fn section_symbol(&mut self, section: SectionId) -> SymbolId {
        let object = &mut self.merged.object;
        *self.section_symbols.entry(section).or_insert_with(|| {
            let place = Place::Section(section);
            object.add_symbol(Symbol { kind: SymbolKind::Section, place, ..Symbol::null() })
        })
    }

    /// Refuses a symbol of a module where the kernel reads the place before that module can be there.
    fn check_late(
        &mut self,
        unit: &UnitInput<'_>,
        section: SectionId,
        relocation: &Relocation,
        index: usize,
    ) {
        let Some(planned) = self.planned_for(relocation, index) else { return };
        let Some(module) = planned.resolution.waits_for() else { return };
        let section = unit.delta.extract.object.section(section);
        let Some(code) = sections::read_before_modules(section) else { return };
        let why = if code == Code::ModuleStaticKey {
            format!("a jump label of the patched code depends on a static key of the module {module}")
        } else {
            format!("section {} is read when the livepatch is loaded, {module} may come later", section.name)
        };
        self.refusals.push(Refusal::new(code, &planned.name, why).at(unit.source, None));
    }

    /// Refuses the address of a function that has no landing pad: a processor that checks where indirect calls lead would trap.
    fn check_landing(
        &mut self,
        unit: &UnitInput<'_>,
        section: SectionId,
        relocation: &Relocation,
        index: usize,
    ) {
        let place = unit.delta.extract.object.section(section);
        // Most branches have a kind of their own (x86-64 psABI, 4.4.1); where the assembler took the section's symbol, the opcode
        // tells. Notes for objtool call nothing.
        let is_branch = relocation.kind == elf::R_X86_64_PLT32 || place.is_branch_operand(relocation);
        if is_branch || place.name.starts_with(".discard") {
            return;
        }
        let Some(planned) = self.planned_for(relocation, index) else { return };
        let kernel = self.input.kernel;
        let location = match &planned.resolution {
            Resolution::Livepatch { target, .. } => Some(target.clone()),
            Resolution::Export => {
                let by = kernel.exported(&planned.name).map(|export| export.by);
                let all = by.map(|by| kernel.candidates(&by, &planned.name)).unwrap_or_default();
                all.into_iter().find(|candidate| candidate.global).map(|candidate| candidate.location)
            }
        };
        if !location.is_some_and(|location| kernel.is_called_by_name_alone(&location)) {
            return;
        }
        let why = format!(
            "{} has its address, and it has no landing pad for indirect calls (endbr64) in this kernel",
            place.name
        );
        self.refusals.push(Refusal::new(Code::NoLandingPad, &planned.name, why).at(unit.source, None));
    }

    /// What a relocation of a unit leads to, if that is to be resolved.
    fn planned_for(&self, relocation: &Relocation, unit: usize) -> Option<&PlannedSymbol> {
        let placed = self.merged.placed[unit].get(relocation.symbol.index()).copied().flatten();
        self.planned(placed?)
    }

    fn planned(&self, id: SymbolId) -> Option<&PlannedSymbol> {
        // Planned symbols are the first of the merged object, in the list's order, after the null symbol.
        self.merged.symbols.get(id.index().checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests;
