//! A module's exports. Its tables are as the kernel's, but still hold relocations where the kernel's hold
//! offsets.

use crate::error::KernelError;
use crate::exports::{ENTRY, Export, TABLES};
use crate::le;
use kmend_object::{Object, Place, Relocation, Section};
use std::collections::{BTreeMap, HashMap};

/// The exports of a module.
pub(super) fn read(object: &Object) -> Result<BTreeMap<String, Export>, KernelError> {
    let mut exports = BTreeMap::new();
    let named = |name: &str| object.sections.iter().find(|section| section.name == name);
    for (table, crcs, gpl_only) in TABLES {
        let Some(section) = named(table) else { continue };
        let entries = read_table(object, section, named(crcs), gpl_only);
        exports.extend(
            entries
                .ok_or_else(|| KernelError::Module(format!("the entries of {table} do not name symbols")))?,
        );
    }
    Ok(exports)
}

fn read_table(
    object: &Object,
    table: &Section,
    crcs: Option<&Section>,
    gpl_only: bool,
) -> Option<Vec<(String, Export)>> {
    let relocations: HashMap<u64, &Relocation> =
        table.relocations.iter().map(|relocation| (relocation.offset, relocation)).collect();
    let text = |offset: u64| {
        let (section, at) = target(object, relocations.get(&offset)?)?;
        le::str_at(&section.data, usize::try_from(at).ok()?)
    };
    (0..table.data.len() as u64 / ENTRY)
        .map(|number| {
            let entry = number * ENTRY;
            let export = Export {
                address: target(object, relocations.get(&entry)?)?.1,
                crc: crcs.and_then(|crcs| read_crc(object, crcs, number)),
                gpl_only,
                namespace: text(entry + 8).filter(|name| !name.is_empty()).map(str::to_owned),
            };
            Some((text(entry + 4)?.to_owned(), export))
        })
        .collect()
}

/// The CRC itself (since 5.19), or the value of the absolute symbol that a relocation names.
fn read_crc(object: &Object, crcs: &Section, number: u64) -> Option<u32> {
    let at = number * 4;
    match crcs.relocations.iter().find(|relocation| relocation.offset == at) {
        None => le::u32_at(&crcs.data, usize::try_from(at).ok()?),
        Some(relocation) => {
            let symbol = object.symbols.get(relocation.symbol.index())?;
            (symbol.place == Place::Absolute).then_some(symbol.value as u32)
        }
    }
}

/// The section and the offset in it that a relocation leads to.
fn target<'a>(object: &'a Object, relocation: &Relocation) -> Option<(&'a Section, u64)> {
    let symbol = object.symbols.get(relocation.symbol.index())?;
    let Place::Section(section) = symbol.place else { return None };
    Some((object.sections.get(section.index())?, symbol.value.wrapping_add_signed(relocation.addend)))
}
