//! A piece of code as text.

use crate::operands::Operand;
use crate::side::{Range, Side};
use iced_x86::{
    Decoder, DecoderOptions, Formatter, GasFormatter, Instruction, OpKind, SymbolResolver, SymbolResult,
};
use kmend_object::elf;

/// Where the first operand stands, as objdump has it.
const OPERAND_COLUMN: u32 = 8;

/// One instruction.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// Bytes from the piece's start.
    pub(crate) offset: u64,
    pub(crate) text: String,
    /// What must be the same on both sides for the two to be the same instruction.
    pub(crate) key: String,
    /// If it refers to a place in its function: the piece, and the offset in it.
    pub(crate) inside: Option<(usize, u64)>,
}

/// Disassembles piece number `number` of a function's pieces.
pub(crate) fn disassemble(side: &Side<'_>, pieces: &[(String, Range)], number: usize) -> Vec<Decoded> {
    let Some((_, range)) = pieces.get(number) else { return Vec::new() };
    let length = range.end.saturating_sub(range.start);
    let code = side.object.section(range.section).bytes(range.start, length).unwrap_or_default();
    let mut decoder = Decoder::with_ip(64, code, range.start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut decoded = Vec::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let operands = Operands::of(side, pieces, *range, &decoder, &instruction);
        decoded.push(operands.write(&instruction, instruction.ip().wrapping_sub(range.start)));
    }
    decoded
}

/// The names of one instruction's operands.
#[derive(Default)]
struct Operands {
    displacement: Option<Operand>,
    immediate: Option<Operand>,
}

impl Operands {
    fn of(
        side: &Side<'_>,
        pieces: &[(String, Range)],
        range: Range,
        decoder: &Decoder<'_>,
        instruction: &Instruction,
    ) -> Self {
        let mut operands = Operands::default();
        let offsets = decoder.get_constant_offsets(instruction);
        let displacement = instruction.ip().wrapping_add(offsets.displacement_offset() as u64);
        for relocation in side.relocations(range.section, instruction.ip(), instruction.next_ip()) {
            if relocation.kind == elf::R_X86_64_NONE {
                continue;
            }
            let relative = elf::is_relative(relocation.kind);
            let tail =
                if relative { instruction.next_ip().wrapping_sub(relocation.offset) as i64 } else { 0 };
            let operand = side.operand(pieces, relocation, tail);
            if offsets.has_displacement() && relocation.offset == displacement {
                operands.displacement = Some(operand);
            } else {
                operands.immediate = Some(operand);
            }
        }
        if operands.immediate.is_none() && is_near_branch(instruction) {
            operands.immediate = Some(side.code_at(pieces, range.section, instruction.near_branch_target()));
        }
        operands
    }

    fn write(&self, instruction: &Instruction, offset: u64) -> Decoded {
        let both = || [&self.displacement, &self.immediate].into_iter().flatten();
        let text = format(instruction, |operand| operand.text.clone(), self);
        let key = if both().all(|operand| operand.key == operand.text) {
            text.clone()
        } else {
            format(instruction, |operand| operand.key.clone(), self)
        };
        Decoded { offset, text, key, inside: both().find_map(|operand| operand.inside) }
    }
}

fn is_near_branch(instruction: &Instruction) -> bool {
    let near = |kind| matches!(kind, OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    instruction.op_count() > 0 && near(instruction.op0_kind())
}

/// In the syntax that kernel people read, with names for the operands that have one.
fn format(instruction: &Instruction, name: impl Fn(&Operand) -> String, operands: &Operands) -> String {
    let names = Names {
        displacement: operands.displacement.as_ref().map(&name),
        immediate: operands.immediate.as_ref().map(&name),
    };
    let mut formatter = GasFormatter::with_options(Some(Box::new(names)), None);
    let options = formatter.options_mut();
    options.set_uppercase_hex(false);
    options.set_small_hex_numbers_in_decimal(false);
    options.set_first_operand_char_index(OPERAND_COLUMN);
    options.set_rip_relative_addresses(false);
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    text
}

struct Names {
    displacement: Option<String>,
    immediate: Option<String>,
}

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        _operand: u32,
        instruction_operand: Option<u32>,
        address: u64,
        _address_size: u32,
    ) -> Option<SymbolResult<'_>> {
        let kind = instruction_operand.map(|operand| instruction.op_kind(operand));
        let name = if kind == Some(OpKind::Memory) { &self.displacement } else { &self.immediate };
        name.as_deref().map(|name| SymbolResult::with_str(address, name))
    }
}
