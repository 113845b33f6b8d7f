//! Who refers to something in the kernel that ships.

use kmend_kernel::{Image, ImageSection, KernelError, ModuleTree};
use std::collections::BTreeSet;

/// How many bytes of an instruction may follow a relative operand: an immediate one (Intel SDM, volume 2, 2.1). None follow
/// that of a call or jump.
pub(crate) const TAILS: [u64; 4] = [0, 1, 2, 4];

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
/// instruction behind it. What looks like one and is not can only lead to a refusal.
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
                uses.extend(found(image, place));
            }
        }
    }
    uses
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
