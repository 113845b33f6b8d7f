//! Code as a list of instructions, each as what does not depend on where it lies, and what it refers to.
//!
//! In an object as the kernel's build makes it functions share a section: the assembler resolves branches between them, and
//! takes the short form where that reaches. In a module each function has a section, and such a branch is long and has a relocation.
//! So a branch counts as what it is (call, jump, condition) and where it leads; of every other instruction all bytes
//! count, but those that a relocation writes.

use crate::elf::{Elf, Home, Relocation, is_relative, width};
use std::ops::Range;
use yaxpeax_arch::{AddressBase, LengthedInstruction};
use yaxpeax_x86::long_mode::{InstDecoder, Instruction, Opcode, Operand, RegSpec};

/// The longest code that is read as one function, in bytes.
const LONGEST: u64 = 1 << 22;

/// What a reference leads to: a symbol that is not defined in the object, or a place in one of its sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The symbol's number, and what is added to its address.
    Outside(usize, i64),
    /// The section's number, and the offset in it.
    Inside(usize, i64),
}

/// One reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// From the instruction's first byte, or the datum's.
    pub(crate) at: u64,
    /// What kind of number is written: its width, and whether it counts from its place.
    pub(crate) form: Form,
    pub(crate) target: Target,
    /// The symbol that the relocation names; `None` where the assembler needed none.
    pub(crate) symbol: Option<usize>,
    /// Whether the livepatch loader applies it, and with which object.
    pub(crate) late: Option<String>,
    /// Whether something is compared with the address: the end of a loop over an array, which may be a part of an element behind
    /// the array's end.
    pub(crate) is_bound: bool,
    /// Whether the instruction writes to the place itself, and not its address to somewhere else.
    pub(crate) is_written: bool,
}

/// What a relocation writes. Two kinds of one form do the same for a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    width: u64,
    relative: bool,
    /// Of four bytes whether they are extended with their sign (`R_X86_64_32S`), which decides what fits.
    signed: bool,
    is_branch: bool,
}

impl Form {
    fn of(kind: u32, is_branch: bool) -> Form {
        let signed = kind == crate::elf::R_32S;
        Form { width: width(kind).unwrap_or(0), relative: is_relative(kind), signed, is_branch }
    }

    /// Bytes that are written.
    pub(crate) fn width(self) -> u64 {
        self.width
    }

    pub(crate) fn is_branch(self) -> bool {
        self.is_branch
    }
}

/// How a direct branch leads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Branch {
    Call,
    Jump,
    Condition(u8),
    /// `loop` and `jrcxz`, which have a short form only.
    Short(u8),
}

/// One instruction.
#[derive(Debug, Clone)]
pub(crate) struct Insn {
    /// From the function's begin.
    pub(crate) at: u64,
    pub(crate) length: u64,
    /// Its bytes without what its references write; of a branch its prefixes.
    pub(crate) shape: Vec<u8>,
    pub(crate) branch: Option<Branch>,
    pub(crate) references: Vec<Reference>,
    pub(crate) is_nop: bool,
}

impl Insn {
    /// Whether two are the same but for what they refer to.
    pub(crate) fn is_alike(&self, other: &Insn) -> bool {
        let places = |insn: &Insn| insn.references.iter().map(|one| (one.at, one.form)).collect::<Vec<_>>();
        if self.branch.is_some() || other.branch.is_some() {
            return self.branch == other.branch && self.shape == other.shape;
        }
        self.shape == other.shape && places(self) == places(other)
    }
}

/// A stretch of code.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) section: usize,
    pub(crate) range: Range<u64>,
    pub(crate) insns: Vec<Insn>,
}

impl Code {
    /// Reads the instructions in a range of a section; `None` if the section does not hold them.
    pub(crate) fn read(elf: &Elf, section: usize, range: Range<u64>) -> Option<Code> {
        let length = range.end.checked_sub(range.start).filter(|&length| length <= LONGEST)?;
        let contents = elf.contents(section);
        let bytes =
            contents.get(usize::try_from(range.start).ok()?..)?.get(..usize::try_from(length).ok()?)?;
        let relocations = elf.sections.get(section)?.relocations_in(&range);
        let mut code = Code { section, range: range.clone(), insns: Vec::new() };
        let decoder = InstDecoder::default();
        let (mut at, mut next) = (0_usize, 0_usize);
        while at < bytes.len() {
            let rest = &bytes[at..];
            let decoded = decoder.decode_slice(rest.get(..15).unwrap_or(rest)).ok();
            let size = decoded.as_ref().map_or(1, length_of).clamp(1, rest.len());
            let begin = range.start + at as u64;
            let first = next;
            while relocations.get(next).is_some_and(|one| one.offset < begin + size as u64) {
                next += 1;
            }
            let insn = Reader { elf, section, begin, bytes: &rest[..size] };
            let own = relocations.get(first..next).unwrap_or_default();
            let mut insn = insn.read(decoded.as_ref().filter(|decoded| length_of(decoded) == size), own);
            insn.at = at as u64;
            code.insns.push(insn);
            at += size;
        }
        Some(code)
    }

