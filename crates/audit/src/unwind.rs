//! The unwinder's table: whether it says of each instruction how the stack looks there.
//!
//! Each function is walked from its begin along its branches. An instruction that moves the stack by a number changes what the
//! table says by that number; one that leaves the stack alone changes nothing. So an entry that is missing, moved or another's
//! contradicts the code around it (Documentation/arch/x86/orc-unwinder.rst; arch/x86/include/asm/orc_types.h).

use crate::code::{Branch, Code, Insn, Target, reference};
use crate::derived::Map;
use crate::elf::{R_NONE, R_PC32};
use crate::finding::{Fault, Finding};
use crate::lead::{Lead, Spot};
use crate::pair::is_part;
use std::collections::{BTreeMap, BTreeSet};

/// The places of the table's entries.
pub(crate) const PLACES: &str = ".orc_unwind_ip";
const STATES: &str = ".orc_unwind";
/// Bytes of an entry.
const ENTRY: usize = 6;
/// `ORC_REG_SP`, and what is on the stack where a function begins: the address to return to.
const BY_STACK_POINTER: u8 = 5;
const AT_THE_BEGIN: i16 = 8;

/// How the stack looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    bytes: [u8; ENTRY],
}

impl State {
    fn offset(self) -> i16 {
        i16::from_le_bytes([self.bytes[0], self.bytes[1]])
    }

    fn is_by_stack_pointer(self) -> bool {
        self.bytes[4] & 15 == BY_STACK_POINTER
    }
}

/// The table by section and offset.
type Table = BTreeMap<usize, BTreeMap<u64, State>>;

/// Checks the table.
pub(crate) fn check(lead: &mut Lead<'_>, map: &Map<'_>) {
    let Some(table) = read(lead) else { return };
    let mut findings = Vec::new();
    let (begins, entered) = (map.begins(), map.entered());
    let traps = crate::frame::traps(lead.module);
    let replaced = replaced(lead);
    for (&section, own) in table.iter().filter(|(section, _)| !traps.contains(section)) {
        let is_right =
            |at: u64| replaced.contains(&(section, at)) || is_boundary(map, &begins, (section, at));
        for &at in own.keys().filter(|&&at| !is_right(at)) {
            let text = "the begin of an instruction or the end of a function";
            findings.push(Finding::new(Fault::Table, PLACES, at, text, "another place"));
        }
    }
    for code in map.functions() {
        // Behind the last instruction nothing is known of the stack.
        let end = (code.section, code.range.end);
        let goes_on = begins.contains(&end) || map.is_begin(end);
        if !goes_on && !table.get(&end.0).is_some_and(|own| own.contains_key(&end.1)) {
            let name = map.name_at((code.section, code.range.start));
            findings.push(Finding::new(Fault::Table, &name, end.1, "an end in the unwinder's table", "none"));
        }
        let name = map.name_at((code.section, code.range.start));
        let start = (code.section, code.range.start);
        let room = begins.range((start.0, 0)..=start).next_back().map_or(start.1, |&(_, at)| at);
        let is_lost = state(&table, start.0, room) != state(&table, start.0, start.1);
        let walk = Walk { map, table: &table, code, entered: &entered };
        let at = if is_lost { Some(0) } else { walk.contradiction(is_part(&name)) };
        if let Some(at) = at {
            let text = "what the unwinder's table says there";
            findings.push(Finding::new(Fault::Table, &name, at, text, "what contradicts the code"));
        }
    }
    lead.findings.extend(findings);
}

/// The table; what it is made of must be whole, and in order.
fn read(lead: &mut Lead<'_>) -> Option<Table> {
    let module = lead.module;
    let section = module.elf.section_named(PLACES)?;
    let states =
        module.elf.section_named(STATES).map(|states| module.elf.contents(states)).unwrap_or_default();
    let parsed = &module.elf.sections[section];
    let list: Vec<_> = parsed.relocations.iter().filter(|one| one.kind != R_NONE).collect();
    let (mut table, mut closed, mut last) = (Table::new(), BTreeSet::new(), None);
    let mut broken = parsed.size != list.len() as u64 * 4 || states.len() != list.len() * ENTRY;
    for (number, relocation) in list.iter().enumerate() {
        lead.visited.insert((section, relocation.offset));
        let place = reference(&module.elf, relocation, 0, 0, false).and_then(|one| match one.target {
            Target::Inside(section, offset) => Some((section, u64::try_from(offset).ok()?)),
            Target::Outside(..) => None,
        });
        let state = states.get(number * ENTRY..).and_then(|bytes| bytes.first_chunk::<ENTRY>());
        let (Some((code, at)), Some(&bytes)) = (place, state) else {
            broken = true;
            continue;
        };
        if last != Some(code) {
            // The entries of a section's code stand together.
            broken |= !closed.insert(code);
            last = Some(code);
        }
        let own = table.entry(code).or_default();
        let is_next = own.last_key_value().is_none_or(|(&before, _)| before < at);
        let is_plain = relocation.kind == R_PC32 && relocation.late.is_none();
        broken |= !is_next || !is_plain || relocation.offset != number as u64 * 4;
        own.insert(at, State { bytes });
    }
    if broken {
        lead.findings.push(Finding::new(Fault::Table, PLACES, 0, "a whole table in order", "another one"));
    }
    Some(table)
}

