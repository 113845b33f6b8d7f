//! The first difference, for a person to read.

use crate::compare::{Finding, What};
use crate::matched::Difference;
use crate::refer::{self, Wrong};
use crate::shipped::{Contents, Shipped};
use crate::unit::Unit;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Instruction, OpKind};
use kmend_object::{Relocation, SectionId, elf};
use std::ops::Range;

/// Longest instruction of x86, in bytes.
const LONGEST_INSTRUCTION: u64 = 15;
/// Longest text that is shown of a constant, in bytes.
const LONGEST_TEXT: u64 = 80;

/// Describes a finding in a stretch that should be at `at`. The function's name is left empty.
pub(crate) fn difference(
    unit: &Unit<'_>,
    shipped: &dyn Shipped,
    section: SectionId,
    range: &Range<u64>,
    at: u64,
    finding: &Finding<'_>,
) -> Difference {
    let start = instruction_at(unit, section, range, finding.offset);
    let place = at.wrapping_add(start - range.start);
    Difference {
        function: String::new(),
        offset: start - range.start,
        compiled: compiled(unit, section, start..range.end),
        image: image(shipped, place, range.end - start),
        why: why(unit, shipped, finding),
    }
}

fn why(unit: &Unit<'_>, shipped: &dyn Shipped, finding: &Finding<'_>) -> String {
    match &finding.what {
        What::Byte => "another instruction".into(),
        What::Surplus => "a reference where the source makes none".into(),
        What::Misplaced => "the kernel has the symbol of this name elsewhere".into(),
        What::Missing => "the kernel's section ends before it".into(),
        What::Reference(relocation, Wrong::Missing) => {
            format!("no reference to {}", refer::describe(unit, relocation))
        }
        What::Reference(relocation, Wrong::Elsewhere { found }) => {
            let expected = refer::describe(unit, relocation);
            let name = name_of(shipped, end_of(relocation, *found));
            if name == expected {
                format!("refers to {name}, which is elsewhere than the unit's own size and order put it")
            } else {
                format!("refers to {name} and not to {expected}")
            }
        }
        What::Reference(relocation, Wrong::Constant { found }) => {
            let expected = refer::describe(unit, relocation);
            format!("refers to {} and not to {expected}", text_at(shipped, *found))
        }
    }
}

/// A relative reference counts from the end of the hole: the address that it means.
fn end_of(relocation: &Relocation, found: u64) -> u64 {
    if elf::is_relative(relocation.kind) {
        found.wrapping_add(elf::width(relocation.kind).unwrap_or(0))
    } else {
        found
    }
}

fn text_at(shipped: &dyn Shipped, address: u64) -> String {
    let lengths = (1..=LONGEST_TEXT).rev();
    for length in lengths {
        if let Contents::Held(bytes) = shipped.contents(address, length) {
            let end = bytes.iter().position(|&byte| byte == 0).map_or(bytes.len(), |end| end + 1);
            return refer::constant(bytes.get(..end).unwrap_or_default());
        }
    }
    name_of(shipped, address)
}

fn name_of(shipped: &dyn Shipped, address: u64) -> String {
    match shipped.nearest(address) {
        Some((name, distance)) => refer::with_offset(name, distance as i64),
        None => format!("{address:#x}"),
    }
}

/// The start of the compiled instruction that holds an offset.
fn instruction_at(unit: &Unit<'_>, section: SectionId, range: &Range<u64>, offset: u64) -> u64 {
    let length = range.end.saturating_sub(range.start);
    let code = unit.object.section(section).bytes(range.start, length).unwrap_or_default();
    let mut decoder = Decoder::with_ip(64, code, range.start, DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.next_ip() > offset {
            return instruction.ip();
        }
    }
    offset
}

fn compiled(unit: &Unit<'_>, section: SectionId, range: Range<u64>) -> String {
    let length = (range.end - range.start).min(LONGEST_INSTRUCTION);
    let code = unit.object.section(section).bytes(range.start, length).unwrap_or_default();
    let Some(instruction) = decode(code, range.start) else { return bytes(code) };
    let end = range.start + instruction.len() as u64;
    match unit.relocations_in(section, &(range.start..end)) {
        [] if is_branch(&instruction) => {
            branch(&instruction, &refer::nearest(unit, section, instruction.near_branch_target()))
        }
        [] => format(&instruction),
        [reference] if is_branch(&instruction) => branch(&instruction, &refer::describe(unit, reference)),
        references => {
            let names: Vec<_> = references.iter().map(|one| refer::describe(unit, one)).collect();
            format!("{}  # {}", format(&instruction), names.join(", "))
        }
    }
}

fn image(shipped: &dyn Shipped, place: u64, left: u64) -> String {
    let lengths = (1..=LONGEST_INSTRUCTION).rev().filter(|&length| length <= left.max(LONGEST_INSTRUCTION));
    let held = lengths.into_iter().find_map(|length| match shipped.contents(place, length) {
        Contents::Held(held) => Some(held),
        Contents::Zeros | Contents::Nowhere => None,
    });
    let Some(held) = held else { return "(nothing)".into() };
    let Some(instruction) = decode(held, place) else { return bytes(held) };
    if is_branch(&instruction) {
        branch(&instruction, &name_of(shipped, instruction.near_branch_target()))
    } else if instruction.is_ip_rel_memory_operand() {
        let name = name_of(shipped, instruction.ip_rel_memory_address());
        format!("{}  # {name}", format(&instruction))
    } else {
        format(&instruction)
    }
}

fn is_branch(instruction: &Instruction) -> bool {
    let near =
        |operand| matches!(operand, OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    instruction.op_count() == 1 && near(instruction.op0_kind())
}

fn branch(instruction: &Instruction, target: &str) -> String {
    format!("{} {target}", format!("{:?}", instruction.mnemonic()).to_lowercase())
}

fn decode(code: &[u8], ip: u64) -> Option<Instruction> {
    let mut decoder = Decoder::with_ip(64, code, ip, DecoderOptions::NONE);
    let instruction = decoder.can_decode().then(|| decoder.decode())?;
    (!instruction.is_invalid()).then_some(instruction)
}

fn format(instruction: &Instruction) -> String {
    let mut text = String::new();
    let mut formatter = GasFormatter::new();
    formatter.options_mut().set_rip_relative_addresses(true);
    formatter.options_mut().set_uppercase_hex(false);
    formatter.format(instruction, &mut text);
    text
}

fn bytes(code: &[u8]) -> String {
    let bytes: Vec<_> = code.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}
