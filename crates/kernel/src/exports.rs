//! What the kernel exports to modules: the tables that `EXPORT_SYMBOL` fills.
//!
//! Source: include/linux/export.h and, since 6.4, include/linux/export-internal.h. `struct kernel_symbol`
//! holds 32-bit offsets from their own place (`CONFIG_HAVE_ARCH_PREL32_RELOCATIONS`): value, name and
//! namespace (8651ec01daed, 5.4). The linker script gathers them in `__ksymtab` and `__ksymtab_gpl`,
//! and their CRCs in the same order in `__kcrctab` and `__kcrctab_gpl`.

use crate::error::KernelError;
use crate::image::{ImageSection, Memory};
use crate::le;
use serde::Serialize;
use std::collections::BTreeMap;

/// One exported symbol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Export {
    /// Its address in the image; in a module, its offset in the section that defines it.
    pub address: u64,
    /// The CRC of its type, with `CONFIG_MODVERSIONS`.
    pub crc: Option<u32>,
    /// Whether only modules under a GPL-compatible licence may use it.
    pub gpl_only: bool,
    /// The namespace that its users must import.
    pub namespace: Option<String>,
}

/// The tables, with their CRCs, and whether they are for GPL-compatible modules only.
pub(crate) const TABLES: [(&str, &str, bool); 2] =
    [("__ksymtab", "__kcrctab", false), ("__ksymtab_gpl", "__kcrctab_gpl", true)];
/// Bytes of an entry.
pub(crate) const ENTRY: u64 = 12;
/// Longest name of a symbol or a namespace, in bytes: `MODULE_NAME_LEN` and `KSYM_NAME_LEN` are below.
const LONGEST: usize = 1024;
/// Entries that are enough to tell offsets from CRCs by.
const ENOUGH: usize = 8;

/// The exports of an image; none where it has no such tables.
pub(crate) fn read(memory: &Memory) -> Result<BTreeMap<String, Export>, KernelError> {
    let mut exports = BTreeMap::new();
    for (table, crcs, gpl_only) in TABLES {
        let Some(section) = memory.section_named(table) else { continue };
        if section.size == 0 {
            continue;
        }
        let crcs = memory.section_named(crcs);
        exports.extend(read_table(memory, section, crcs, gpl_only).ok_or_else(|| damaged(table))?);
    }
    Ok(exports)
}

fn damaged(table: &str) -> KernelError {
    KernelError::Image(format!("the entries of {table} do not name symbols"))
}

fn read_table(
    memory: &Memory,
    table: &ImageSection,
    crcs: Option<&ImageSection>,
    gpl_only: bool,
) -> Option<Vec<(String, Export)>> {
    let crcs = crcs.and_then(|crcs| read_crcs(memory, crcs));
    (0..memory.contents(table)?.len() as u64 / ENTRY)
        .map(|number| {
            let entry = table.address.wrapping_add(number * ENTRY);
            let name = text_at(memory, follow(memory, entry.wrapping_add(4))?)?;
            let namespace = follow_if_set(memory, entry.wrapping_add(8)).and_then(|at| text_at(memory, at));
            let export = Export {
                address: follow(memory, entry)?,
                crc: crcs.as_ref().and_then(|crcs| crcs.get(number as usize).copied()),
                gpl_only,
                namespace: namespace.filter(|name| !name.is_empty()),
            };
            Some((name, export))
        })
        .collect()
}

/// The CRCs themselves, or (`CONFIG_MODULE_REL_CRCS`, gone in 5.19 with 7b4537199a4a) offsets from their own
/// place to them. CRCs are as good as random: that all of a table lead into the image is no chance.
fn read_crcs(memory: &Memory, table: &ImageSection) -> Option<Vec<u32>> {
    let count = memory.contents(table)?.len() as u64 / 4;
    let field = |at| memory.read(at, 4).and_then(|bytes| le::u32_at(bytes, 0));
    let places = || (0..count).map(|number| table.address.wrapping_add(number * 4));
    let followed: Option<Vec<u32>> = places().map(|at| follow(memory, at).and_then(field)).collect();
    match followed {
        Some(followed) if followed.len() >= ENOUGH => Some(followed),
        _ => places().map(field).collect(),
    }
}

/// Where the offset at `at` leads.
fn follow(memory: &Memory, at: u64) -> Option<u64> {
    let offset = le::i32_at(memory.read(at, 4)?, 0)?;
    Some(at.wrapping_add_signed(offset.into()))
}

/// The same for an offset that 0 makes absent.
fn follow_if_set(memory: &Memory, at: u64) -> Option<u64> {
    follow(memory, at).filter(|&target| target != at)
}

fn text_at(memory: &Memory, at: u64) -> Option<String> {
    let tail = memory.tail(at)?;
    le::str_at(tail.get(..LONGEST).unwrap_or(tail), 0).map(str::to_owned)
}
