//! Constants that the kernel writes into its own instructions at boot.
//!
//! `runtime_const_ptr(sym)` compiles to `movabs $0x0123456789abcdef, %reg`, and a section `runtime_ptr_sym` tells the
//! boot code where to put the value (arch/x86/include/asm/runtime-const.h, since Linux 6.11, e3c92e81711d). Nothing
//! does that for modules: there the same source reads the variable `sym`. So does the module's
//! copy of a function: the ten bytes of the constant's load become a load from the variable and a
//! three-byte nop.

use crate::atoms::{AtomId, Unit};
use crate::references::Target;
use crate::special::Treatment;

/// What stands before the variable's name in the section's.
pub(crate) const PREFIX: &str = "runtime_ptr_";

/// From an instruction's begin to its immediate operand: REX prefix and opcode.
const IMMEDIATE_AT: u64 = 2;

/// A load of a runtime constant.
pub(crate) struct Load {
    /// Where the instruction begins, as an offset in the function's atom.
    pub(crate) at: u64,
    /// The variable that holds the constant.
    pub(crate) variable: String,
    /// The instruction that reads the variable, with a hole for its place, and the nop.
    pub(crate) code: [u8; 10],
}

/// Where in [`Load::code`] the variable's relative address goes.
pub(crate) const HOLE: u64 = 3;

/// Whether an entry tells of a runtime constant.
pub(crate) fn is_load(unit: &Unit<'_>, entry: AtomId) -> bool {
    unit.treatment_of(entry) == Treatment::RuntimePointer
}

/// The load that an entry tells of; `None` if the code there is another one.
pub(crate) fn load(unit: &Unit<'_>, entry: AtomId) -> Option<Load> {
    let Target::Atom { id, offset } = unit.atom(entry).references.first()?.target else { return None };
    let atom = unit.atom(id);
    let at = atom.origin.checked_sub(atom.start)?.checked_add_signed(offset)?.checked_sub(IMMEDIATE_AT)?;
    let start = usize::try_from(at).ok()?;
    let old = unit.bytes(id).get(start..start.checked_add(10)?)?;
    // REX.W, and REX.B for the upper eight registers; B8+r is `mov r64, imm64` (Intel SDM, volume 2, MOV).
    let (rex, register) = match (old[0], old[1]) {
        (0x48, opcode @ 0xb8..=0xbf) => (0x48, opcode - 0xb8),
        // The register moves from REX.B to REX.R: it stands in ModRM.reg now.
        (0x49, opcode @ 0xb8..=0xbf) => (0x4c, opcode - 0xb8),
        _ => return None,
    };
    let name = &unit.section_of(entry).name;
    Some(Load {
        at,
        variable: name.strip_prefix(PREFIX)?.to_owned(),
        code: [rex, 0x8b, register << 3 | 0b101, 0, 0, 0, 0, 0x0f, 0x1f, 0x00],
    })
}
