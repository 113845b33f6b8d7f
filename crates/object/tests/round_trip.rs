//! What is written reads back the same, and what is damaged is refused.

use kmend_object::{
    Binding, Group, LivepatchRelocations, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId,
    SymbolKind, elf,
};

fn code_section(name: &str, data: Vec<u8>) -> Section {
    Section::allocated(name, elf::SHF_EXECINSTR, 16, data)
}

fn function(name: &str, section: SectionId, binding: Binding) -> Symbol {
    Symbol {
        name: name.into(),
        size: 8,
        binding,
        kind: SymbolKind::Function,
        place: Place::Section(section),
        ..Symbol::null()
    }
}

/// One of everything: relocations of both kinds, NOBITS, a group, special places.
fn sample() -> Object {
    let mut object = Object::new();
    let text = object.add_section(code_section(".text.one", vec![0x90; 32]));
    let bss = object.add_section(Section {
        name: ".bss.x".into(),
        kind: elf::SHT_NOBITS,
        flags: elf::SHF_ALLOC | elf::SHF_WRITE,
        align: 8,
        size: 4096,
        ..Section::default()
    });
    let local = object.add_symbol(function("one", text, Binding::Local));
    object.add_symbol(Symbol {
        place: Place::Section(bss),
        kind: SymbolKind::Object,
        ..function("x", bss, Binding::Local)
    });
    let printk = object.add_symbol(Symbol::undefined("_printk"));
    let live =
        object.add_symbol(Symbol { place: Place::Livepatch, ..Symbol::undefined(".klp.sym.vmlinux.two,2") });
    let text_section = &mut object.sections[text.index()];
    text_section.relocations.push(Relocation {
        offset: 1,
        kind: elf::R_X86_64_PLT32,
        symbol: printk,
        addend: -4,
    });
    text_section.relocations.push(Relocation {
        offset: 9,
        kind: elf::R_X86_64_PC32,
        symbol: local,
        addend: 3,
    });
    text_section.livepatch.push(LivepatchRelocations {
        object: "vmlinux".into(),
        relocations: vec![Relocation { offset: 20, kind: elf::R_X86_64_64, symbol: live, addend: 0 }],
    });
    object.groups.push(Group { signature: local, flags: 1, members: vec![text] });
    object
}

#[test]
fn a_written_object_reads_back_equal() {
    let object = sample();
    let bytes = object.write().unwrap();
    assert_eq!(Object::parse(&bytes).unwrap(), object);
    assert_eq!(object.write().unwrap(), bytes, "equal objects give equal bytes");
}

#[test]
fn locals_move_before_globals_and_references_follow() {
    let mut object = sample();
    let text = SectionId(0);
    let late = object.add_symbol(function("late_local", text, Binding::Local));
    object.sections[0].relocations.push(Relocation {
        offset: 28,
        kind: elf::R_X86_64_32,
        symbol: late,
        addend: 1,
    });
    let back = Object::parse(&object.write().unwrap()).unwrap();
    let last = back.sections[0].relocations.last().unwrap();
    assert_eq!(back.symbol(last.symbol).name, "late_local");
    let first_global = back.symbols.iter().position(|symbol| symbol.binding != Binding::Local).unwrap();
    assert!(back.symbols[first_global..].iter().all(|symbol| symbol.binding != Binding::Local));
}

#[test]
fn an_object_with_more_sections_than_the_short_index_holds_is_refused_on_writing() {
    let mut object = Object::new();
    for _ in 0..0xff00 {
        object.add_section(code_section(".text.f", Vec::new()));
    }
    assert!(object.write().is_err());
}

#[test]
fn another_machine_is_told_apart() {
    let mut bytes = sample().write().unwrap();
    bytes[18] = 183; // EM_AARCH64
    let error = Object::parse(&bytes).unwrap_err();
    assert_eq!(kmend_refusal::Coded::code(&error), kmend_refusal::Code::Architecture);
}

#[test]
fn overlapping_sections_are_refused() {
    let good = sample().write().unwrap();
    let headers = u64::from_le_bytes(good[0x28..0x30].try_into().unwrap()) as usize;
    let mut bytes = good.clone();
    // Every section now says that it holds the whole file.
    let count = u16::from_le_bytes(good[0x3c..0x3e].try_into().unwrap()) as usize;
    for index in 1..count {
        let header = headers + index * 64;
        bytes[header + 24..header + 32].copy_from_slice(&0u64.to_le_bytes());
        bytes[header + 32..header + 40].copy_from_slice(&(good.len() as u64).to_le_bytes());
    }
    assert!(Object::parse(&bytes).is_err());
}

#[test]
fn no_damage_panics() {
    let good = sample().write().unwrap();
    for length in 0..good.len() {
        let _ = Object::parse(&good[..length]);
    }
    let rounds = std::env::var("KMEND_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for _ in 0..rounds {
        let mut bytes = good.clone();
        for _ in 0..=next(4) {
            let at = next(bytes.len());
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, next(256) as u8][next(6)];
        }
        if let Ok(object) = Object::parse(&bytes) {
            // What was accepted is safe to walk and to write.
            for section in &object.sections {
                for relocation in &section.relocations {
                    let _ = object.symbol(relocation.symbol).section().map(|id| object.section(id));
                }
            }
            let _ = object.write();
        }
    }
    assert!(Object::parse(&good).is_ok());
    assert_eq!(SymbolId::NULL.index(), 0);
}
