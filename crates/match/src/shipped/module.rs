//! A module: an object again, so references are relocations.

use super::{Contents, Named, Shipped};
use crate::matched::{KernelName, Located};
use crate::names::stem;
use kmend_kernel::{Module, Position};
use kmend_object::{Binding, Object, Place, Relocation, SectionId, Symbol, SymbolId, elf};
use std::collections::HashMap;
use std::ops::Range;

/// Distance between the made-up addresses of two sections; no section of a module is as large.
const SECTION_STRIDE: u64 = 1 << 40;
/// Where the made-up addresses of undefined symbols begin, above those of 2^16 sections.
const UNDEFINED: u64 = 1 << 57;
/// Distance between those of two undefined symbols: references to the middle of one stay apart from the next.
const UNDEFINED_STRIDE: u64 = 1 << 28;

/// A module in its made-up address space.
pub(crate) struct InModule<'a> {
    module: &'a Module,
    imported: &'a dyn Fn(&str) -> Located,
    /// Per section, sorted by place.
    relocations: Vec<Vec<Relocation>>,
    by_name: HashMap<&'a str, Vec<SymbolId>>,
    /// Symbols with a name by address, sorted.
    by_address: Vec<(u64, SymbolId)>,
}

impl<'a> InModule<'a> {
    /// `imported` tells of a symbol that the module does not define.
    pub(crate) fn new(module: &'a Module, imported: &'a dyn Fn(&str) -> Located) -> Self {
        let object = module.object();
        let sorted = |section: &kmend_object::Section| {
            let mut list = section.relocations.clone();
            list.sort_by_key(|relocation| relocation.offset);
            list
        };
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        let mut by_address = Vec::new();
        for id in object.symbol_ids() {
            let symbol = object.symbol(id);
            if let Some(address) = address_of(object, id).filter(|_| !symbol.name.is_empty()) {
                by_name.entry(symbol.name.as_str()).or_default().push(id);
                by_address.push((address, id));
            }
        }
        by_address.sort_unstable();
        let relocations = object.sections.iter().map(sorted).collect();
        InModule { module, imported, relocations, by_name, by_address }
    }

    fn object(&self) -> &'a Object {
        self.module.object()
    }

    fn symbol(&self, id: SymbolId) -> &'a Symbol {
        self.object().symbol(id)
    }

    fn at(&self, address: u64) -> &[(u64, SymbolId)] {
        let start = self.by_address.partition_point(|&(other, _)| other < address);
        let tail = self.by_address.get(start..).unwrap_or_default();
        tail.get(..tail.partition_point(|&(other, _)| other == address)).unwrap_or_default()
    }

    /// The relocations whose places are in a range.
    fn relocations_in(&self, places: Range<u64>) -> &[Relocation] {
        let Some((section, start)) = split(self.object(), places.start) else { return &[] };
        let list = self.relocations.get(section.index()).map_or(&[][..], Vec::as_slice);
        let first = list.partition_point(|relocation| relocation.offset < start);
        let end = start.saturating_add(places.end.saturating_sub(places.start));
        let tail = list.get(first..).unwrap_or_default();
        tail.get(..tail.partition_point(|relocation| relocation.offset < end)).unwrap_or_default()
    }

    /// The position that holds while the module is loading and after; none where there is no such one.
    fn position(&self, id: SymbolId) -> Option<Position> {
        self.module.position(id)?.settled()
    }
}

