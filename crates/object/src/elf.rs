//! Constants of ELF, of the x86-64 psABI and of the kernel's livepatch format.

use object::elf as standard;

/// `SHT_PROGBITS`: contents given by the file.
pub const SHT_PROGBITS: u32 = standard::SHT_PROGBITS.0;
/// `SHT_NOBITS`: zeroes, not in the file.
pub const SHT_NOBITS: u32 = standard::SHT_NOBITS.0;
/// `SHT_NOTE`: notes.
pub const SHT_NOTE: u32 = standard::SHT_NOTE.0;

/// `SHF_WRITE`.
pub const SHF_WRITE: u64 = 0x1;
/// `SHF_ALLOC`.
pub const SHF_ALLOC: u64 = 0x2;
/// `SHF_EXECINSTR`.
pub const SHF_EXECINSTR: u64 = 0x4;
/// `SHF_MERGE`.
pub const SHF_MERGE: u64 = 0x10;
/// `SHF_STRINGS`.
pub const SHF_STRINGS: u64 = 0x20;
/// `SHF_INFO_LINK`.
pub const SHF_INFO_LINK: u64 = 0x40;
/// `SHF_LINK_ORDER`.
pub const SHF_LINK_ORDER: u64 = 0x80;
/// `SHF_GROUP`.
pub const SHF_GROUP: u64 = 0x200;
/// A livepatch relocation section (include/uapi/linux/elf.h, since Linux 4.7).
pub const SHF_RELA_LIVEPATCH: u64 = 0x0010_0000;
/// `st_shndx` of a livepatch symbol (include/uapi/linux/elf.h, since Linux 4.7).
pub const SHN_LIVEPATCH: u16 = 0xff20;

/// No relocation.
pub const R_X86_64_NONE: u32 = 0;
/// 64-bit absolute.
pub const R_X86_64_64: u32 = 1;
/// 32-bit relative to the place.
pub const R_X86_64_PC32: u32 = 2;
/// 32-bit relative to the place, of a call or jump.
pub const R_X86_64_PLT32: u32 = 4;
/// 32-bit relative to the entry of a global offset table.
pub const R_X86_64_GOTPCREL: u32 = 9;
/// 32-bit absolute, zero-extended.
pub const R_X86_64_32: u32 = 10;
/// 32-bit absolute, sign-extended.
pub const R_X86_64_32S: u32 = 11;
/// 16-bit absolute.
pub const R_X86_64_16: u32 = 12;
/// 8-bit absolute.
pub const R_X86_64_8: u32 = 14;
/// 8-bit relative to the place.
pub const R_X86_64_PC8: u32 = 15;
/// 64-bit relative to the place.
pub const R_X86_64_PC64: u32 = 24;

/// How many bytes a relocation of this kind writes; `None` for kinds that relocatable kernel code
/// does not hold (x86-64 psABI, table "Relocation Types").
pub fn width(kind: u32) -> Option<u64> {
    Some(match kind {
        R_X86_64_NONE => 0,
        R_X86_64_8 | R_X86_64_PC8 => 1,
        R_X86_64_16 | 13 => 2,
        R_X86_64_PC32 | R_X86_64_PLT32 | R_X86_64_32 | R_X86_64_32S | R_X86_64_GOTPCREL | 41 | 42 => 4,
        R_X86_64_64 | R_X86_64_PC64 => 8,
        _ => return None,
    })
}

/// Whether a relocation of this kind is relative to the place that it changes.
pub fn is_relative(kind: u32) -> bool {
    matches!(
        kind,
        R_X86_64_PC32 | R_X86_64_PLT32 | R_X86_64_PC64 | R_X86_64_PC8 | R_X86_64_GOTPCREL | 13 | 41 | 42
    )
}

/// Whether two types ask the loader for the same. In the kernel no procedure linkage table exists, so that a call by way
/// of it is a call (arch/x86/kernel/module.c, `__write_relocate_add`); all others differ in what they compute or check.
pub fn means_the_same(one: u32, other: u32) -> bool {
    let plain = |kind| if kind == R_X86_64_PLT32 { R_X86_64_PC32 } else { kind };
    plain(one) == plain(other)
}
