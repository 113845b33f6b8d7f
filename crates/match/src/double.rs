//! A kernel made by hand: a linker of one unit, and memory with symbols to match it against.

use crate::matched::{KernelName, Located};
use crate::shipped::{Contents, Named, Shipped, linked_target};
use kmend_kernel::Position;
use kmend_object::{
    Binding, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId, SymbolKind, elf,
};
use std::ops::Range;

/// Where the linker puts the sections of [`unit`], by their names.
pub(crate) const BASES: [(&str, u64); 6] = [
    (".text", 0x8100_0400),
    (".rodata", 0x8200_0100),
    (".rodata.str1.1", 0x8200_8000),
    (".data", 0x8300_0040),
    (".bss", 0x8400_0000),
    ("__jump_table", 0x8200_c010),
];
/// Addresses of what other units define.
pub(crate) const FENTRY: u64 = 0x8100_2000;
pub(crate) const PRINTK: u64 = 0x8100_3000;
pub(crate) const HOOK: u64 = 0x8100_4000;

/// A linked kernel.
#[derive(Clone, Default)]
pub(crate) struct Double {
    pub(crate) memory: Vec<(u64, Vec<u8>)>,
    pub(crate) zeros: Vec<Range<u64>>,
    pub(crate) symbols: Vec<(String, u64, bool)>,
    pub(crate) tables: Vec<(String, Range<u64>)>,
}

impl Double {
    /// The byte of memory at an address.
    pub(crate) fn byte(&mut self, address: u64) -> &mut u8 {
        let (start, bytes) = self
            .memory
            .iter_mut()
            .find(|(start, bytes)| (*start..*start + bytes.len() as u64).contains(&address))
            .unwrap();
        &mut bytes[(address - *start) as usize]
    }

    pub(crate) fn name(&mut self, name: &str, address: u64, global: bool) {
        self.symbols.push((name.into(), address, global));
    }

    /// Links a unit into it: sections to `bases`, undefined symbols to the double's own.
    pub(crate) fn link(&mut self, object: &Object, bases: &[(&str, u64)]) {
        let base = |id: SectionId| {
            let name = object.section(id).name.as_str();
            bases.iter().find(|(section, _)| *section == name).map(|&(_, base)| base)
        };
        let address = |double: &Double, id: SymbolId| {
            let symbol = object.symbol(id);
            let outside =
                double.symbols.iter().find(|(name, ..)| *name == symbol.name).map(|&(_, address, _)| address);
            match symbol.place {
                Place::Section(section) if symbol.binding != Binding::Weak => {
                    base(section).unwrap() + symbol.value
                }
                _ => outside.unwrap(),
            }
        };
        let mut linked = Vec::new();
        for id in object.section_ids() {
            let section = object.section(id);
            let Some(start) = base(id) else { continue };
            if section.kind == elf::SHT_NOBITS {
                self.zeros.push(start..start + section.size);
                continue;
            }
            let mut bytes = section.data.clone();
            for relocation in &section.relocations {
                let target = address(self, relocation.symbol).wrapping_add_signed(relocation.addend);
                let place = if elf::is_relative(relocation.kind) { start + relocation.offset } else { 0 };
                let width = elf::width(relocation.kind).unwrap() as usize;
                let at = relocation.offset as usize;
                let value = target.wrapping_sub(place).to_le_bytes();
                bytes[at..at + width].copy_from_slice(&value[..width]);
            }
            linked.push((start, bytes));
        }
        self.memory.extend(linked);
        for id in object.symbol_ids() {
            let symbol = object.symbol(id);
            if symbol.name.starts_with('.') || symbol.name.is_empty() || symbol.binding == Binding::Weak {
                continue;
            }
            if let Place::Section(section) = symbol.place {
                let address = base(section).unwrap() + symbol.value;
                self.name(&symbol.name, address, symbol.binding != Binding::Local);
            }
        }
    }
}