    /// The number of the instruction that begins at an offset of the section.
    pub(crate) fn index_at(&self, offset: i64) -> Option<usize> {
        let at = u64::try_from(offset).ok()?.checked_sub(self.range.start)?;
        if at == self.range.end - self.range.start {
            return Some(self.insns.len());
        }
        self.insns.binary_search_by_key(&at, |insn| insn.at).ok()
    }

    /// The same for a place that may be inside an instruction: with the distance from its begin.
    pub(crate) fn index_within(&self, offset: i64) -> Option<(usize, u64)> {
        let at = u64::try_from(offset).ok()?.checked_sub(self.range.start)?;
        if at >= self.range.end - self.range.start {
            return (at == self.range.end - self.range.start).then_some((self.insns.len(), 0));
        }
        let index = self.insns.partition_point(|insn| insn.at <= at).checked_sub(1)?;
        Some((index, at - self.insns[index].at))
    }

    pub(crate) fn holds(&self, section: usize, offset: i64) -> bool {
        section == self.section && u64::try_from(offset).is_ok_and(|offset| self.range.contains(&offset))
    }
}

fn length_of(insn: &Instruction) -> usize {
    (0_u64.wrapping_offset(insn.len())).to_linear()
}

struct Reader<'a> {
    elf: &'a Elf,
    section: usize,
    begin: u64,
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    fn read(&self, decoded: Option<&Instruction>, relocations: &[Relocation]) -> Insn {
        let mut insn = Insn {
            at: 0,
            length: self.bytes.len() as u64,
            shape: self.bytes.to_vec(),
            branch: None,
            references: Vec::new(),
            is_nop: decoded.is_some_and(|decoded| decoded.opcode() == Opcode::NOP)
                || self.bytes == [0x66, 0x90],
        };
        let relocations: Vec<_> = relocations.iter().filter(|one| one.kind != crate::elf::R_NONE).collect();
        if let Some((branch, prefixes, displacement)) = self.branch() {
            let at = self.begin + prefixes + displacement.0;
            let is_near = |one: &&&Relocation| width(one.kind) == Some(4) && is_relative(one.kind);
            let own = relocations.iter().find(|one| one.offset == at).filter(is_near);
            if relocations.len() == usize::from(own.is_some()) {
                let reference = match own {
                    Some(relocation) => self.reference(relocation, true),
                    None => self.resolved(prefixes + displacement.0, displacement.1, true),
                };
                if let Some(reference) = reference {
                    insn.branch = Some(branch);
                    insn.shape.truncate(prefixes as usize);
                    insn.references.push(Reference { at: 0, ..reference });
                    return insn;
                }
            }
        }
        for relocation in &relocations {
            let from = (relocation.offset - self.begin) as usize;
            let to = from + width(relocation.kind).unwrap_or(0) as usize;
            if let Some(hole) = insn.shape.get_mut(from..to) {
                hole.fill(0);
            }
            insn.references.extend(self.reference(relocation, false));
        }
        if decoded.is_some_and(|decoded| decoded.opcode() == Opcode::CMP) {
            // An immediate operand is the last of an instruction.
            let last = insn.length.saturating_sub(4);
            insn.references.iter_mut().for_each(|one| one.is_bound = one.at == last);
        }
        if decoded.is_some_and(writes) {
            // An immediate operand is the last of an instruction, and what is written somewhere.
            let has_immediate = decoded.is_some_and(has_immediate);
            let last = insn.length.saturating_sub(4);
            let is_immediate = |one: &Reference| has_immediate && !one.form.relative && one.at == last;
            insn.references.iter_mut().for_each(|one| one.is_written = !is_immediate(one));
        }
        if relocations.is_empty()
            && let Some((at, displacement)) = decoded.and_then(|decoded| self.relative_operand(decoded))
            && let Some(reference) = self.resolved(at, displacement, false)
        {
            let from = at as usize;
            insn.shape[from..from + 4].fill(0);
            insn.references.push(Reference { is_written: decoded.is_some_and(writes), ..reference });
        }
        insn
    }

    /// The kind of a direct branch, the length of its prefixes, and where its displacement lies behind them with its value.
    fn branch(&self) -> Option<(Branch, u64, (u64, i64))> {
        // The prefixes that compilers put before branches: hints, BND and NOTRACK.
        let prefixes = self.bytes.iter().take_while(|byte| matches!(byte, 0x2e | 0x3e | 0xf2)).count();
        let rest = self.bytes.get(prefixes..)?;
        let short = || Some((1, i64::from(*rest.get(1)? as i8)));
        let long = |at: usize| {
            let bytes: [u8; 4] = rest.get(at..at + 4)?.try_into().ok()?;
            Some((at as u64, i64::from(i32::from_le_bytes(bytes))))
        };
        let (branch, displacement) = match (rest.first()?, rest.len()) {
            (0xe8, 5) => (Branch::Call, long(1)?),
            (0xe9, 5) => (Branch::Jump, long(1)?),
            (0xeb, 2) => (Branch::Jump, short()?),
            (opcode @ 0x70..=0x7f, 2) => (Branch::Condition(opcode & 15), short()?),
            (opcode @ 0xe0..=0xe3, 2) => (Branch::Short(*opcode), short()?),
            (0x0f, 6) if matches!(rest.get(1), Some(0x80..=0x8f)) => {
                (Branch::Condition(rest[1] & 15), long(2)?)
            }
            _ => return None,
        };
        Some((branch, prefixes as u64, displacement))
    }

    /// A reference that the assembler resolved: within the section.
    fn resolved(&self, at: u64, displacement: i64, is_branch: bool) -> Option<Reference> {
        let target = (self.end() as i64).checked_add(displacement)?;
        let form = Form::of(crate::elf::R_PC32, is_branch);
        Some(Reference {
            at,
            form,
            target: Target::Inside(self.section, target),
            symbol: None,
            late: None,
            is_bound: false,
            is_written: false,
        })
    }

    fn reference(&self, relocation: &Relocation, is_branch: bool) -> Option<Reference> {
        // What the processor adds to is the end of the instruction, what the relocation counts from is the hole.
        let behind =
            if is_relative(relocation.kind) { self.end() as i64 - relocation.offset as i64 } else { 0 };
        let at = relocation.offset.checked_sub(self.begin)?;
        reference(self.elf, relocation, at, behind, is_branch)
    }

    /// The place and the value of a displacement from the instruction's end that has no relocation.
    fn relative_operand(&self, decoded: &Instruction) -> Option<(u64, i64)> {
        let displacement = (0..decoded.operand_count()).find_map(|number| match decoded.operand(number) {
            Operand::Disp { base, disp } if base == RegSpec::rip() => Some(disp),
            _ => None,
        })?;
        let bytes = displacement.to_le_bytes();
        // Behind it there is an immediate operand at most.
        let last = self.bytes.len().checked_sub(4)?;
        let at = [0, 1, 2, 4].into_iter().filter_map(|behind| last.checked_sub(behind));
        let at = at.into_iter().find(|&at| self.bytes[at..at + 4] == bytes)?;
        Some((at as u64, i64::from(displacement)))
    }
}

