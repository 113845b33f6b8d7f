//! What differs rightly between compiled code and a module's: each a row with its reason.
//!
//! - A jump that objtool made a nop: an entry of `__jump_table` says where (tools/objtool/check.c, `handle_jump_alt`).
//! - The call of the tracer that objtool made a nop (`CONFIG_HAVE_OBJTOOL_NOP_MCOUNT`).
//! - A constant that the kernel writes into its own code at boot, and a module reads from its variable
//!   (arch/x86/include/asm/runtime-const.h).
//!
//! Static calls, calls of thunks and the landing pads of indirect branches are rewritten when the module is loaded, and stand in
//! its file as they were compiled.

use crate::code::{Branch, Code, Insn, Reference, Target};
use crate::side::Side;
use crate::tables::Entry;
use std::collections::{BTreeSet, HashMap};

/// Nops of two and of five bytes (arch/x86/include/asm/nops.h).
const NOPS: [&[u8]; 2] = [&[0x66, 0x90], &[0x0f, 0x1f, 0x44, 0x00, 0x00]];
/// The nop of three.
const NOP_3: [u8; 3] = [0x0f, 0x1f, 0x00];
const CONSTANTS: &str = "runtime_ptr_";
/// From the begin of `movabs` to its constant.
const IMMEDIATE: u64 = 2;

/// Tables that the module's own build makes from its code.
pub(crate) fn is_made_anew(table: &str) -> bool {
    matches!(table, "__mcount_loc" | "__patchable_function_entries")
}

pub(crate) fn is_constant_table(table: &str) -> bool {
    table.starts_with(CONSTANTS)
}

fn sites<'a>(
    entries: &'a HashMap<usize, Vec<Entry>>,
    code: &'a Code,
) -> impl Iterator<Item = &'a Entry> + 'a {
    let all = entries.get(&code.section).map_or(&[][..], Vec::as_slice);
    all.iter().filter(|entry| code.range.contains(&entry.site))
}

/// The jumps that may be nops, from the function's begin.
pub(crate) fn jump_sites(entries: &HashMap<usize, Vec<Entry>>, code: &Code) -> BTreeSet<u64> {
    let jumps = sites(entries, code).filter(|entry| &*entry.table == "__jump_table");
    jumps.map(|entry| entry.site - code.range.start).collect()
}

/// Whether the module has the nop of a jump.
pub(crate) fn is_nop_of_jump(compiled: &Insn, module: &Insn) -> bool {
    compiled.branch == Some(Branch::Jump) && is_nop(module)
}

fn is_nop(insn: &Insn) -> bool {
    insn.references.is_empty() && NOPS.contains(&&*insn.shape)
}

/// Whether the module has a nop in the place of the tracer's call.
pub(crate) fn is_fentry_nop(side: &Side, compiled: &Insn, module: &Insn) -> bool {
    let calls = compiled.references.first().is_some_and(|reference| match reference.target {
        Target::Outside(symbol, _) => side.name(symbol) == "__fentry__",
        Target::Inside(..) => false,
    });
    compiled.branch == Some(Branch::Call) && calls && is_nop(module) && module.length == 5
}

/// The instructions that load such a constant, from the function's begin, and the variables that hold them.
pub(crate) fn constant_sites(entries: &HashMap<usize, Vec<Entry>>, code: &Code) -> HashMap<u64, String> {
    let constants = sites(entries, code).filter_map(|entry| {
        let variable = entry.table.strip_prefix(CONSTANTS)?;
        Some(((entry.site - code.range.start).checked_sub(IMMEDIATE)?, variable.to_owned()))
    });
    constants.collect()
}

/// How a module reads such a constant.
pub(crate) struct Read {
    pub(crate) reference: Reference,
    /// How many of the module's instructions stand for the one.
    pub(crate) insns: usize,
}

/// Whether the module reads the variable into the register that the constant was loaded into, and nothing else.
pub(crate) fn constant(compiled: &Insn, module: &[Insn]) -> Option<Read> {
    let [load, room, ..] = module else { return None };
    let [rex, opcode, ..] = compiled.shape[..] else { return None };
    // REX.W with B for the upper registers, and `mov r64, imm64`; it becomes `mov r64, [rip+disp32]`, whose register stands in
    // ModRM.reg with REX.R (Intel SDM, volume 2, MOV).
    let upper = match rex {
        0x48 => 0x48,
        0x49 => 0x4c,
        _ => return None,
    };
    let register = opcode.checked_sub(0xb8).filter(|register| *register < 8)?;
    let expected = [upper, 0x8b, register << 3 | 5, 0, 0, 0, 0];
    let reference = load.references.first().filter(|reference| reference.at == 3)?;
    (load.shape == expected && room.shape == NOP_3 && room.references.is_empty())
        .then(|| Read { reference: reference.clone(), insns: 2 })
}
