//! From the module that the build system made to a livepatch module.
//!
//! Planned symbols become livepatch symbols and their relocations move to sections that the livepatch
//! loader applies; the patch table gets its functions; functions get their names back
//! (Documentation/livepatch/module-elf-format.rst).

use crate::plan::Resolution;
use crate::{LinkError, Linked, PlannedSymbol, clear, engine, table};
use kmend_object::{
    LivepatchRelocations, Object, Place, Relocation, Section, Symbol, SymbolId, SymbolKind, elf,
};
use std::collections::{BTreeMap, BTreeSet};

/// Finishes the module.
pub(crate) fn finish(mut module: Object, linked: &Linked) -> Result<Object, LinkError> {
    check_dependencies(&module, linked)?;
    let late = livepatch_symbols(&mut module, &linked.symbols);
    let replacements = replacements(&module, linked)?;
    for section in &mut module.sections {
        split_relocations(section, &late)?;
    }
    let aliases = aliases(&mut module, linked, &replacements)?;
    for relocation in relocations(&mut module) {
        if let Some(&target) = aliases.get(&relocation.symbol) {
            relocation.symbol = target;
        }
    }
    check_unwind(&module, &replacements)?;
    restore_names(&mut module, linked);
    let module = without_unused(module, &late, &aliases);
    check_sections(&module)?;
    Ok(module)
}

/// The same for a module that was written by hand, which has no patch table of kmend's.
pub(crate) fn finish_written(mut module: Object, symbols: &[PlannedSymbol]) -> Result<Object, LinkError> {
    let late = livepatch_symbols(&mut module, symbols);
    for section in &mut module.sections {
        split_relocations(section, &late)?;
    }
    let module = without_unused(module, &late, &BTreeMap::new());
    check_sections(&module)?;
    Ok(module)
}

/// Turns planned symbols into livepatch symbols. The result says with which object each is applied.
fn livepatch_symbols(module: &mut Object, symbols: &[PlannedSymbol]) -> BTreeMap<SymbolId, String> {
    let planned: BTreeMap<&str, &PlannedSymbol> =
        symbols.iter().map(|symbol| (symbol.placeholder.as_str(), symbol)).collect();
    let mut late = BTreeMap::new();
    for id in module.symbol_ids() {
        let symbol = &mut module.symbols[id.index()];
        let Some(plan) = planned.get(symbol.name.as_str()) else { continue };
        let is_planned = if plan.ends { symbol.is_function() } else { symbol.is_undefined() };
        if !is_planned {
            continue;
        }
        if let Resolution::Livepatch { target, applied_with } = &plan.resolution {
            let name = format!(".klp.sym.{}.{},{}", target.object, target.name, target.sympos());
            *symbol = Symbol { name, place: Place::Livepatch, ..Symbol::undefined("") };
            late.insert(id, applied_with.clone());
        }
    }
    late
}

/// From the table's aliases of functions (replacements and callbacks) and of tables of words to what they stand for.
fn replacements(module: &Object, linked: &Linked) -> Result<BTreeMap<SymbolId, SymbolId>, LinkError> {
    let meant: BTreeMap<&str, SymbolId> = module
        .symbol_ids()
        .filter(|&id| matches!(module.symbol(id).kind, SymbolKind::Function | SymbolKind::Object))
        .map(|id| (module.symbol(id).name.as_str(), id))
        .collect();
    let mut replacements = BTreeMap::new();
    for id in module.symbol_ids() {
        let symbol = module.symbol(id);
        if !symbol.is_undefined() || !table::is_alias(&symbol.name) {
            continue;
        }
        let function = table::meaning(linked, &symbol.name).and_then(|name| meant.get(name));
        let Some(&function) = function else {
            return Err(inconsistent(format!("the module lost what {} stands for", symbol.name)));
        };
        replacements.insert(id, function);
    }
    let wanted = linked.functions.len() + linked.callbacks.len() + linked.words.len();
    if replacements.len() != wanted {
        let found = replacements.len();
        return Err(inconsistent(format!("the patch table has {found} of the {wanted} things it names")));
    }
    Ok(replacements)
}

/// From all of the table's aliases, those of the lists of late relocations too, to what they stand for.
fn aliases(
    module: &mut Object,
    linked: &Linked,
    replacements: &BTreeMap<SymbolId, SymbolId>,
) -> Result<BTreeMap<SymbolId, SymbolId>, LinkError> {
    let mut aliases = replacements.clone();
    for (alias, table) in clear::add_places(module, linked) {
        let Some(id) = module.symbols_named(&alias).find(|&id| module.symbol(id).is_undefined()) else {
            return Err(inconsistent(format!("the patch table does not refer to {alias}")));
        };
        aliases.insert(id, table);
    }
    Ok(aliases)
}

/// Moves the relocations that the livepatch loader applies out of the ordinary ones.
fn split_relocations(section: &mut Section, late: &BTreeMap<SymbolId, String>) -> Result<(), LinkError> {
    let (moved, kept): (Vec<_>, Vec<_>) =
        section.relocations.drain(..).partition(|relocation| late.contains_key(&relocation.symbol));
    section.relocations = kept;
    // The kernel relocates only what it loads.
    if !section.is_allocated() {
        return Ok(());
    }
    let mut lists: BTreeMap<&str, Vec<Relocation>> = BTreeMap::new();
    for relocation in moved.into_iter().filter(|relocation| relocation.kind != elf::R_X86_64_NONE) {
        clear_place(section, &relocation)?;
        let object = late.get(&relocation.symbol).map_or("", String::as_str);
        lists.entry(object).or_default().push(relocation);
    }
    section.livepatch = lists
        .into_iter()
        .map(|(object, relocations)| LivepatchRelocations { object: object.to_owned(), relocations })
        .collect();
    Ok(())
}

