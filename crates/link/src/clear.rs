//! Modules that go and come again.
//!
//! Relocations that wait for a patched module are written when it comes, and the kernel writes only over
//! zeroes. Since Linux 6.3 it clears the places when the module goes (0c05e7bd2d01, `clear_relocate_add`);
//! before, a module that went cannot come back while the livepatch is there. For such kernels the livepatch
//! clears the places itself, in its `post_unpatch` callback, in the way in which the kernel wrote them: by
//! `text_poke` under `text_mutex`.

use crate::plan::{Resolution, VMLINUX};
use crate::{KernelSymbols, Linked, table};
use kmend_object::{Object, Place, Relocation, Section, Symbol, SymbolId, SymbolKind, elf};
use std::collections::BTreeMap;

/// What the kernel has if it clears the places itself.
const OF_THE_KERNEL: &str = "clear_relocate_add";
/// What the callback calls.
pub(crate) const NEEDED: [&str; 3] = ["text_poke", "text_poke_sync", "text_mutex"];
/// Bytes of `struct kmend_place` in the patch table: an address and a size.
const ENTRY: usize = 16;

/// How the places of late relocations become zero again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Clearing {
    /// There are none, or the kernel does it.
    NotNeeded,
    /// The livepatch does it, with these symbols of the kernel.
    ByCallback(Box<[Resolution; 3]>),
    /// It cannot be done: the kernel lacks a symbol that it takes.
    Impossible,
}

/// Decides, once it is known that there are late relocations.
pub(crate) fn decide(kernel: &dyn KernelSymbols) -> Clearing {
    if !kernel.candidates(VMLINUX, OF_THE_KERNEL).is_empty() {
        return Clearing::NotNeeded;
    }
    let found = NEEDED.map(|name| match kernel.candidates(VMLINUX, name).as_slice() {
        [only] => {
            Some(Resolution::Livepatch { target: only.location.clone(), applied_with: VMLINUX.to_owned() })
        }
        _ => None,
    });
    match found {
        [Some(poke), Some(sync), Some(mutex)] => Clearing::ByCallback(Box::new([poke, sync, mutex])),
        _ => Clearing::Impossible,
    }
}

/// Lists the places of each patched module for its callback: adds a table for each, and returns the tables'
/// section symbols by the aliases that the patch table has for them.
pub(crate) fn add_places(module: &mut Object, linked: &Linked) -> BTreeMap<String, SymbolId> {
    let mut tables = BTreeMap::new();
    if linked.clearing.is_none() {
        return tables;
    }
    for (number, &object) in table::objects(linked).keys().enumerate() {
        if object != VMLINUX {
            let symbol = add_table(module, number, object);
            tables.insert(table::places_alias(number), symbol);
        }
    }
    tables
}

fn add_table(module: &mut Object, number: usize, object: &str) -> SymbolId {
    let mut data = Vec::new();
    let mut relocations = Vec::new();
    for id in module.section_ids() {
        let late = module.section(id).livepatch.iter().filter(|list| list.object == object);
        let places: Vec<Relocation> = late.flat_map(|list| list.relocations.iter().copied()).collect();
        if places.is_empty() {
            continue;
        }
        let symbol = section_symbol(module, id);
        for place in places {
            let (offset, addend) = (data.len() as u64, place.offset as i64);
            relocations.push(Relocation { offset, kind: elf::R_X86_64_64, symbol, addend });
            data.extend([0; ENTRY / 2]);
            data.extend(elf::width(place.kind).unwrap_or(0).to_le_bytes());
        }
    }
    data.extend([0; ENTRY]);
    let name = format!(".rodata.kmend_places_{number}");
    let section = module.add_section(Section { relocations, ..Section::allocated(name, 0, 8, data) });
    section_symbol(module, section)
}

fn section_symbol(module: &mut Object, section: kmend_object::SectionId) -> SymbolId {
    let place = Place::Section(section);
    let is_it = |symbol: &Symbol| symbol.kind == SymbolKind::Section && symbol.place == place;
    if let Some(index) = module.symbols.iter().position(is_it) {
        return SymbolId(index as u32);
    }
    module.add_symbol(Symbol { kind: SymbolKind::Section, place, ..Symbol::null() })
}
