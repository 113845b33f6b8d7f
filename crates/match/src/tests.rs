//! A unit against a kernel made by hand.

use crate::double::{self, BASES, Double, HOOK, LABEL, PRINTK};
use crate::shipped::Shipped;
use crate::{MatchError, Matched, Outcome, match_shipped};
use kmend_kernel::Position;
use kmend_object::{Object, Relocation, SymbolId, SymbolKind, elf};
use kmend_refusal::{Code, Coded};

fn matched(object: &Object, kernel: &Double) -> Matched {
    match_shipped(object, kernel).unwrap()
}

fn base(section: &str) -> u64 {
    BASES.iter().find(|(name, _)| *name == section).unwrap().1
}

/// The first refusal in words, with its details.
fn complaint(matched: &Matched) -> (Code, String, Vec<String>) {
    let refusal = matched.refusals("mm/frob.c").into_iter().next().unwrap();
    (refusal.code, refusal.why, refusal.details)
}

#[test]
fn what_was_compiled_is_found_with_every_symbol() {
    let matched = matched(&double::unit(), &double::kernel());
    let outcomes: Vec<_> =
        matched.functions.iter().map(|function| (function.name.as_str(), &function.outcome)).collect();
    assert_eq!(outcomes, [("alpha", &Outcome::Equal), ("hook", &Outcome::Overridden)]);
    assert!(matched.is_proven());
    let alpha = matched.locate("alpha").unwrap();
    assert_eq!(alpha.address, base(".text"));
    assert_eq!(alpha.kernel.as_ref().unwrap().position, Position { position: 2, count: 2 });
    // The key is reached through the jump table only, the buffer through .rodata only.
    for (name, address) in [
        ("counter", base(".data") + 8),
        ("key", base(".data") + 16),
        ("table", base(".rodata")),
        ("buffer", base(".bss") + 32),
        ("_printk", PRINTK),
        ("hook", HOOK),
    ] {
        assert_eq!(matched.locate(name).unwrap().address, address, "{name}");
    }
    assert!(matched.sections.iter().all(|section| section.address.is_some()));
}

#[test]
fn a_jump_label_may_be_a_nop_and_nothing_else() {
    let mut kernel = double::kernel();
    *kernel.byte(base(".text") + LABEL) = 0x66;
    *kernel.byte(base(".text") + LABEL + 1) = 0x90;
    assert!(matched(&double::unit(), &kernel).is_proven());
    *kernel.byte(base(".text") + LABEL) = 0x90;
    let (code, why, details) = complaint(&matched(&double::unit(), &kernel));
    assert_eq!((code, why.as_str()), (Code::ImageDiffers, "at offset 0x11: another instruction"));
    assert_eq!(details, ["compiled: jmp alpha+0x18", "image:    nop"]);
}

#[test]
fn a_nop_where_no_table_says_so_differs() {
    let mut kernel = double::kernel();
    let mut object = double::unit();
    let table = object.section_named("__jump_table").unwrap();
    for relocation in &mut object.sections[table.index()].relocations {
        // Without the bit, objtool leaves the jump alone.
        relocation.addend -= if relocation.offset == 8 { 2 } else { 0 };
    }
    *kernel.byte(base(".text") + LABEL) = 0x66;
    *kernel.byte(base(".text") + LABEL + 1) = 0x90;
    assert!(!matched(&object, &kernel).is_proven());
}

