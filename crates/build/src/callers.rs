//! Who refers to something in the kernel that ships.

use iced_x86::{Decoder, DecoderOptions};
use kmend_kernel::{Image, ImageSection, KernelError, ModuleTree};
use std::collections::BTreeSet;

/// How many bytes of an instruction may follow a relative operand: an immediate one (Intel SDM, volume 2, 2.1). None follow
/// that of a call or jump.
pub(crate) const TAILS: [u64; 4] = [0, 1, 2, 4];

/// Bytes of the longest instruction (Intel SDM, volume 2, 2.3.11), and more than any function has.
const LONGEST_INSTRUCTION: u64 = 15;
const LONGEST_FUNCTION: usize = 1 << 20;

/// A reference in the image.
pub(crate) struct Use {
    /// Where it is.
    pub(crate) place: u64,
    /// The function or variable that it lies in.
    pub(crate) user: String,
    /// Where that begins.
    pub(crate) start: u64,
}

/// The code of the live image that refers to an address, by a 32-bit operand or a relative one with so many bytes of its
/// instruction behind it. Where a function cannot be decoded, what looks like one counts.
pub(crate) fn in_code(image: &Image, address: u64, tails: &[u64]) -> Vec<Use> {
    let live = |section: &&ImageSection| section.is_code() && !section.name.starts_with(".init");
    let mut uses = Vec::new();
    for section in image.sections().iter().filter(live) {
        let code = image.section_data(&section.name).unwrap_or_default();
        for (offset, operand) in code.windows(4).enumerate() {
            let Ok(operand) = <[u8; 4]>::try_from(operand) else { continue };
            let operand = i32::from_le_bytes(operand);
            let place = section.address.wrapping_add(offset as u64);
            let led_to = place.wrapping_add(4).wrapping_add_signed(i64::from(operand));
            let is_relative = tails.contains(&address.wrapping_sub(led_to));
            if is_relative || i64::from(operand) as u64 == address {
                uses.extend(found(image, place).filter(|one| is_operand(image, one)));
            }
        }
    }
    uses
}

/// Whether an operand of an instruction is there, and not by chance the same bytes: the function is decoded from its begin.
fn is_operand(image: &Image, candidate: &Use) -> bool {
    let length = candidate.place.saturating_sub(candidate.start).saturating_add(LONGEST_INSTRUCTION);
    let Some(length) = usize::try_from(length).ok().filter(|&length| length <= LONGEST_FUNCTION) else {
        return true;
    };
    // A function at the section's end has fewer bytes behind it.
    let whole = (length.saturating_sub(LONGEST_INSTRUCTION as usize)..=length).rev();
    let Some(bytes) = whole.into_iter().find_map(|length| image.read(candidate.start, length)) else {
        return true;
    };
    let mut decoder = Decoder::with_ip(64, bytes, candidate.start, DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return true;
        }
        if instruction.next_ip() > candidate.place {
            let offsets = decoder.get_constant_offsets(&instruction);
            let at = usize::try_from(candidate.place.saturating_sub(instruction.ip())).unwrap_or(usize::MAX);
            return (offsets.has_displacement() && offsets.displacement_offset() == at)
                || (offsets.has_immediate() && offsets.immediate_offset() == at);
        }
    }
    true
}

/// The pointers to an address in the image's data that stay after the start.
pub(crate) fn in_data(image: &Image, address: u64) -> Vec<Use> {
    let live = |section: &&ImageSection| !section.is_code() && !section.name.starts_with(".init");
    let mut uses = Vec::new();
    for section in image.sections().iter().filter(live) {
        let data = image.section_data(&section.name).unwrap_or_default();
        let words = data.chunks_exact(8).enumerate().filter(|(_, word)| **word == address.to_le_bytes());
        uses.extend(words.filter_map(|(number, _)| {
            found(image, section.address.wrapping_add((number as u64).saturating_mul(8)))
        }));
    }
    uses
}

fn found(image: &Image, place: u64) -> Option<Use> {
    let (symbol, _) = image.symbols().containing(place)?;
    Some(Use { place, user: symbol.name.to_string(), start: symbol.address })
}

/// The functions of a module whose code refers to one of its symbols. Its `.init` code counts: it runs after the
/// livepatch of a module that is loaded later.
pub(crate) fn in_module(
    tree: &ModuleTree,
    module: &str,
    symbol: &str,
) -> Result<BTreeSet<String>, KernelError> {
    let object = tree.module(module)?.into_object();
    let mut callers = BTreeSet::new();
    for id in object.section_ids() {
        let section = object.section(id);
        if !section.is_code() {
            continue;
        }
        for relocation in &section.relocations {
            let Some(target) = object.symbols.get(relocation.symbol.index()) else { continue };
            if target.name != symbol {
                continue;
            }
            let holds = |symbol: &&kmend_object::Symbol| {
                symbol.is_function()
                    && symbol.section() == Some(id)
                    && (symbol.value..symbol.value.saturating_add(symbol.size)).contains(&relocation.offset)
            };
            let caller = object.symbols.iter().find(holds);
            callers.insert(caller.map_or_else(|| section.name.clone(), |symbol| symbol.name.clone()));
        }
    }
    Ok(callers)
}
