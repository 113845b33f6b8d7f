//! The static variables of an object: where each lies, and what the source says of it.
//!
//! Names do not tell static variables of functions apart: the compiler numbers them. The debug information says in which
//! function, on which line and with which type each was declared.

use crate::TypesError;
use crate::dwarf::{Contents, Entries};
use gimli::constants as dw;
use kmend_object::{Object, SectionId};
use std::collections::BTreeMap;

/// How many blocks may lie around a declaration.
const DEEPEST: usize = 64;

/// What the source says of a variable that is there as long as the kernel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Static {
    /// Its name, without a number.
    pub name: String,
    /// Its type as C writes it, without typedefs and qualifiers of its own.
    pub type_name: String,
    /// The function that it is declared in; `None` at file level.
    pub function: Option<String>,
    /// The line of its declaration.
    pub line: Option<u64>,
}

/// The static and global variables that an object defines, by their places.
pub fn statics(object: &Object) -> Result<BTreeMap<(SectionId, u64), Static>, TypesError> {
    let contents = Contents::of(object)?;
    let entries = Entries::read(&contents)?;
    let mut found = BTreeMap::new();
    for (index, entry) in entries.list.iter().enumerate() {
        let (dw::DW_TAG_variable, Some(place)) = (entry.tag, entry.address.and_then(place)) else { continue };
        let Some(name) = entries.name(index) else { continue };
        let declared = entries.origin(index);
        let line = entry.line.or_else(|| entries.get(declared)?.line);
        found.entry(place).or_insert_with(|| Static {
            name: name.to_owned(),
            type_name: entries.show(entries.bare(entries.target(index))),
            function: function(&entries, index).or_else(|| function(&entries, declared)),
            line,
        });
    }
    Ok(found)
}

/// The place that an address means in the read copy of the debug information.
fn place(address: u64) -> Option<(SectionId, u64)> {
    let section = (address >> SECTION_SHIFT).checked_sub(1)?;
    Some((SectionId(u32::try_from(section).ok()?), address & ((1 << SECTION_SHIFT) - 1)))
}

/// An address that tells the section from the offset in it.
pub(crate) fn address(section: SectionId, offset: u64) -> u64 {
    ((u64::from(section.0) + 1) << SECTION_SHIFT).wrapping_add(offset)
}

/// Sections are shorter than this many bits count.
const SECTION_SHIFT: u32 = 40;

/// The function that an entry lies in.
fn function(entries: &Entries<'_>, index: usize) -> Option<String> {
    let mut at = entries.get(index)?.parent;
    for _ in 0..DEEPEST {
        let entry = entries.get(at?)?;
        if matches!(entry.tag, dw::DW_TAG_subprogram | dw::DW_TAG_inlined_subroutine) {
            return entries.name(at?).map(str::to_owned);
        }
        at = entry.parent;
    }
    None
}
