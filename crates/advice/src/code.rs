//! What one function calls, refers to and writes, in the order of its instructions.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register,
};
use kmend_object::{Object, Relocation, Section, SymbolId, SymbolKind};
use std::collections::BTreeMap;

/// What an instruction writes to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A variable with a name, without the number that the compiler gave it.
    Variable(String),
    /// What lies so many bytes behind a pointer.
    Field(u64),
}

/// A write to memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Write {
    pub(crate) target: Target,
    /// The instruction, with its constant if it has one.
    pub(crate) how: (u32, Option<u64>),
}

/// A call of a function by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call<'a> {
    /// Offset in the function, in bytes.
    offset: u64,
    pub(crate) name: &'a str,
    /// The variable whose address was the last thing written to the first argument's register before it.
    pub(crate) argument: Option<&'a str>,
}

/// The code of one function.
#[derive(Debug, Default)]
pub(crate) struct Code<'a> {
    pub(crate) calls: Vec<Call<'a>>,
    /// What it refers to and does not call.
    pub(crate) addresses: Vec<&'a str>,
    pub(crate) writes: Vec<Write>,
    /// The targets and places of backward jumps.
    loops: Vec<(u64, u64)>,
    /// By name: the pieces that the compiler split off from the function, and that it goes on in.
    pub(crate) parts: BTreeMap<&'a str, Code<'a>>,
}

impl<'a> Code<'a> {
    /// Decodes a function and its parts; `None` if it has no code.
    pub(crate) fn of(object: &'a Object, symbol: SymbolId) -> Option<Self> {
        let mut code = Self::of_symbol(object, symbol)?;
        let function = kmend_diff::source_function(&object.symbol(symbol).name);
        let is_part = |name: &str| kmend_diff::source_function(name) == function;
        let mut waiting: Vec<&str> = code.calls.iter().map(|call| call.name).collect();
        while let Some(name) = waiting.pop() {
            if !is_part(name) || name == object.symbol(symbol).name || code.parts.contains_key(name) {
                continue;
            }
            let named = |&id: &SymbolId| object.symbol(id).is_function() && object.symbol(id).name == name;
            if let Some(part) = object.symbol_ids().find(named).and_then(|id| Self::of_symbol(object, id)) {
                waiting.extend(part.calls.iter().map(|call| call.name));
                code.parts.insert(name, part);
            }
        }
        Some(code)
    }

    fn of_symbol(object: &'a Object, symbol: SymbolId) -> Option<Self> {
        let symbol = object.symbols.get(symbol.index())?;
        let section = object.section(symbol.section()?);
        let bytes = section.bytes(symbol.value, symbol.size)?;
        let mut relocations: Vec<&Relocation> = section.relocations.iter().collect();
        relocations.sort_by_key(|relocation| relocation.offset);
        let mut code = Code::default();
        let mut decoder = Decoder::with_ip(64, bytes, symbol.value, DecoderOptions::NONE);
        let mut factory = InstructionInfoFactory::new();
        let mut argument = None;
        for instruction in &mut decoder {
            let range = instruction.ip()..instruction.next_ip();
            let first = relocations.partition_point(|relocation| relocation.offset < range.start);
            let relocation = relocations.get(first).filter(|relocation| range.contains(&relocation.offset));
            let name = relocation.and_then(|relocation| name(object, relocation, range.end));
            code.take(&instruction, name, symbol.value, &mut argument, &mut factory);
        }
        Some(code)
    }

    fn take(
        &mut self,
        instruction: &Instruction,
        name: Option<&'a str>,
        start: u64,
        argument: &mut Option<&'a str>,
        factory: &mut InstructionInfoFactory,
    ) {
        let offset = instruction.ip().wrapping_sub(start);
        match instruction.flow_control() {
            FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                let target = instruction.near_branch_target();
                match name {
                    Some(name) => self.calls.push(Call { offset, name, argument: argument.take() }),
                    None if (start..=instruction.ip()).contains(&target) => {
                        self.loops.push((target.wrapping_sub(start), offset));
                    }
                    None => {}
                }
            }
            _ => {
                self.addresses.extend(name);
                let info = factory.info(instruction);
                let is_written = |access: OpAccess| {
                    matches!(
                        access,
                        OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
                    )
                };
                let sets_argument = info.used_registers().iter().any(|used| {
                    used.register().full_register() == Register::RDI && is_written(used.access())
                });
                if sets_argument {
                    *argument = name;
                }
                if info.used_memory().iter().any(|used| is_written(used.access())) {
                    self.writes.extend(write(instruction, name));
                }
            }
        }
    }

    /// Whether a call lies between the target and the place of a backward jump.
    pub(crate) fn is_in_loop(&self, call: &Call<'_>) -> bool {
        self.loops.iter().any(|&(target, place)| (target..place).contains(&call.offset))
    }

    pub(crate) fn calls_any(&self, names: &[&str]) -> Option<&Call<'a>> {
        self.calls.iter().find(|call| names.contains(&call.name))
    }
}

/// A write to a variable, or a change of a field by what it holds. That other stores go to the same field
/// cannot be told from the offset alone.
fn write(instruction: &Instruction, name: Option<&str>) -> Option<Write> {
    let changes = matches!(
        instruction.mnemonic(),
        Mnemonic::Inc | Mnemonic::Dec | Mnemonic::Add | Mnemonic::Sub | Mnemonic::Xadd
    );
    let is_frame = matches!(instruction.memory_base(), Register::RSP | Register::None);
    let target = match name {
        Some(name) => Target::Variable(kmend_diff::base_name(name)),
        None if changes && !is_frame => Target::Field(instruction.memory_displacement64()),
        None => return None,
    };
    let last = instruction.op_count().checked_sub(1)?;
    let constant = instruction.try_immediate(last).ok();
    Some(Write { target, how: (instruction.mnemonic() as u32, constant) })
}

/// What a relocation refers to. `end` is where its instruction ends.
fn name<'a>(object: &'a Object, relocation: &Relocation, end: u64) -> Option<&'a str> {
    let symbol = object.symbols.get(relocation.symbol.index())?;
    if symbol.kind != SymbolKind::Section {
        return Some(symbol.name.as_str()).filter(|name| !name.is_empty());
    }
    let tail =
        if kmend_object::elf::is_relative(relocation.kind) { end.checked_sub(relocation.offset)? } else { 0 };
    let offset = symbol.value.checked_add(tail)?.checked_add_signed(relocation.addend)?;
    let section: &Section = object.sections.get(symbol.section()?.index())?;
    let named = object.symbols.iter().filter(|other| {
        other.section() == symbol.section() && !other.name.is_empty() && other.value <= offset
    });
    let nearest = named.max_by_key(|other| other.value)?;
    (!section.is_strings()).then_some(nearest.name.as_str())
}