impl Shipped for InModule<'_> {
    fn contents(&self, address: u64, length: u64) -> Contents<'_> {
        let Some((section, offset)) = split(self.object(), address) else { return Contents::Nowhere };
        let section = self.object().section(section);
        if offset.checked_add(length).is_none_or(|end| end > section.size) {
            return Contents::Nowhere;
        }
        match section.kind {
            elf::SHT_NOBITS => Contents::Zeros,
            _ => section.bytes(offset, length).map_or(Contents::Nowhere, Contents::Held),
        }
    }

    fn target(&self, place: u64, relocation: &Relocation) -> Option<u64> {
        let here = self.relocations_in(place..place.checked_add(1)?);
        let found = here.iter().find(|other| same_kind(other.kind, relocation.kind))?;
        let symbol = address_of(self.object(), found.symbol)?;
        Some(symbol.wrapping_add_signed(found.addend).wrapping_sub(relocation.addend as u64))
    }

    fn has_relocation(&self, places: Range<u64>) -> Option<u64> {
        let start = places.start;
        let found = self.relocations_in(places).iter().find(|found| found.kind != elf::R_X86_64_NONE)?;
        let (_, offset) = split(self.object(), start)?;
        Some(start + (found.offset - offset))
    }

    fn named(&self, name: &str) -> Vec<Named> {
        let ids = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let named = |&id| {
            let address = address_of(self.object(), id)?;
            Some(Named { address, global: self.symbol(id).binding != Binding::Local })
        };
        ids.iter().filter_map(named).collect()
    }

    fn names_at(&self, address: u64) -> Vec<&str> {
        self.at(address).iter().map(|&(_, id)| self.symbol(id).name.as_str()).collect()
    }

    fn nearest(&self, address: u64) -> Option<(&str, u64)> {
        let after = self.by_address.partition_point(|&(other, _)| other <= address);
        let &(nearest, id) = self.by_address.get(after.checked_sub(1)?)?;
        Some((&self.symbol(id).name, address - nearest))
    }

    fn gathered(&self, section: &str) -> Option<Range<u64>> {
        let id = self.object().section_named(section)?;
        let start = section_address(id);
        Some(start..start + self.object().section(id).size)
    }

    fn shown(&self, address: u64) -> u64 {
        split(self.object(), address).map_or(0, |(_, offset)| offset)
    }

    fn located(&self, address: u64, name: &str) -> Located {
        let here = self.at(address);
        let named = |wanted: &dyn Fn(&str) -> bool| {
            here.iter().map(|&(_, id)| id).find(|&id| wanted(&self.symbol(id).name))
        };
        let id = named(&|other| other == name).or_else(|| named(&|other| stem(other) == stem(name)));
        if let Some(id) = id
            && self.symbol(id).is_undefined()
        {
            return (self.imported)(&self.symbol(id).name);
        }
        let (section, offset) = split(self.object(), address).unzip();
        let kernel = id.and_then(|id| {
            let name = self.symbol(id).name.clone();
            Some(KernelName { name, position: self.position(id)? })
        });
        Located {
            address: offset.unwrap_or_default(),
            section: section.map(|id| self.object().section(id).name.clone()),
            object: Some(self.module.name().into()),
            kernel,
        }
    }
}

/// gas writes calls as PLT32 or PC32 by its version; both mean the same in the kernel.
fn same_kind(one: u32, other: u32) -> bool {
    let plain = |kind| if kind == elf::R_X86_64_PLT32 { elf::R_X86_64_PC32 } else { kind };
    plain(one) == plain(other)
}

fn section_address(id: SectionId) -> u64 {
    (u64::from(id.0) + 1) * SECTION_STRIDE
}

/// The section of a made-up address and the offset in it.
fn split(object: &Object, address: u64) -> Option<(SectionId, u64)> {
    let number = (address / SECTION_STRIDE).checked_sub(1)?;
    let id = SectionId(u32::try_from(number).ok()?);
    object.sections.get(id.index()).map(|_| (id, address % SECTION_STRIDE))
}