/// Wrong "equal" is the one error that must not happen.
#[test]
fn every_changed_bit_is_found() {
    let (object, kernel) = (double::unit(), double::kernel());
    let mut tried = 0;
    for (name, start) in BASES {
        let section = object.section(object.section_named(name).unwrap());
        for offset in 0..section.data.len() as u64 {
            // Of the texts, only the one that the code refers to.
            if section.is_strings() && offset >= 10 {
                continue;
            }
            for bit in 0..8 {
                let mut changed = kernel.clone();
                *changed.byte(start + offset) ^= 1 << bit;
                let is_proven = match_shipped(&object, &changed).is_ok_and(|matched| {
                    // The table itself is only found while what it refers to is right.
                    matched.is_proven() && matched.sections.iter().all(|section| section.address.is_some())
                });
                // Nothing in a 64-bit hole's upper half is seen by a double that lives below 4 GiB.
                let unseen = matches!(name, ".rodata" if offset % 8 >= 4)
                    || matches!(name, "__jump_table" if offset >= 12);
                assert!(!is_proven || unseen, "{name}+{offset:#x} bit {bit}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 8 * (64 + 16 + 10 + 32 + 16));
}

#[test]
fn another_text_is_shown_with_both() {
    let mut kernel = double::kernel();
    *kernel.byte(base(".rodata.str1.1")) = b'j';
    let (_, why, details) = complaint(&matched(&double::unit(), &kernel));
    assert_eq!(why, r#"at offset 0x5: refers to "jello %d\n" and not to "hello %d\n""#);
    assert_eq!(details[0], r#"compiled: lea (%rip),%rdi  # "hello %d\n""#);
}

#[test]
fn another_callee_is_shown_with_both() {
    let mut kernel = double::kernel();
    let call = base(".text") + 12;
    let wrong = (double::FENTRY as u32).wrapping_sub(call as u32 + 5).to_le_bytes();
    for (number, byte) in wrong.into_iter().enumerate() {
        *kernel.byte(call + 1 + number as u64) = byte;
    }
    let (_, why, details) = complaint(&matched(&double::unit(), &kernel));
    assert_eq!(why, "at offset 0xc: refers to __fentry__ and not to _printk");
    assert_eq!(details, ["compiled: call _printk", "image:    call __fentry__"]);
}

/// The only reference to .data leads to another member: without the names, the section would just seem to be
/// elsewhere.
#[test]
fn a_single_reference_does_not_move_a_section() {
    let mut object = double::unit();
    object.sections[3].kind = elf::SHT_NOBITS;
    object.sections[3].data.clear();
    object.sections[5].relocations.clear();
    object.sections[0].relocations[3].addend += 4;
    let matched = matched(&object, &double::kernel());
    let alpha = matched.function("alpha").unwrap();
    let Outcome::Differs(difference) = &alpha.outcome else { panic!("{:?}", alpha.outcome) };
    assert_eq!((difference.offset, difference.compiled.as_str()), (19, "incl (%rip)  # counter+0x4"));
    assert_eq!(matched.locate("counter").unwrap().address, base(".data") + 8);
}

#[test]
fn a_symbol_of_the_right_name_elsewhere_is_no_match() {
    let mut kernel = double::kernel();
    for (name, address, _) in &mut kernel.symbols {
        if name == "counter" {
            *address += 4;
        }
    }
    let matched = matched(&double::unit(), &kernel);
    assert!(!matched.is_proven());
}

#[test]
fn of_two_places_the_one_that_fits_is_taken() {
    let mut kernel = double::kernel();
    // The other `alpha` is 0x3f0 bytes before; its surroundings are nops.
    assert_eq!(kernel.named("alpha").len(), 2);
    kernel.symbols.retain(|(name, ..)| name != "hook");
    kernel.name("hook", HOOK, true);
    assert_eq!(matched(&double::unit(), &kernel).locate("alpha").unwrap().address, base(".text"));
}

#[test]
fn what_fits_at_two_places_is_equal_but_not_located() {
    let mut object = Object::new();
    object.add_section(double::unit().sections[0].clone());
    object.sections[0].relocations.clear();
    object.add_symbol(double::symbol("same", 0, 0, 64, SymbolKind::Function));
    let mut kernel = Double::default();
    kernel.link(&object, &[(".text", 0x8100_0000)]);
    kernel.link(&object, &[(".text", 0x8100_1000)]);
    let matched = matched(&object, &kernel);
    assert_eq!(matched.function("same").unwrap().outcome, Outcome::Ambiguous { places: 2 });
    assert!(matched.locate("same").is_none());
    assert!(matched.refusals("mm/frob.c").is_empty());
}

#[test]
fn a_unit_of_another_kernel_is_an_error() {
    let error = match_shipped(&double::unit(), &Double::default()).unwrap_err();
    assert!(matches!(error, MatchError::Absent));
    assert_eq!(error.code(), Code::NotInImage);
}

#[test]
fn many_differences_are_counted_and_not_all_shown() {
    let mut object = Object::new();
    let text = double::unit().sections[0].clone();
    object.add_section(kmend_object::Section { relocations: Vec::new(), ..text });
    for number in 0..8 {
        object.add_symbol(double::symbol(&format!("f{number}"), 0, number * 8, 8, SymbolKind::Function));
    }
    let mut kernel = Double::default();
    kernel.link(&object, &[(".text", 0x8100_0000)]);
    kernel.memory[0].1.fill(0xcc);
    let refusals = matched(&object, &kernel).refusals("mm/frob.c");
    assert_eq!(refusals.len(), 3);
    assert_eq!(refusals[2].details[2], "5 more of the unit's 8 functions do not match");
}

#[test]
fn two_symbols_of_one_name_in_a_unit_are_not_certain() {
    let mut object = double::unit();
    object.add_symbol(double::symbol("counter", 3, 16, 4, SymbolKind::Object));
    assert!(matched(&object, &double::kernel()).locate("counter").is_none());
}

/// Objects that lie about themselves give an error or differences, never a panic.
#[test]
fn odd_objects_do_no_harm() {
    let kernel = double::kernel();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let odd = [0, 1, 7, 63, 64, 65, 1 << 31, 1 << 32, u64::MAX / 2, u64::MAX - 3, u64::MAX];
    let mut ended = 0;
    for _ in 0..4000 {
        let mut object = double::unit();
        for _ in 0..=random(3) {
            let value = odd[random(odd.len() as u64) as usize];
            let section = random(object.sections.len() as u64) as usize;
            let symbol = random(object.symbols.len() as u64) as usize;
            match random(8) {
                0 => object.symbols[symbol].value = value,
                1 => object.symbols[symbol].size = value,
                2 => object.sections[section].size = value,
                3 => object.sections[section].align = value,
                4 => object.sections[section].entsize = value,
                5 => object.sections[section].flags = random(64),
                6 => object.sections[section].data.truncate(random(8) as usize),
                _ => object.sections[section].relocations.push(Relocation {
                    offset: value,
                    kind: random(48) as u32,
                    symbol: SymbolId(symbol as u32),
                    addend: odd[random(odd.len() as u64) as usize] as i64,
                }),
            }
        }
        ended += usize::from(match_shipped(&object, &kernel).is_ok_and(|matched| matched.is_proven()));
    }
    assert!(ended < 4000);
}