impl Shipped for Double {
    fn contents(&self, address: u64, length: u64) -> Contents<'_> {
        let Some(end) = address.checked_add(length) else { return Contents::Nowhere };
        for (start, bytes) in &self.memory {
            if *start <= address && end <= start + bytes.len() as u64 {
                let from = (address - start) as usize;
                return Contents::Held(&bytes[from..from + length as usize]);
            }
        }
        let is_zero = self.zeros.iter().any(|range| range.start <= address && end <= range.end);
        if is_zero { Contents::Zeros } else { Contents::Nowhere }
    }

    fn target(&self, place: u64, relocation: &Relocation) -> Option<u64> {
        match self.contents(place, elf::width(relocation.kind)?) {
            // The double lives in the low 4 GiB, where 32 bits tell all of an address.
            Contents::Held(held) => Some(linked_target(held, place, relocation) & 0xffff_ffff),
            Contents::Zeros | Contents::Nowhere => None,
        }
    }

    fn has_relocation(&self, _: Range<u64>) -> Option<u64> {
        None
    }

    fn named(&self, name: &str) -> Vec<Named> {
        let named = self.symbols.iter().filter(|(other, ..)| other == name);
        named.map(|&(_, address, global)| Named { address, global }).collect()
    }

    fn names_at(&self, address: u64) -> Vec<&str> {
        let here = self.symbols.iter().filter(|&&(_, other, _)| other == address);
        here.map(|(name, ..)| name.as_str()).collect()
    }

    fn nearest(&self, address: u64) -> Option<(&str, u64)> {
        let before = self.symbols.iter().filter(|&&(_, other, _)| other <= address);
        before.max_by_key(|&&(_, other, _)| other).map(|(name, other, _)| (name.as_str(), address - other))
    }

    fn gathered(&self, section: &str) -> Option<Range<u64>> {
        self.tables.iter().find(|(name, _)| name == section).map(|(_, range)| range.clone())
    }

    fn shown(&self, address: u64) -> u64 {
        address
    }

    fn located(&self, address: u64, name: &str) -> Located {
        let mut named = self.named(name);
        named.sort_by_key(|named| named.address);
        let position = named.iter().position(|named| named.address == address);
        let kernel = position.map(|position| KernelName {
            name: name.into(),
            position: Position { position: position as u32 + 1, count: named.len() as u32 },
        });
        Located { address, section: None, object: Some("vmlinux".into()), kernel }
    }
}

const ALLOC: u64 = elf::SHF_ALLOC;
const CODE: u64 = elf::SHF_ALLOC | elf::SHF_EXECINSTR;
const DATA: u64 = elf::SHF_ALLOC | elf::SHF_WRITE;
const TEXTS: u64 = elf::SHF_ALLOC | elf::SHF_MERGE | elf::SHF_STRINGS;

/// The code of [`unit`]: the static `alpha`, which has a jump label, and the weak `hook`.
#[rustfmt::skip]
const TEXT: [u8; 64] = [
    0xe8, 0, 0, 0, 0,                      //  0 alpha: call __fentry__
    0x48, 0x8d, 0x3d, 0, 0, 0, 0,          //  5 lea .LC0(%rip),%rdi
    0xe8, 0, 0, 0, 0,                      // 12 call _printk
    0xeb, 0x05,                            // 17 jmp 24, a jump label of `key`
    0xff, 0x05, 0, 0, 0, 0,                // 19 incl counter(%rip)
    0x48, 0x8b, 0x04, 0xc5, 0, 0, 0, 0,    // 25 mov table(,%rax,8),%rax
    0xe8, 0, 0, 0, 0,                      // 33 call hook
    0xc3,                                  // 38 ret
    0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
    0x31, 0xc0, 0xc3,                      // 48 hook: xor %eax,%eax; ret
    0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
];
/// Offset of the jump label in [`TEXT`].
pub(crate) const LABEL: u64 = 17;

