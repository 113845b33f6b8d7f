//! The kernel proper.

use super::{Contents, Named, Shipped};
use crate::matched::{KernelName, Located};
use crate::names::stem;
use kmend_kernel::{Image, KernelSymbol};
use kmend_object::{Relocation, elf};
use std::ops::Range;

/// The object name that livepatch gives the kernel proper.
const VMLINUX: &str = "vmlinux";

/// A linked image: references are numbers in its code.
pub(crate) struct InImage<'a> {
    image: &'a Image,
}

impl<'a> InImage<'a> {
    pub(crate) fn new(image: &'a Image) -> Self {
        InImage { image }
    }

    fn at(&self, address: u64) -> &'a [KernelSymbol] {
        self.image.symbols().at(address)
    }
}

impl Shipped for InImage<'_> {
    fn contents(&self, address: u64, length: u64) -> Contents<'_> {
        let Ok(bytes) = usize::try_from(length) else { return Contents::Nowhere };
        if let Some(held) = self.image.read(address, bytes) {
            return Contents::Held(held);
        }
        let end = address.checked_add(length);
        let inside = |range: Range<u64>| range.contains(&address) && end.is_some_and(|end| end <= range.end);
        if self.image.sections().iter().any(|section| inside(section.range())) {
            Contents::Zeros
        } else {
            Contents::Nowhere
        }
    }

    fn target(&self, place: u64, relocation: &Relocation) -> Option<u64> {
        let width = elf::width(relocation.kind)?;
        let held = match self.contents(place, width) {
            Contents::Held(held) => held,
            Contents::Zeros | Contents::Nowhere => return None,
        };
        Some(linked_target(held, place, relocation))
    }

    fn has_relocation(&self, _: Range<u64>) -> Option<u64> {
        None
    }

    fn named(&self, name: &str) -> Vec<Named> {
        let named = self.image.symbols().named(name);
        // As nm(1) has it: capitals are global, and both weak kinds are.
        named
            .map(|symbol| Named {
                address: symbol.address,
                global: symbol.kind.is_ascii_uppercase() || matches!(symbol.kind, b'w' | b'v'),
            })
            .collect()
    }

    fn names_at(&self, address: u64) -> Vec<&str> {
        self.at(address).iter().map(|symbol| &*symbol.name).collect()
    }

    fn nearest(&self, address: u64) -> Option<(&str, u64)> {
        let (symbol, distance) = self.image.symbols().containing(address)?;
        Some((&symbol.name, distance))
    }

    /// A section of the image, or what the linker script puts between `__start_X` and `__stop_X`.
    fn gathered(&self, section: &str) -> Option<Range<u64>> {
        if let Some(found) = self.image.section_named(section) {
            return Some(found.range());
        }
        let only = |name: String| {
            let mut named = self.image.symbols().named(&name);
            named.next().map(|symbol| symbol.address)
        };
        Some(only(format!("__start_{section}"))?..only(format!("__stop_{section}"))?)
    }

    fn shown(&self, address: u64) -> u64 {
        address
    }

    fn located(&self, address: u64, name: &str) -> Located {
        let here = self.at(address);
        let same = here.iter().find(|symbol| &*symbol.name == name);
        let symbol = same.or_else(|| here.iter().find(|symbol| stem(&symbol.name) == stem(name)));
        let kernel = symbol.map(|symbol| KernelName {
            name: symbol.name.to_string(),
            position: self.image.symbols().position(symbol),
        });
        Located { address, section: None, object: Some(VMLINUX.into()), kernel }
    }
}

/// What a module takes from the kernel proper: an export. What that does not export another module must.
pub(crate) fn exported(image: &Image, name: &str) -> Located {
    let export = image.exports().get(name);
    let symbols = image.symbols();
    let symbol = export.and_then(|export| {
        let mut named = symbols.named(name);
        named.find(|symbol| symbol.address == export.address)
    });
    Located {
        address: export.map_or(0, |export| export.address),
        section: None,
        object: export.map(|_| VMLINUX.into()),
        kernel: symbol.map(|symbol| KernelName { name: name.into(), position: symbols.position(symbol) }),
    }
}

/// Turns the psABI's formulas around: `S` from what was written for `S + A` or `S + A - P`.
pub(crate) fn linked_target(held: &[u8], place: u64, relocation: &Relocation) -> u64 {
    let mut wide = [0u8; 8];
    for (to, from) in wide.iter_mut().zip(held) {
        *to = *from;
    }
    let unsigned = u64::from_le_bytes(wide);
    let unused = 64 - 8 * held.len().clamp(1, 8) as u32;
    let value = match relocation.kind {
        elf::R_X86_64_32 | elf::R_X86_64_16 | elf::R_X86_64_8 => unsigned,
        _ => (((unsigned << unused) as i64) >> unused) as u64,
    };
    let symbol = value.wrapping_sub(relocation.addend as u64);
    if elf::is_relative(relocation.kind) { symbol.wrapping_add(place) } else { symbol }
}