/// The x86 loader takes only these kinds, and only at places that hold zeroes
/// (arch/x86/kernel/module.c, `__apply_relocate_add`).
fn clear_place(section: &mut Section, relocation: &Relocation) -> Result<(), LinkError> {
    let loadable = matches!(
        relocation.kind,
        elf::R_X86_64_64
            | elf::R_X86_64_32
            | elf::R_X86_64_32S
            | elf::R_X86_64_PC32
            | elf::R_X86_64_PLT32
            | elf::R_X86_64_PC64
    );
    let width = elf::width(relocation.kind).filter(|_| loadable);
    let place = width.and_then(|width| {
        let start = usize::try_from(relocation.offset).ok()?;
        section.data.get_mut(start..start.checked_add(usize::try_from(width).ok()?)?)
    });
    let Some(place) = place else {
        let (kind, offset, name) = (relocation.kind, relocation.offset, &section.name);
        return Err(inconsistent(format!("the kernel cannot apply relocation {kind} at {name}+{offset:#x}")));
    };
    place.fill(0);
    Ok(())
}

/// Where functions of the module have unwind information, the replacements must have it too: a kernel's
/// build system that did not run objtool on the merged object would leave them without.
fn check_unwind(module: &Object, replacements: &BTreeMap<SymbolId, SymbolId>) -> Result<(), LinkError> {
    let Some(unwind) = module.section_named(".orc_unwind_ip") else { return Ok(()) };
    let covered: BTreeSet<_> = module
        .section(unwind)
        .relocations
        .iter()
        .filter_map(|relocation| module.symbols.get(relocation.symbol.index())?.section())
        .collect();
    for symbol in replacements.values().map(|&id| module.symbol(id)).filter(|symbol| symbol.is_function()) {
        if symbol.section().is_none_or(|section| !covered.contains(&section)) {
            return Err(inconsistent(format!("objtool gave {} no unwind information", symbol.name)));
        }
    }
    Ok(())
}

/// Gives functions, and the symbols that objtool derives from them (`__pfx_`, tools/objtool/elf.c,
/// `elf_create_prefix_symbol`), their names back.
fn restore_names(module: &mut Object, linked: &Linked) {
    for symbol in &mut module.symbols {
        let (prefix, name) = match symbol.name.strip_prefix("__pfx_") {
            Some(rest) => ("__pfx_", rest),
            None => ("", symbol.name.as_str()),
        };
        if let Some(true_name) = linked.renamed.get(name) {
            symbol.name = format!("{prefix}{true_name}");
        }
    }
}

/// The module without the table's aliases and the livepatch symbols that nothing refers to.
fn without_unused(
    mut module: Object,
    late: &BTreeMap<SymbolId, String>,
    aliases: &BTreeMap<SymbolId, SymbolId>,
) -> Object {
    let used: BTreeSet<SymbolId> = relocations(&mut module).map(|relocation| relocation.symbol).collect();
    let dropped = |id: SymbolId| aliases.contains_key(&id) || late.contains_key(&id) && !used.contains(&id);
    let mut renumbered = vec![SymbolId::NULL; module.symbols.len()];
    let mut kept = Vec::with_capacity(module.symbols.len());
    for (index, symbol) in std::mem::take(&mut module.symbols).into_iter().enumerate() {
        let id = SymbolId(index as u32);
        if id == SymbolId::NULL || !dropped(id) {
            renumbered[index] = SymbolId(kept.len() as u32);
            kept.push(symbol);
        }
    }
    module.symbols = kept;
    let new = |id: SymbolId| renumbered.get(id.index()).copied().unwrap_or(SymbolId::NULL);
    for relocation in relocations(&mut module) {
        relocation.symbol = new(relocation.symbol);
    }
    for group in &mut module.groups {
        group.signature = new(group.signature);
    }
    module
}

fn relocations(module: &mut Object) -> impl Iterator<Item = &mut Relocation> {
    module.sections.iter_mut().flat_map(|section| {
        let late = section.livepatch.iter_mut().flat_map(|list| &mut list.relocations);
        section.relocations.iter_mut().chain(late)
    })
}

/// A livepatch waits for the modules it patches and must not need them to be loaded.
fn check_dependencies(module: &Object, linked: &Linked) -> Result<(), LinkError> {
    let info = module.section_named(".modinfo").map_or(&[][..], |id| module.section(id).data.as_slice());
    let entries = info.split(|&byte| byte == 0);
    match entries.filter_map(|entry| entry.strip_prefix(b"depends=")).find(|list| !list.is_empty()) {
        Some(list) => {
            let list = String::from_utf8_lossy(list);
            if engine::allows(linked, &list) {
                return Ok(());
            }
            Err(inconsistent(format!("the livepatch would depend on the module(s) {list}")))
        }
        None => Ok(()),
    }
}

/// The kernel makes a file in sysfs for each loaded section, by its name (kernel/module/sysfs.c,
/// `add_sect_attrs`).
fn check_sections(module: &Object) -> Result<(), LinkError> {
    let mut names = BTreeSet::new();
    let twice = module
        .sections
        .iter()
        .find(|section| section.is_allocated() && section.size > 0 && !names.insert(section.name.as_str()));
    twice.map_or(Ok(()), |section| Err(inconsistent(format!("two sections are called {}", section.name))))
}

fn inconsistent(what: String) -> LinkError {
    LinkError::Inconsistent(what)
}

#[cfg(test)]
mod tests;