/// A relocation as a reference. `behind` is added where what is written counts from another place than the hole.
pub(crate) fn reference(
    elf: &Elf,
    relocation: &Relocation,
    at: u64,
    behind: i64,
    is_branch: bool,
) -> Option<Reference> {
    let symbol = elf.symbols.get(relocation.symbol)?;
    let added = relocation.addend.checked_add(behind)?;
    let target = match symbol.home {
        Home::Section(section) => Target::Inside(section, (symbol.value as i64).checked_add(added)?),
        _ => Target::Outside(relocation.symbol, added),
    };
    let form = Form::of(relocation.kind, is_branch);
    Some(Reference {
        at,
        form,
        target,
        symbol: Some(relocation.symbol),
        late: relocation.late.clone(),
        is_bound: false,
        is_written: false,
    })
}

/// Whether an instruction writes to memory that one of its operands names.
fn writes(decoded: &Instruction) -> bool {
    let behavior = decoded.behavior();
    (0..decoded.operand_count()).any(|number| {
        let writes = behavior.operand_access(number).is_some_and(|access| access.is_write());
        writes && decoded.operand(number).is_memory()
    })
}

/// Whether one of its operands is a number of four bytes or is extended from these.
fn has_immediate(decoded: &Instruction) -> bool {
    (0..decoded.operand_count()).any(|number| {
        matches!(
            decoded.operand(number),
            Operand::ImmediateI32 { .. }
                | Operand::ImmediateU32 { .. }
                | Operand::ImmediateI64 { .. }
                | Operand::ImmediateU64 { .. }
        )
    })
}
