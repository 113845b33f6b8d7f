//! Whether a function that ftrace does not know has room for a jump.
//!
//! kmend's consistency engine redirects such a function by a jump behind its ENDBR, which a breakpoint at the first of these
//! bytes precedes. What the engine asks of the living function (engine/room.c) is asked here of the object, so that a patch
//! that it would not take is refused when it is built. The engine asks again: it sees what the object does not show, as kprobes.

use crate::atoms::{AtomId, Unit};
use crate::references::{Target, is_near_branch};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use std::ops::Range;

/// Bytes of a jump with a displacement of 32 bits.
const JUMP: u64 = 5;

/// The instruction at which indirect branches may land; the boot takes it out where none does.
pub const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Code on the way to a breakpoint's handler, and other code into which the kernel lets no kprobe (kernel/kprobes.c,
/// `populate_kprobe_blacklist()`; in Linux 6.1 `.cpuidle.text` is not among it).
const WITHOUT_BREAKPOINTS: [&str; 4] = [".noinstr.text", ".entry.text", ".kprobes.text", ".cpuidle.text"];

/// The same for single functions (include/asm-generic/kprobes.h, `NOKPROBE_SYMBOL()`).
const NO_KPROBE: &str = "_kprobe_blacklist";

/// Tables of places that others write, or that may fault, and what each says is there.
const CLAIMS: [(&str, &str); 3] = [
    ("__jump_table", "a static branch is"),
    (".smp_locks", "a lock prefix is"),
    ("__ex_table", "an instruction that may fault is"),
];

/// Before the name of a static call in that of its trampoline (include/linux/static_call_types.h).
const STATIC_CALL: &str = "__SCT__";

/// Why a living function cannot begin with a jump; `None` if it can.
pub(crate) fn obstacle(unit: &Unit<'_>, id: AtomId) -> Option<String> {
    let section = &unit.section_of(id).name;
    if WITHOUT_BREAKPOINTS.iter().any(|name| section.starts_with(name)) {
        return Some(format!("it lies in {section}, where the kernel allows no breakpoint"));
    }
    let atom = unit.atom(id);
    let tables = || atom.entries.iter().map(|&entry| (unit.section_of(entry).name.as_str(), entry));
    if tables().any(|(name, _)| name == NO_KPROBE) {
        return Some("the kernel allows no breakpoint in it (NOKPROBE_SYMBOL)".into());
    }
    let bytes = unit.bytes(id);
    // The padding before the entry is a part of the atom.
    let entry = atom.origin.saturating_sub(atom.start);
    let body = bytes.get(usize::try_from(entry).ok()?..).unwrap_or_default();
    let landing = if body.starts_with(&ENDBR64) { ENDBR64.len() as u64 } else { 0 };
    let slot = entry.saturating_add(landing);
    let end = slot.saturating_add(JUMP);
    if end > atom.size {
        return Some(format!("it is shorter than a jump, which has {JUMP} bytes"));
    }
    let is_among = |offset: u64| (slot..end).contains(&offset);
    let claimed = CLAIMS.iter().find_map(|&(table, what)| {
        let mut entries = tables().filter(|(name, _)| *name == table);
        entries.any(|(_, entry)| place(unit, entry, id).is_none_or(is_among)).then_some(what)
    });
    let what = claimed
        .or_else(|| is_called_statically(unit, id, end).then_some("a static call is"))
        .or_else(|| instructions(body, entry, slot..end))
        .or_else(|| {
            is_led_to(unit, id, &(slot - entry..end - entry)).then_some("a place to which code leads is")
        })?;
    Some(format!("{what} in its first {JUMP} bytes, which a jump would take"))
}

/// Where in a function its entry of a table is about, as an offset in its atom; `None` if that is not known.
fn place(unit: &Unit<'_>, entry: AtomId, function: AtomId) -> Option<u64> {
    match unit.atom(entry).references.first()?.target {
        Target::Atom { id, offset } if id == function => {
            let atom = unit.atom(function);
            u64::try_from(offset).ok()?.checked_add(atom.origin.saturating_sub(atom.start))
        }
        _ => None,
    }
}

/// Whether a static call begins before the end of the bytes.
fn is_called_statically(unit: &Unit<'_>, id: AtomId, end: u64) -> bool {
    let mut early = unit.atom(id).references.iter().filter(|it| it.branch && it.offset <= end);
    early.any(|reference| match reference.target {
        Target::External { symbol, .. } => unit.object.symbol(symbol).name.starts_with(STATIC_CALL),
        Target::Atom { id, .. } => unit.name(id).starts_with(STATIC_CALL),
        Target::Text { .. } | Target::Other { .. } => false,
    })
}

/// What in the function's own instructions is in the way: a call from which somebody returns among the bytes, or a branch to them.
fn instructions(body: &[u8], entry: u64, first: Range<u64>) -> Option<&'static str> {
    let mut decoder = Decoder::with_ip(64, body, entry, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return Some("an unknown instruction may be");
        }
        let is_call = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
        if is_call && instruction.next_ip() < first.end {
            return Some("a call is");
        }
        if is_near_branch(&instruction) && is_inside(&first, instruction.near_branch_target()) {
            return Some("a place to which it branches is");
        }
    }
    None
}

/// Whether a place is behind the first of the bytes: who comes to that meets the breakpoint, and the jump.
fn is_inside(first: &Range<u64>, place: u64) -> bool {
    place > first.start && place < first.end
}

/// Whether other code of the unit leads into the middle of the bytes, which are counted from the function's entry.
fn is_led_to(unit: &Unit<'_>, function: AtomId, first: &Range<u64>) -> bool {
    let leads = |target: &Target| match *target {
        Target::Atom { id, offset } if id == function => {
            u64::try_from(offset).is_ok_and(|place| is_inside(first, place))
        }
        _ => false,
    };
    let of_code = unit.ids().filter(|&id| unit.section_of(id).is_code());
    let jumps =
        unit.atom(function).entries.iter().copied().filter(|&id| unit.section_of(id).name == CLAIMS[0].0);
    of_code.chain(jumps).any(|id| unit.atom(id).references.iter().any(|reference| leads(&reference.target)))
}
