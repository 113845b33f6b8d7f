//! Calls that do not come back.
//!
//! objtool follows each call to the next instruction, unless it knows that the called function does not return: by its name, if it is
//! one of a list, or by its code, if that has no return (tools/objtool/check.c, `dead_end_function`). The code of a static
//! function that stays where it is, outside of the livepatch, it does not see; what follows the call, often nothing, it then
//! takes for reached. So such calls are told to the linker.
//!
//! A call is one if the compiler put nothing behind it, where it would run off the end of its code; or if the running function
//! itself, whose code is in the original object, has no return. To call one that returns so would be to hide wrong code from
//! objtool: in doubt it is none.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::pair::Pairing;
use crate::references::{self, Reference, Target};
use iced_x86::{Decoder, DecoderOptions, FlowControl};
use kmend_object::{Binding, elf};
use std::collections::BTreeSet;

/// The opcode of a call with a relative operand of four bytes.
const CALL: u8 = 0xe8;
/// How deep calls in place of a return are followed, as objtool does.
const DEPTH: usize = 5;

/// Whether a reference of the patched unit to something outside of the livepatch is a call that does not come back.
pub(crate) fn does(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    pairing: &Pairing,
    source: AtomId,
    reference: &Reference,
) -> bool {
    let atom = patched.atom(source);
    let opcode =
        reference.offset.checked_sub(1).and_then(|at| patched.bytes(source).get(at as usize).copied());
    if !reference.branch || elf::width(reference.kind) != Some(4) || opcode != Some(CALL) {
        return false;
    }
    if atom.start + reference.offset + 4 == atom.end() {
        return true;
    }
    match reference.target {
        Target::Atom { id, offset: 0 } => {
            pairing.original(id).is_some_and(|original_id| has_no_return(original, original_id, DEPTH))
        }
        _ => false,
    }
}

/// Whether a function's code, with all that it jumps to, has no return.
fn has_no_return(unit: &Unit<'_>, function: AtomId, depth: usize) -> bool {
    let is_weak = unit.symbol_of(function).is_some_and(|symbol| symbol.binding == Binding::Weak);
    if depth == 0 || is_weak || unit.atom(function).kind != AtomKind::Function {
        return false;
    }
    let (mut seen, mut waiting) = (BTreeSet::from([function]), vec![function]);
    while let Some(part) = waiting.pop() {
        let Some(leads) = leads_on(unit, part) else { return false };
        for (id, offset) in leads {
            if unit.atom(id).kind == AtomKind::Function && offset == 0 {
                if id != function && !has_no_return(unit, id, depth - 1) {
                    return false;
                }
            } else if seen.insert(id) {
                waiting.push(id);
            }
        }
    }
    true
}

/// Where the jumps of a piece of code lead that leave it; `None` if it returns, or may.
fn leads_on(unit: &Unit<'_>, part: AtomId) -> Option<Vec<(AtomId, i64)>> {
    let atom = unit.atom(part);
    let mut leads = Vec::new();
    let mut is_empty = true;
    for instruction in &mut Decoder::with_ip(64, unit.bytes(part), atom.start, DecoderOptions::NONE) {
        if instruction.is_invalid() {
            return None;
        }
        is_empty = false;
        match instruction.flow_control() {
            FlowControl::Return | FlowControl::IndirectBranch => return None,
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                let range = instruction.ip() - atom.start..instruction.next_ip() - atom.start;
                let reference = atom.references.iter().find(|reference| range.contains(&reference.offset));
                match reference.map(|reference| &reference.target) {
                    None if references::is_near_branch(&instruction) => {}
                    Some(&Target::Atom { id, offset }) if unit.section_of(id).is_code() => {
                        leads.push((id, offset));
                    }
                    // A call in place of a return, of a function that is not known.
                    _ => return None,
                }
            }
            _ => {}
        }
    }
    (!is_empty).then_some(leads)
}
