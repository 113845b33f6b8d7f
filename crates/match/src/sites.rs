//! The sites in code that the kernel's build rewrites after the compiler.
//!
//! Each is allowed only where an entry of a table of the unit says so; what the build may write there is
//! part of the entry. Everything that is rewritten at boot (alternatives, paravirt calls, return thunks,
//! static calls, `call __fentry__`, sealed ENDBR) lies in the image as it was compiled: measured on 6.1 and
//! 6.12.

use kmend_object::{Object, Place, SectionId, elf};

/// Bytes of an entry of `__jump_table` (include/linux/jump_label.h, `struct jump_entry` with
/// `CONFIG_HAVE_ARCH_JUMP_LABEL_RELATIVE`, since 4.19).
const JUMP_ENTRY: u64 = 16;
/// Offset of its `key`.
const JUMP_KEY: u64 = 8;
/// The bit of `key` that tells objtool to make the jump a nop (arch/x86/include/asm/jump_label.h with
/// `CONFIG_HAVE_JUMP_LABEL_HACK`; tools/objtool/check.c, `handle_jump_alt`, since 5.14: ab3257042c26).
const KEY_HACK: i64 = 2;
/// `jmp rel8`, and the nop of its length (arch/x86/include/asm/nops.h, `BYTES_NOP2`).
const JUMP_8: (u8, &[u8]) = (0xeb, &[0x66, 0x90]);
/// `jmp rel32`, and the nop of its length (`BYTES_NOP5`).
const JUMP_32: (u8, &[u8]) = (0xe9, &[0x0f, 0x1f, 0x44, 0x00, 0x00]);

/// One site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    /// Its offset in the section, in bytes.
    pub(crate) offset: u64,
    /// What the build may have written in place of what was compiled; of the same length.
    pub(crate) rewritten: &'static [u8],
}

/// The jump labels of a unit, with their sections.
pub(crate) fn jump_labels(object: &Object) -> Vec<(SectionId, Site)> {
    let tables = object.sections.iter().filter(|section| section.name == "__jump_table");
    tables
        .flat_map(|table| {
            let keys: std::collections::BTreeSet<u64> = table
                .relocations
                .iter()
                .filter(|relocation| relocation.addend & KEY_HACK != 0)
                .filter_map(|relocation| relocation.offset.checked_sub(JUMP_KEY))
                .collect();
            let codes = table.relocations.iter().filter(|relocation| {
                relocation.kind == elf::R_X86_64_PC32 && relocation.offset.is_multiple_of(JUMP_ENTRY)
            });
            codes.filter(move |code| keys.contains(&code.offset))
        })
        .filter_map(|code| {
            let symbol = object.symbols.get(code.symbol.index())?;
            let Place::Section(section) = symbol.place else { return None };
            let offset = symbol.value.checked_add_signed(code.addend)?;
            let compiled = object.sections.get(section.index())?.bytes(offset, 1)?;
            let rewritten = [JUMP_8, JUMP_32].into_iter().find(|(opcode, _)| compiled == [*opcode])?.1;
            Some((section, Site { offset, rewritten }))
        })
        .collect()
}