fn address_of(object: &Object, id: SymbolId) -> Option<u64> {
    let symbol = object.symbols.get(id.index())?;
    match symbol.place {
        Place::Section(section) => section_address(section).checked_add(symbol.value),
        Place::Absolute => Some(symbol.value),
        Place::Undefined if id != SymbolId::NULL => {
            UNDEFINED.checked_add(u64::from(id.0).checked_mul(UNDEFINED_STRIDE)?)
        }
        Place::Undefined | Place::Common | Place::Livepatch => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double::unit;
    use crate::{Outcome, match_shipped};
    use kmend_object::{Section, SymbolKind};

    /// Bytes of another unit that come before ours in every section.
    const BEFORE: usize = 32;

    /// What `ld -r` makes of [`unit`] after another one: sections grow, section symbols stay at their starts.
    fn linked() -> Object {
        let mut object = unit();
        let is_section = |id: SymbolId| unit().symbol(id).kind == SymbolKind::Section;
        for section in &mut object.sections {
            section.size += BEFORE as u64;
            if section.kind != elf::SHT_NOBITS {
                section.data.splice(0..0, [0x90; BEFORE]);
            }
            for relocation in &mut section.relocations {
                relocation.offset += BEFORE as u64;
                relocation.addend += if is_section(relocation.symbol) { BEFORE as i64 } else { 0 };
            }
        }
        for symbol in &mut object.symbols {
            if symbol.kind != SymbolKind::Section && symbol.section().is_some() {
                symbol.value += BEFORE as u64;
            }
        }
        object.add_section(Section::allocated(".modinfo", 0, 1, b"name=some\0".to_vec()));
        object
    }

    fn imported(name: &str) -> Located {
        let object = (name == "_printk").then(|| "vmlinux".to_owned());
        Located { address: 7, section: None, object, kernel: None }
    }

    fn check(object: &Object, examine: impl FnOnce(crate::Matched)) {
        let module = Module::parse(&object.write().unwrap()).unwrap();
        examine(match_shipped(&unit(), &InModule::new(&module, &imported)).unwrap());
    }

    #[test]
    fn a_unit_is_found_in_a_module() {
        check(&linked(), |matched| {
            assert!(matched.is_proven(), "{:?}", matched.refusals("a.c"));
            assert_eq!(matched.function("alpha").unwrap().address, BEFORE as u64);
            let counter = matched.locate("counter").unwrap();
            assert_eq!((counter.address, counter.section.as_deref()), (BEFORE as u64 + 8, Some(".data")));
            assert_eq!(counter.object.as_deref(), Some("some"));
            assert!(counter.kernel.as_ref().unwrap().position.is_unique());
            let printk = matched.locate("_printk").unwrap();
            assert_eq!((printk.object.as_deref(), printk.address), (Some("vmlinux"), 7));
            assert_eq!(matched.locate("__fentry__").unwrap().object, None);
        });
    }

    #[test]
    fn another_callee_differs() {
        let mut object = linked();
        object.sections[0].relocations[2].symbol = object.sections[0].relocations[0].symbol;
        check(&object, |matched| {
            let Outcome::Differs(difference) = &matched.function("alpha").unwrap().outcome else { panic!() };
            assert_eq!(difference.why, "refers to __fentry__ and not to _printk");
        });
    }

    #[test]
    fn a_reference_more_or_less_differs() {
        for remove in [true, false] {
            let mut object = linked();
            let list = &mut object.sections[0].relocations;
            if remove {
                list.remove(2);
            } else {
                list.push(Relocation { offset: BEFORE as u64 + 48, kind: elf::R_X86_64_8, ..list[0] });
            }
            check(&object, |matched| {
                let why: Vec<_> = matched.refusals("a.c").into_iter().map(|refusal| refusal.why).collect();
                let expected = if remove {
                    "at offset 0xc: no reference to _printk"
                } else {
                    "at offset 0x0: a reference where the source makes none"
                };
                assert_eq!(why, [expected]);
            });
        }
    }

    #[test]
    fn every_changed_addend_is_found() {
        for section in 0..linked().sections.len() {
            for number in 0..linked().sections[section].relocations.len() {
                let mut object = linked();
                object.sections[section].relocations[number].addend ^= 8;
                check(&object, |matched| {
                    let placed = matched.sections.iter().all(|section| section.address.is_some());
                    assert!(!matched.is_proven() || !placed, "{section} {number}");
                });
            }
        }
    }
}
