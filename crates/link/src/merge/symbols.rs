//! Definitions in the merged object.

use super::{Merge, sections::Pieces};
use crate::LinkInput;
use crate::names::split_cold;
use kmend_object::{Binding, Object, Place, Symbol, SymbolId, SymbolKind};
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeMap;

/// The global functions and variables that the patch brings into being, by name.
pub(crate) fn new_globals<'a>(
    input: &LinkInput<'a>,
    refusals: &mut Vec<Refusal>,
) -> BTreeMap<&'a str, (usize, SymbolId)> {
    let mut globals = BTreeMap::new();
    for (index, unit) in input.units.iter().enumerate() {
        let object = &unit.delta.extract.object;
        let replaces =
            |id| unit.delta.functions.iter().any(|change| change.symbol == id && change.original.is_some());
        for id in object.symbol_ids() {
            let symbol = object.symbol(id);
            let defined = symbol.section().is_some() && symbol.binding != Binding::Local;
            if !defined || replaces(id) {
                continue;
            }
            if globals.insert(symbol.name.as_str(), (index, id)).is_some() {
                let why = "two units of the patch define it";
                refusals.push(Refusal::new(Code::LinkFailed, &symbol.name, why).at(unit.source, None));
            }
        }
    }
    globals
}

/// Copies the definitions of all units.
pub(crate) fn define(merge: &mut Merge<'_, '_>, pieces: &Pieces) {
    for (index, unit) in merge.input.units.iter().enumerate() {
        let extract = &unit.delta.extract.object;
        let functions = function_names(merge, extract);
        for id in extract.symbol_ids() {
            let symbol = extract.symbol(id);
            let placed = match symbol.place {
                Place::Section(section) => {
                    let Some(piece) = pieces.get(index, section) else { continue };
                    if symbol.kind == SymbolKind::Section {
                        merge.section_symbol(piece.section)
                    } else {
                        let name = functions.get(&id).unwrap_or(&symbol.name).clone();
                        merge.merged.object.add_symbol(Symbol {
                            name,
                            value: symbol.value.wrapping_add(piece.offset),
                            binding: Binding::Local,
                            other: 0,
                            place: Place::Section(piece.section),
                            ..symbol.clone()
                        })
                    }
                }
                Place::Absolute if symbol.kind != SymbolKind::File => {
                    merge.merged.object.add_symbol(Symbol { binding: Binding::Local, ..symbol.clone() })
                }
                Place::Common | Place::Livepatch => {
                    let why = "an object of the kernel does not define a symbol in this way";
                    let refusal = Refusal::new(Code::LinkFailed, &symbol.name, why);
                    merge.refusals.push(refusal.at(unit.source, None));
                    continue;
                }
                Place::Undefined | Place::Absolute => continue,
            };
            merge.merged.placed[index][id.index()] = Some(placed);
        }
    }
}

/// The names of one unit's functions in the merged object: unique there, a function and its cold part
/// under one name.
fn function_names(merge: &mut Merge<'_, '_>, extract: &Object) -> BTreeMap<SymbolId, String> {
    let mut bases: BTreeMap<&str, String> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for id in extract.symbol_ids() {
        let symbol = extract.symbol(id);
        if !symbol.is_function() {
            continue;
        }
        let (base, cold) = split_cold(&symbol.name);
        let unique = bases.entry(base).or_insert_with(|| merge.names.take(base));
        let name = format!("{unique}{cold}");
        if name != symbol.name {
            merge.merged.renamed.insert(name.clone(), symbol.name.clone());
        }
        names.insert(id, name);
    }
    names
}

/// The function, or else the section, that refers to a symbol first.
pub(crate) fn user_of(object: &Object, symbol: SymbolId) -> Option<String> {
    object.section_ids().find_map(|id| {
        let section = object.section(id);
        let relocation = section.relocations.iter().find(|relocation| relocation.symbol == symbol)?;
        let covers = |candidate: &Symbol| {
            candidate.section() == Some(id)
                && candidate.kind == SymbolKind::Function
                && (candidate.value..candidate.value.saturating_add(candidate.size))
                    .contains(&relocation.offset)
        };
        let function = object.symbols.iter().find(|candidate| covers(candidate));
        Some(function.map_or_else(|| section.name.clone(), |function| function.name.clone()))
    })
}