/// The places within sites of `.altinstructions` at which an instruction of the replacement begins: the stack may move there, though
/// the site's own instruction goes on (tools/objtool/check.c, `handle_group_alt`).
fn replaced(lead: &Lead<'_>) -> BTreeSet<Spot> {
    let module = lead.module;
    let mut places = BTreeSet::new();
    for entry in lead.entries.iter().filter(|entry| &*entry.table == ".altinstructions") {
        let bytes = entry.bytes(module);
        let references = entry.references(module);
        let length = entry.replacement_length(1, &bytes);
        let (Some(Target::Inside(section, offset)), Some(length)) =
            (references.get(1).map(|one| one.target), length)
        else {
            continue;
        };
        let Ok(start) = u64::try_from(offset) else { continue };
        let code = Code::read(&module.elf, section, start..start.saturating_add(length));
        let insns = code.iter().flat_map(|code| &code.insns);
        places.extend(insns.map(|insn| (entry.code, entry.site + insn.at)));
        // What is left of the site is filled with a nop.
        places.insert((entry.code, entry.site + length));
    }
    places
}

/// Whether an entry may be at a place.
fn is_boundary(map: &Map<'_>, begins: &BTreeSet<Spot>, spot: Spot) -> bool {
    begins.contains(&spot)
        || map
            .function(spot)
            .is_some_and(|code| code.range.end == spot.1 || code.index_at(spot.1 as i64).is_some())
}

fn state(table: &Table, section: usize, at: u64) -> Option<State> {
    table.get(&section)?.range(..=at).next_back().map(|(_, &state)| state)
}

/// One function and what is known of it.
struct Walk<'a> {
    map: &'a Map<'a>,
    table: &'a Table,
    code: &'a Code,
    /// Places that code is reached at otherwise than from above.
    entered: &'a BTreeSet<Spot>,
}

impl Walk<'_> {
    fn state_at(&self, index: usize) -> Option<State> {
        let at = self.code.insns.get(index)?.at;
        state(self.table, self.code.section, self.code.range.start + at)
    }

    /// Where the table first contradicts the function's code.
    fn contradiction(&self, is_part: bool) -> Option<u64> {
        let Some(first) = self.state_at(0) else { return Some(0) };
        if !is_part && (first.offset() != AT_THE_BEGIN || !first.is_by_stack_pointer()) {
            return Some(0);
        }
        let mut seen = BTreeSet::from([0]);
        let mut waiting = vec![0_usize];
        while let Some(index) = waiting.pop() {
            let Some(insn) = self.code.insns.get(index) else { continue };
            let here = self.state_at(index)?;
            let Ok(next) = self.next(index, insn, here) else { return Some(insn.at) };
            for target in next {
                let Some(there) = self.state_at(target) else { continue };
                let is_right = agrees(here, there, insn);
                let may_differ = target == index + 1 && self.may_not_return(insn, target);
                if !(is_right || may_differ) {
                    return Some(self.code.insns[target].at);
                }
                if is_right && seen.insert(target) {
                    waiting.push(target);
                }
            }
        }
        None
    }

    /// The instructions of the function that may follow one; an error if it leads to another part that begins with another stack.
    fn next(&self, index: usize, insn: &Insn, here: State) -> Result<Vec<usize>, ()> {
        let mut next = Vec::new();
        let branches = insn.branch.is_some_and(|branch| branch != Branch::Call);
        if let Some(Target::Inside(section, offset)) =
            insn.references.first().filter(|_| branches).map(|one| one.target)
        {
            if self.code.holds(section, offset) {
                next.extend(self.code.index_at(offset));
            } else if self.map.is_inside_a_function((section, offset)) {
                // Another part of the function finds the stack as it is here; another function, as a call leaves it.
                let at = u64::try_from(offset).map_err(|_| ())?;
                if state(self.table, section, at) != Some(here) {
                    return Err(());
                }
            }
        }
        if falls_through(insn) {
            next.push(index + 1);
        }
        Ok(next)
    }

    /// Behind a call that does not return the stack may look otherwise, if something else leads there.
    fn may_not_return(&self, insn: &Insn, target: usize) -> bool {
        let at = self.code.insns.get(target).map(|insn| self.code.range.start + insn.at);
        insn.branch == Some(Branch::Call)
            && at.is_some_and(|at| self.entered.contains(&(self.code.section, at)))
    }
}

