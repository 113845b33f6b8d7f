//! Joining the units' sections.

use crate::LinkInput;
use kmend_object::{Object, Section, SectionId, elf};
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeMap;

/// The longest padding between two joined pieces, in bytes: no section of kernel code is aligned to more
/// than a page.
const LARGEST_ALIGNMENT: u64 = 4096;

/// `int3`: what objtool takes for padding between functions.
const BREAKPOINT: u8 = 0xcc;

/// Where a section of an extract came to lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    /// The merged object's section.
    pub(crate) section: SectionId,
    /// Where the piece begins in it, in bytes.
    pub(crate) offset: u64,
}

/// Where all sections came to lie.
#[derive(Debug, Default)]
pub(crate) struct Pieces(BTreeMap<(usize, SectionId), Piece>);

impl Pieces {
    /// The place of a unit's section.
    pub(crate) fn get(&self, unit: usize, section: SectionId) -> Option<Piece> {
        self.0.get(&(unit, section)).copied()
    }
}

/// Copies the sections of all units into `merged`, those of one name into one.
pub(crate) fn join(input: &LinkInput<'_>, merged: &mut Object, refusals: &mut Vec<Refusal>) -> Pieces {
    let mut pieces = Pieces::default();
    for (index, unit) in input.units.iter().enumerate() {
        let extract = &unit.delta.extract.object;
        for id in extract.section_ids() {
            let section = extract.section(id);
            match place(merged, section) {
                Ok(piece) => {
                    pieces.0.insert((index, id), piece);
                }
                Err(why) => {
                    refusals.push(Refusal::new(Code::LinkFailed, &section.name, why).at(unit.source, None));
                }
            }
        }
    }
    pieces
}

/// Adds one section's contents to the section of its name, or as a new one.
fn place(merged: &mut Object, section: &Section) -> Result<Piece, String> {
    if section.align > LARGEST_ALIGNMENT {
        return Err(format!("it is aligned to {} bytes", section.align));
    }
    let found = merged.section_named(&section.name);
    let Some(known) = found.filter(|_| !is_function_section(section)) else {
        let name = if found.is_some() { free_name(merged, &section.name) } else { section.name.clone() };
        let flags = section.flags & !elf::SHF_GROUP;
        let copy = Section { name, flags, link_order: None, relocations: Vec::new(), ..section.clone() };
        return Ok(Piece { section: merged.add_section(copy), offset: 0 });
    };
    append(&mut merged.sections[known.index()], section).map(|offset| Piece { section: known, offset })
}

/// Whether it is a function's own code. Other code is known to objtool by its section's name, such as
/// `.altinstr_replacement` and `.noinstr.text` (tools/objtool/check.c, `decode_instructions`).
fn is_function_section(section: &Section) -> bool {
    section.is_code() && section.name.starts_with(".text.")
}

fn free_name(merged: &Object, name: &str) -> String {
    let mut number = 1_u32;
    loop {
        let candidate = format!("{name}.{number}");
        if merged.section_named(&candidate).is_none() {
            return candidate;
        }
        number += 1;
    }
}

/// Appends the contents; the result is where they begin.
fn append(joined: &mut Section, section: &Section) -> Result<u64, String> {
    let significant =
        elf::SHF_WRITE | elf::SHF_ALLOC | elf::SHF_EXECINSTR | elf::SHF_MERGE | elf::SHF_STRINGS;
    if joined.kind != section.kind || (joined.flags ^ section.flags) & significant != 0 {
        return Err("two units have it with different types or flags".into());
    }
    if section.kind == elf::SHT_NOTE && joined.data == section.data {
        return Ok(0);
    }
    let offset = joined.size.next_multiple_of(section.align.max(1));
    let size = offset.checked_add(section.size).ok_or("it is too large")?;
    if section.kind != elf::SHT_NOBITS {
        let padding = if section.is_code() { BREAKPOINT } else { 0 };
        joined.data.resize(usize::try_from(offset).map_err(|_| "it is too large")?, padding);
        joined.data.extend_from_slice(&section.data);
    }
    joined.size = size;
    joined.align = joined.align.max(section.align);
    Ok(offset)
}

/// Names a section for each that is ordered after another, the one that it refers to first. A linker joins no
/// ordered and unordered sections of one name, and the patch table's own `__patchable_function_entries` is
/// ordered; what order it is means nothing to the kernel.
pub(crate) fn restore_order(merged: &mut Object) {
    for index in 0..merged.sections.len() {
        let section = &merged.sections[index];
        if section.flags & elf::SHF_LINK_ORDER == 0 && section.name != PATCHABLE {
            continue;
        }
        let first = section.relocations.first();
        let order = first.and_then(|relocation| merged.symbols.get(relocation.symbol.index())?.section());
        let section = &mut merged.sections[index];
        section.link_order = order;
        section.flags &= !elf::SHF_LINK_ORDER;
        section.flags |= if order.is_some() { elf::SHF_LINK_ORDER } else { 0 };
    }
}

/// What compilers write for `-fpatchable-function-entry`; always ordered since GCC 12.
const PATCHABLE: &str = "__patchable_function_entries";

/// Whether the kernel reads the section when the livepatch is loaded, so that a relocation that is applied
/// when the patched module comes would be too late; and if so, with which code to refuse it.
pub(crate) fn read_before_modules(section: &Section) -> Option<Code> {
    if !section.is_allocated() || section.name.starts_with(".discard") {
        return None;
    }
    match section.name.as_str() {
        "__jump_table" => Some(Code::ModuleStaticKey),
        // The template of per-CPU data is copied, as are alternatives over the code they replace.
        name if name.starts_with(".data..percpu") => Some(Code::UnsupportedReference),
        name if [".text", ".rodata", ".data", ".altinstr_aux"]
            .iter()
            .any(|start| name.starts_with(start)) =>
        {
            None
        }
        _ => Some(Code::UnsupportedReference),
    }
}
