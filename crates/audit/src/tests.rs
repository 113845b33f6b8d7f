//! What holds without a kernel: reading, pairing, comparing.

use crate::code::{Code, Target};
use crate::elf::Elf;
use crate::pair;
use crate::same::Comparison;
use crate::side::Side;
use crate::tables;
use kmend_object::{
    Binding, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId, SymbolKind, elf,
};
use std::collections::BTreeSet;

/// An object with one section of code and one of writable data.
struct Builder {
    object: Object,
    code: SectionId,
    data: SectionId,
}

impl Builder {
    fn new(code: &[u8], data: &[u8]) -> Builder {
        let mut object = Object::new();
        let executable = elf::SHF_EXECINSTR;
        let code = object.add_section(Section::allocated(".text", executable, 16, code.to_vec()));
        let data = object.add_section(Section::allocated(".data", elf::SHF_WRITE, 8, data.to_vec()));
        Builder { object, code, data }
    }

    fn define(
        &mut self,
        name: &str,
        kind: SymbolKind,
        section: SectionId,
        value: u64,
        size: u64,
    ) -> SymbolId {
        self.object.add_symbol(Symbol {
            name: name.into(),
            kind,
            value,
            size,
            binding: Binding::Local,
            place: Place::Section(section),
            ..Symbol::null()
        })
    }

    fn refer(&mut self, section: SectionId, offset: u64, kind: u32, symbol: SymbolId, addend: i64) {
        let relocation = Relocation { offset, kind, symbol, addend };
        self.object.sections[section.index()].relocations.push(relocation);
    }

    fn side(&self) -> Side {
        Side::parse(&self.object.write().unwrap()).unwrap()
    }
}

/// `add $1,NAME(%rip)` for each of two variables, and `ret`.
fn two_counters(names: [&str; 2], order: [usize; 2]) -> Side {
    let add = [0x83, 0x05, 0, 0, 0, 0, 1];
    let code = [&add[..], &add, &[0xc3]].concat();
    let mut built = Builder::new(&code, &[0; 8]);
    built.define("f", SymbolKind::Function, built.code, 0, code.len() as u64);
    let variables = [0, 1]
        .map(|number| built.define(names[number], SymbolKind::Object, built.data, number as u64 * 4, 4));
    for (place, number) in order.into_iter().enumerate() {
        built.refer(built.code, place as u64 * 7 + 2, elf::R_X86_64_PC32, variables[number], -5);
    }
    built.side()
}

#[test]
fn nothing_that_is_read_panics() {
    let side = two_counters(["a.1", "b.2"], [0, 1]);
    let mut built = Builder::new(&[0xeb, 0, 0xe8, 0, 0, 0, 0], &[0; 16]);
    let f = built.define("f", SymbolKind::Function, built.code, 0, 7);
    built.refer(built.code, 3, elf::R_X86_64_PLT32, f, -4);
    built.refer(built.data, 8, elf::R_X86_64_64, f, 2);
    let bytes = built.object.write().unwrap();
    for length in 0..bytes.len() {
        let _ = Elf::parse(bytes[..length].to_vec());
    }
    for at in 0..bytes.len() {
        for with in [0x00, 0x01, 0x7f, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] = with;
            let Ok(other) = Side::parse(&damaged) else { continue };
            let pairs = pair::pair(&side, &other);
            let _ = Comparison::new(&side, &other, &pairs, BTreeSet::new()).changed_functions();
            let _ = tables::read(&other);
            for symbol in other.data() {
                other.extent(symbol).map(|(section, range)| other.references(section, &range).len());
            }
        }
    }
}

#[test]
fn a_short_branch_and_a_long_one_are_alike() {
    // jmp to the ret, in both forms, and one that the linker resolves.
    let short = Builder::new(&[0xeb, 1, 0x90, 0xc3], &[]);
    let long = Builder::new(&[0xe9, 1, 0, 0, 0, 0x90, 0xc3], &[]);
    let mut linked = Builder::new(&[0xe9, 0, 0, 0, 0, 0x90, 0xc3], &[]);
    let f = linked.define("f", SymbolKind::Function, linked.code, 0, 7);
    linked.refer(linked.code, 1, elf::R_X86_64_PLT32, f, 6 - 4);
    let read = |built: &Builder, end: u64| {
        let side = built.side();
        Code::read(&side.elf, side.elf.section_named(".text").unwrap(), 0..end).unwrap()
    };
    let codes = [read(&short, 4), read(&long, 7), read(&linked, 7)];
    for code in &codes {
        assert!(code.insns[0].is_alike(&codes[0].insns[0]));
        let Target::Inside(_, offset) = code.insns[0].references[0].target else { panic!() };
        assert_eq!(code.index_at(offset), Some(2));
    }
    assert!(!codes[0].insns[0].is_alike(&codes[0].insns[1]));
}

#[test]
fn renumbered_variables_are_told_apart_by_who_uses_them() {
    let original = two_counters(["n.1", "n.2"], [0, 1]);
    // The compiler numbered them the other way round.
    let patched = two_counters(["n.2", "n.1"], [0, 1]);
    let pairs = pair::pair(&original, &patched);
    assert_eq!((pairs.original("n.2"), pairs.original("n.1")), (Some("n.1"), Some("n.2")));
    assert_eq!(Comparison::new(&original, &patched, &pairs, BTreeSet::new()).changed_functions(), []);
}

#[test]
fn another_variable_is_a_change() {
    let original = two_counters(["a", "b"], [0, 1]);
    let patched = two_counters(["a", "b"], [1, 0]);
    let pairs = pair::pair(&original, &patched);
    let changes = Comparison::new(&original, &patched, &pairs, BTreeSet::new()).changed_functions();
    assert_eq!(changes.iter().map(|change| change.at).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_table_without_one_of_its_references_is_broken() {
    for (count, is_broken) in [(6, false), (5, true)] {
        let mut built = Builder::new(&[0x90; 8], &[]);
        let f = built.define("f", SymbolKind::Function, built.code, 0, 8);
        let table =
            built.object.add_section(Section::allocated("__jump_table", elf::SHF_WRITE, 8, vec![0; 32]));
        let places = [(0, elf::R_X86_64_PC32), (4, elf::R_X86_64_PC32), (8, elf::R_X86_64_PC64)];
        for number in (0..count).rev() {
            let (at, kind) = places[number % 3];
            built.refer(table, number as u64 / 3 * 16 + at, kind, f, 0);
        }
        let (entries, broken) = tables::read(&built.side());
        assert_eq!((entries.len(), broken.is_empty()), (if is_broken { 1 } else { 2 }, !is_broken));
    }
}
