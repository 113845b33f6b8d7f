use super::*;
use kmend_kernel::Listing;
use kmend_object::{Binding, Object, Place, Relocation as Written, Section, Symbol, SymbolKind, elf};
use std::collections::HashMap;

/// Where the module's code and constants are, and the kernel's function.
const CODE: u64 = 0xffff_ffff_c000_0000;
const CONSTANTS: u64 = CODE + 0x1000;
const CALLED: u64 = 0xffff_ffff_8100_0000;

/// Memory by the begins of its pieces.
struct Pieces(Vec<(u64, Vec<u8>)>);

impl Memory for Pieces {
    fn read(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        self.0.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(address.checked_sub(*start)?).ok()?;
            bytes.get(from..from.checked_add(length)?).map(<[u8]>::to_vec)
        })
    }
}

/// A function that calls one of the kernel, and a constant with the function's address.
fn module() -> Vec<u8> {
    let mut object = Object::new();
    let code = vec![0xe8, 0, 0, 0, 0, 0x31, 0xc0, 0xc3];
    let code = object.add_section(Section::allocated(".text", elf::SHF_EXECINSTR, 16, code));
    let constants = object.add_section(Section::allocated(".rodata", 0, 8, vec![0; 8]));
    let own = object.add_symbol(Symbol {
        name: "own".into(),
        kind: SymbolKind::Function,
        size: 8,
        binding: Binding::Local,
        place: Place::Section(code),
        ..Symbol::null()
    });
    let called = object.add_symbol(Symbol {
        name: "called".into(),
        binding: Binding::Global,
        place: Place::Undefined,
        ..Symbol::null()
    });
    let call = Written { offset: 1, kind: elf::R_X86_64_PLT32, symbol: called, addend: -4 };
    object.sections[code.index()].relocations.push(call);
    let address = Written { offset: 0, kind: elf::R_X86_64_64, symbol: own, addend: 5 };
    object.sections[constants.index()].relocations.push(address);
    object.write().unwrap()
}

/// The code and the constants as the kernel's loader leaves them.
fn loaded() -> [Vec<u8>; 2] {
    let by = (CALLED.wrapping_sub(CODE + 5) as u32).to_le_bytes();
    let code = [&[0xe8], &by[..], &[0x31, 0xc0, 0xc3]].concat();
    [code, (CODE + 5).to_le_bytes().to_vec()]
}

fn compare([code, constants]: [Vec<u8>; 2], kallsyms: &str) -> Running {
    let sections = HashMap::from([(".text".to_owned(), CODE), (".rodata".to_owned(), CONSTANTS)]);
    let memory = Pieces(vec![(CODE, code), (CONSTANTS, constants)]);
    running(&module(), &Machine::new(sections, Listing::parse(kallsyms).unwrap(), None, Box::new(memory)))
        .unwrap()
}

fn kallsyms() -> String {
    format!("{:x} t called\n{CALLED:x} T called\n", CALLED + 64)
}

#[test]
fn memory_as_the_loader_leaves_it_is_right() {
    let running = compare(loaded(), &kallsyms());
    assert_eq!(running.refusals, []);
    assert_eq!((running.words, running.bytes, running.left), (2, 4, 0));
}

#[test]
fn every_byte_that_is_another_is_found() {
    for (piece, length) in [(0, 8), (1, 8)] {
        for at in 0..length {
            let mut memory = loaded();
            memory[piece][at] ^= 0x10;
            assert_eq!(compare(memory, &kallsyms()).refusals.len(), 1, "byte {at} of {piece}");
        }
    }
}

#[test]
fn a_call_of_another_function_is_found() {
    let elsewhere = format!("{:x} T called\n", CALLED + 64);
    let refusals = compare(loaded(), &elsewhere).refusals;
    assert_eq!(refusals.len(), 1);
    assert!(refusals[0].to_string().contains("KM0518"), "{}", refusals[0]);
}

#[test]
fn memory_that_cannot_be_read_is_a_finding() {
    assert_eq!(compare([vec![], vec![]], &kallsyms()).refusals.len(), 2);
}

#[test]
fn positions_count_as_the_kernel_counts_them() {
    let text = "10 t f\n20 t f\n30 t f\t[m]\n40 T g\n";
    let listing = Listing::parse(text).unwrap();
    let machine = Machine::new(HashMap::new(), listing, None, Box::new(Pieces(vec![])));
    assert_eq!(machine.livepatch_symbol(".klp.sym.vmlinux.f,2"), Resolved::Place(0x20));
    assert_eq!(machine.livepatch_symbol(".klp.sym.vmlinux.f,0"), Resolved::Nothing);
    assert_eq!(machine.livepatch_symbol(".klp.sym.vmlinux.f,3"), Resolved::Nothing);
    assert_eq!(machine.livepatch_symbol(".klp.sym.m.f,0"), Resolved::Place(0x30));
    assert_eq!(machine.livepatch_symbol(".klp.sym.other.f,0"), Resolved::NotLoaded);
    assert_eq!((machine.export("g"), machine.export("f")), (Some(0x40), None));
}