fn section(name: &str, flags: u64, data: &[u8], relocations: Vec<Relocation>) -> Section {
    Section {
        flags,
        entsize: u64::from(flags == TEXTS),
        relocations,
        ..Section::allocated(name, 0, 1, data.to_vec())
    }
}

pub(crate) fn symbol(name: &str, section: u32, value: u64, size: u64, kind: SymbolKind) -> Symbol {
    let place = Place::Section(SectionId(section));
    Symbol { name: name.into(), value, size, binding: Binding::Local, kind, other: 0, place }
}

/// A unit with every kind of reference that the kernel's units have.
pub(crate) fn unit() -> Object {
    let mut object = Object::new();
    let sections = [".text", ".rodata", ".rodata.str1.1", ".data", ".bss", "__jump_table"];
    for (number, _) in sections.iter().enumerate() {
        object.add_symbol(symbol("", number as u32, 0, 0, SymbolKind::Section));
    }
    let [text, rodata, _, data, ..] = [1, 2, 3, 4, 5, 6].map(SymbolId);
    let text_label = object.add_symbol(symbol(".LC0", 2, 0, 0, SymbolKind::None));
    object.add_symbol(symbol("alpha", 0, 0, 39, SymbolKind::Function));
    object.add_symbol(symbol("table", 1, 0, 16, SymbolKind::Object));
    object.add_symbol(symbol("counter", 3, 8, 4, SymbolKind::Object));
    object.add_symbol(symbol("key", 3, 16, 16, SymbolKind::Object));
    object.add_symbol(symbol("buffer", 4, 32, 8, SymbolKind::Object));
    let fentry = object.add_symbol(Symbol::undefined("__fentry__"));
    let printk = object.add_symbol(Symbol::undefined("_printk"));
    let weak = Symbol { binding: Binding::Weak, ..symbol("hook", 0, 48, 3, SymbolKind::Function) };
    let hook = object.add_symbol(weak);
    let one = |offset, kind, symbol, addend| Relocation { offset, kind, symbol, addend };
    let code = vec![
        one(1, elf::R_X86_64_PLT32, fentry, -4),
        one(8, elf::R_X86_64_PC32, text_label, -4),
        one(13, elf::R_X86_64_PLT32, printk, -4),
        one(21, elf::R_X86_64_PC32, data, 8 - 4),
        one(29, elf::R_X86_64_32S, rodata, 0),
        one(34, elf::R_X86_64_PLT32, hook, -4),
    ];
    let pointers = vec![one(0, elf::R_X86_64_64, text, 0), one(8, elf::R_X86_64_64, SymbolId(5), 32)];
    let jumps = vec![
        one(0, elf::R_X86_64_PC32, text, LABEL as i64),
        one(4, elf::R_X86_64_PC32, text, 24),
        one(8, elf::R_X86_64_PC64, data, 16 + 2),
    ];
    let mut initial = [0; 32];
    initial[8] = 5;
    object.add_section(section(".text", CODE, &TEXT, code));
    object.add_section(section(".rodata", ALLOC, &[0; 16], pointers));
    object.add_section(section(".rodata.str1.1", TEXTS, b"hello %d\n\0bye\0", Vec::new()));
    object.add_section(section(".data", DATA, &initial, Vec::new()));
    object.add_section(Section { kind: elf::SHT_NOBITS, size: 64, ..section(".bss", DATA, &[], Vec::new()) });
    object.add_section(section("__jump_table", DATA, &[0; 16], jumps));
    object
}

/// The kernel that [`unit`] is linked into: it overrides `hook`, and has another `alpha`.
pub(crate) fn kernel() -> Double {
    let mut double = Double::default();
    double.name("alpha", 0x8100_0010, false);
    double.name("__fentry__", FENTRY, true);
    double.name("_printk", PRINTK, true);
    double.name("hook", HOOK, true);
    double.memory.push((0x8100_0000, vec![0x90; 0x400]));
    double.tables.push(("__jump_table".into(), 0x8200_c010..0x8200_c020));
    double.link(&unit(), &BASES);
    double
}