fn falls_through(insn: &Insn) -> bool {
    let ends = insn.shape.starts_with(&[0x0f, 0x0b])
        || matches!(insn.shape[..], [0xc3 | 0xcc] | [0xff, 0x20..=0x27, ..])
        || matches!(insn.shape[..], [0xff, 0xe0..=0xe7] | [0x41, 0xff, 0xe0..=0xe7]);
    insn.branch != Some(Branch::Jump) && !ends
}

/// Whether the stack may look so behind an instruction that found it so.
fn agrees(before: State, after: State, insn: &Insn) -> bool {
    if before == after && moved(insn) == Some(0) {
        return true;
    }
    let Some(by) = moved(insn) else { return true };
    if !before.is_by_stack_pointer() || !after.is_by_stack_pointer() {
        return by != 0;
    }
    i32::from(after.offset()) == i32::from(before.offset()) + by
        // What is known of the frame pointer may change with a push or a pop, and with nothing else.
        && (by != 0 || after.bytes == before.bytes)
}

/// By how many bytes an instruction moves the stack's top down; `None` for those that change it otherwise (Intel SDM, volume 2).
fn moved(insn: &Insn) -> Option<i32> {
    match insn.shape[..] {
        [0x50..=0x57 | 0x9c] | [0x41, 0x50..=0x57] | [0x6a, _] | [0x68, _, _, _, _] => Some(8),
        // `push` of memory, `FF /6`, and `pop` to memory, `8F /0`.
        [0xff, modrm, ..] | [0x40..=0x4f, 0xff, modrm, ..] if modrm >> 3 & 7 == 6 => Some(8),
        [0x58..=0x5f | 0x9d] | [0x41, 0x58..=0x5f] | [0x8f, ..] | [0x40..=0x4f, 0x8f, ..] => Some(-8),
        [0x48, 0x83, 0xec, by] => Some(i32::from(by as i8)),
        [0x48, 0x83, 0xc4, by] => Some(-i32::from(by as i8)),
        [0x48, 0x81, 0xec, a, b, c, d] => Some(i32::from_le_bytes([a, b, c, d])),
        [0x48, 0x81, 0xc4, a, b, c, d] => Some(-i32::from_le_bytes([a, b, c, d])),
        // `mov` and `lea` of and to the stack and frame pointers, `and $N,%rsp`, `leave`, and pushes and pops of segments.
        [0x48, 0x83 | 0x81, 0xe4, ..] | [0xc9] | [0x0f, 0xa0 | 0xa1 | 0xa8 | 0xa9] => None,
        [0x48..=0x4f, 0x89 | 0x8b | 0x8d, modrm, ..]
            if touches_frame(insn.shape[0], insn.shape[1], modrm) =>
        {
            None
        }
        _ => Some(0),
    }
}

/// Whether a `mov` or `lea` writes the stack pointer, the frame pointer, or `%r10`, which realigned stacks are found by.
fn touches_frame(rex: u8, opcode: u8, modrm: u8) -> bool {
    let register = (modrm >> 3 & 7) | (rex & 4) << 1;
    let other = (modrm & 7) | (rex & 1) << 3;
    let written = if opcode == 0x89 {
        if modrm >> 6 != 3 {
            return false;
        }
        other
    } else {
        register
    };
    matches!(written, 4 | 5 | 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(bytes: &[u8]) -> Insn {
        Insn {
            at: 0,
            length: bytes.len() as u64,
            shape: bytes.to_vec(),
            branch: None,
            references: Vec::new(),
            is_nop: false,
        }
    }

    #[test]
    fn pushes_and_pops_of_every_form_move_the_stack() {
        let pushes: [&[u8]; 6] = [
            &[0x55],
            &[0x41, 0x57],
            &[0x6a, 0],
            &[0xff, 0x75, 0x10],
            &[0x41, 0xff, 0xb7, 0x88, 0x0b, 0, 0],
            &[0xff, 0x34, 0x25, 0, 0, 0, 0],
        ];
        assert!(pushes.iter().all(|bytes| moved(&insn(bytes)) == Some(8)));
        let pops: [&[u8]; 3] = [&[0x5d], &[0x41, 0x5f], &[0x41, 0x8f, 0x47, 8]];
        assert!(pops.iter().all(|bytes| moved(&insn(bytes)) == Some(-8)));
        // `call *8(%rax)` and `incl (%rax)` have the same first byte.
        let others: [&[u8]; 2] = [&[0xff, 0x50, 8], &[0xff, 0x00]];
        assert!(others.iter().all(|bytes| moved(&insn(bytes)) == Some(0)));
    }
}
