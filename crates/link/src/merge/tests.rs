use crate::double::{Kernel, Matched, Unit, input, location};
use crate::plan::VMLINUX;
use crate::{Linked, link};
use kmend_object::{Binding, Object, Relocation, SymbolKind, elf};
use kmend_refusal::Code;

/// `SYMBOL+ADDEND` of a section's relocations.
fn targets(object: &Object, section: &str) -> Vec<String> {
    let section = object.section(object.section_named(section).unwrap());
    let shown = |relocation: &Relocation| {
        let symbol = object.symbol(relocation.symbol);
        let name = match symbol.section() {
            Some(home) if symbol.kind == SymbolKind::Section => &object.section(home).name,
            _ => &symbol.name,
        };
        format!("{:#x}: {name}{:+}", relocation.offset, relocation.addend)
    };
    section.relocations.iter().map(shown).collect()
}

fn codes(result: Result<Linked, Vec<kmend_refusal::Refusal>>) -> Vec<Code> {
    result.err().unwrap().iter().map(|refusal| refusal.code).collect()
}

#[test]
fn tables_are_joined_and_functions_are_not() {
    let kernel = Kernel::default();
    let unit = || {
        let mut unit = Unit::new();
        let function = unit.function("show", Some("show"), Binding::Local);
        let strings = unit.section(".rodata.str", 0, b"12345\0");
        let strings = unit.define("", SymbolKind::Section, Binding::Local, strings);
        let code = unit.section_of(function);
        unit.relocate(code, 4, strings, 2);
        let table = unit.section("__bug_table", elf::SHF_WRITE, &[0; 12]);
        unit.relocate(table, 0, function, 7);
        unit
    };
    let (first, second) = (unit(), unit());
    let here = Matched::default().at("show", location(VMLINUX, "show", 1, 2));
    let there = Matched::default().at("show", location(VMLINUX, "show", 2, 2));
    let units = [first.input("a.c", VMLINUX, &here), second.input("b.c", VMLINUX, &there)];
    let linked = link(&input(&units, &kernel)).unwrap();
    let object = &linked.object;
    let names: Vec<_> = object.sections.iter().map(|section| section.name.as_str()).collect();
    assert_eq!(names, [".text.show", ".rodata.str", "__bug_table", ".text.show.1"]);
    // The second unit's string begins at the next multiple of the alignment.
    assert_eq!(object.sections[1].data, b"12345\0\0\x0012345\0");
    assert_eq!(targets(object, ".text.show"), ["0x4: .rodata.str+2"]);
    assert_eq!(targets(object, ".text.show.1"), ["0x4: .rodata.str+10"]);
    assert_eq!(targets(object, "__bug_table"), ["0x0: .text.show+7", "0xc: .text.show.1+7"]);
    let functions: Vec<_> =
        linked.functions.iter().map(|f| (f.target.sympos(), f.replacement.as_str())).collect();
    assert_eq!(functions, [(1, "show"), (2, "show.kmend1")]);
    assert_eq!(linked.renamed.get("show.kmend1").map(String::as_str), Some("show"));
}

#[test]
fn a_function_and_its_cold_part_stay_together() {
    let kernel = Kernel::default().symbol(VMLINUX, "show", &[true]);
    let mut unit = Unit::new();
    let show = unit.function("show", None, Binding::Local);
    let cold = unit.section(".text.unlikely.show", elf::SHF_EXECINSTR, &[0x90; 16]);
    unit.define("show.cold", SymbolKind::Function, Binding::Local, cold);
    let living = unit.original("show");
    let code = unit.section_of(show);
    unit.relocate(code, 4, living, -4);
    let matched = Matched::default();
    let linked = link(&input(&[unit.input("a.c", VMLINUX, &matched)], &kernel)).unwrap();
    let functions: Vec<_> =
        linked.object.symbols.iter().filter(|s| s.is_function()).map(|s| s.name.as_str()).collect();
    assert_eq!(functions, ["show.kmend1", "show.kmend1.cold"]);
    assert_eq!(targets(&linked.object, ".text.show"), ["0x4: show-4"]);
}

#[test]
fn symbols_of_one_name_at_two_places_stay_apart() {
    let kernel = Kernel::default();
    let unit = || {
        let mut unit = Unit::new();
        let function = unit.function("f", None, Binding::Local);
        let living = unit.original("counter");
        let code = unit.section_of(function);
        unit.relocate(code, 0, living, 0);
        unit
    };
    let (first, second, third) = (unit(), unit(), unit());
    let at = |position| Matched::default().at("counter", location(VMLINUX, "counter", position, 2));
    let (one, two) = (at(1), at(2));
    let units = [
        first.input("a.c", VMLINUX, &one),
        second.input("b.c", VMLINUX, &two),
        third.input("c.c", VMLINUX, &one),
    ];
    let linked = link(&input(&units, &kernel)).unwrap();
    let placeholders: Vec<_> = linked.symbols.iter().map(|symbol| symbol.placeholder.as_str()).collect();
    assert_eq!(placeholders, ["counter", "counter.kmend1"]);
    let names = [".text.f", ".text.f.1", ".text.f.2"].map(|name| targets(&linked.object, name));
    assert_eq!(names, [["0x0: counter+0"], ["0x0: counter.kmend1+0"], ["0x0: counter+0"]]);
}

#[test]
fn a_new_global_of_the_patch_is_found_inside() {
    let kernel = Kernel::default().symbol(VMLINUX, "changed", &[true]);
    let mut home = Unit::new();
    home.function("fresh", None, Binding::Global);
    home.function("changed", Some("changed"), Binding::Global);
    let mut user = Unit::new();
    let caller = user.function("caller", None, Binding::Local);
    let code = user.section_of(caller);
    for (offset, name) in [(0, "fresh"), (8, "changed")] {
        let symbol = user.external(name);
        user.relocate(code, offset, symbol, -4);
    }
    let matched = Matched::default().at("changed", location(VMLINUX, "changed", 1, 1));
    let units = [user.input("a.c", VMLINUX, &matched), home.input("b.c", VMLINUX, &matched)];
    let linked = link(&input(&units, &kernel)).unwrap();
    // The changed function is reached through the living one, as the rest of the kernel reaches it.
    assert_eq!(targets(&linked.object, ".text.caller"), ["0x0: fresh-4", "0x8: changed-4"]);
    let fresh = linked.object.symbols_named("fresh").next().unwrap();
    assert!(linked.object.symbol(fresh).is_function());
}

#[test]
fn a_new_global_of_two_units_is_refused() {
    let kernel = Kernel::default();
    let unit = || {
        let mut unit = Unit::new();
        unit.function("fresh", None, Binding::Global);
        unit
    };
    let (first, second, matched) = (unit(), unit(), Matched::default());
    let units = [first.input("a.c", VMLINUX, &matched), second.input("b.c", VMLINUX, &matched)];
    assert_eq!(codes(link(&input(&units, &kernel))), [Code::LinkFailed]);
}

#[test]
fn every_reason_is_given() {
    let kernel = Kernel::default();
    let mut unit = Unit::new();
    let function = unit.function("f", Some("f"), Binding::Global);
    let code = unit.section_of(function);
    for name in ["nowhere", "nothing"] {
        let symbol = unit.external(name);
        unit.relocate(code, 0, symbol, 0);
    }
    let matched = Matched::default();
    let refusals = link(&input(&[unit.input("mm/a.c", VMLINUX, &matched)], &kernel)).unwrap_err();
    let shown: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "KM0302 a function is not in the image: f (mm/a.c): no function of vmlinux matches the compiled \
             original",
            "KM0410 a reference that cannot be resolved safely: nothing (mm/a.c): f refers to it, but \
             vmlinux holds no symbol of this name",
            "KM0410 a reference that cannot be resolved safely: nowhere (mm/a.c): f refers to it, but \
             vmlinux holds no symbol of this name",
        ]
    );
}

#[test]
fn what_the_build_system_must_not_see_is_hidden() {
    let kernel = Kernel::default().export("of_a", "mod_a", false).symbol("mod_a", "of_a", &[true]);
    let kernel =
        kernel.symbol("mod_a", "__this_module", &[true]).symbol(VMLINUX, "clear_relocate_add", &[true]);
    let mut unit = Unit::new();
    let function = unit.function("f", None, Binding::Local);
    let code = unit.section_of(function);
    for name in ["of_a", "__this_module"] {
        let symbol = unit.external(name);
        unit.relocate(code, 0, symbol, 0);
    }
    let matched = Matched::default();
    let linked = link(&input(&[unit.input("a.c", "mod_a", &matched)], &kernel)).unwrap();
    assert_eq!(targets(&linked.object, ".text.f"), ["0x0: of_a.kmend1+0", "0x0: __this_module.kmend1+0"]);
    assert_eq!(linked.clearing, None);
    assert!(linked.warnings.is_empty());
}

#[test]
fn an_old_kernel_needs_help_to_let_a_module_come_again() {
    let kernel = Kernel::default().symbol("mod_a", "own", &[true]);
    let mut unit = Unit::new();
    let function = unit.function("f", None, Binding::Local);
    let code = unit.section_of(function);
    let own = unit.external("own");
    unit.relocate(code, 0, own, 0);
    let matched = Matched::default();
    let units = [unit.input("a.c", "mod_a", &matched)];
    let linked = link(&input(&units, &kernel)).unwrap();
    assert_eq!(linked.warnings.len(), 1, "{:?}", linked.warnings);
    let able = ["text_poke", "text_poke_sync", "text_mutex"]
        .into_iter()
        .fold(kernel, |kernel, name| kernel.symbol(VMLINUX, name, &[true]));
    let linked = link(&input(&units, &able)).unwrap();
    assert_eq!(linked.clearing, Some(["text_poke", "text_poke_sync", "text_mutex"].map(str::to_owned)));
}

#[test]
fn a_function_that_does_not_return_is_one_that_objtool_can_see() {
    let kernel = Kernel::default().symbol(VMLINUX, "die", &[true]).export("panic", VMLINUX, false);
    let mut unit = Unit::new();
    let function = unit.function("f", None, Binding::Local);
    let code = unit.section_of(function);
    for (offset, name) in [(1, "die"), (6, "panic")] {
        let called = unit.external(name);
        unit.delta.extract.ends.insert(called);
        unit.relocate(code, offset, called, -4);
    }
    // Elsewhere its address is taken, which is another symbol.
    let address = unit.external("die");
    unit.relocate(code, 12, address, 0);
    let matched = Matched::default();
    let linked = link(&input(&[unit.input("a.c", VMLINUX, &matched)], &kernel)).unwrap();
    let object = &linked.object;
    assert_eq!(targets(object, ".text.f"), ["0x1: die-4", "0x6: panic-4", "0xc: die.kmend1+0"]);
    let die = object.symbol(object.symbols_named("die").next().unwrap());
    let home = object.section(die.section().unwrap());
    assert_eq!(
        (die.is_function(), &home.bytes(die.value, die.size).unwrap()[..2]),
        (true, &[0x0f, 0x0b][..])
    );
    let ends: Vec<_> =
        linked.symbols.iter().filter(|symbol| symbol.ends).map(|symbol| &symbol.name).collect();
    assert_eq!(ends, ["die"], "objtool knows what the kernel exports by its name");
}

#[test]
fn a_static_call_brings_its_key() {
    let kernel =
        Kernel::default().export("__SCT__call", VMLINUX, false).symbol(VMLINUX, "__SCK__call", &[true]);
    let mut unit = Unit::new();
    let function = unit.function("f", None, Binding::Local);
    let call = unit.external("__SCT__call");
    let code = unit.section_of(function);
    unit.relocate(code, 0, call, -4);
    let matched = Matched::default();
    let linked = link(&input(&[unit.input("a.c", VMLINUX, &matched)], &kernel)).unwrap();
    let undefined: Vec<_> = linked.symbols.iter().map(|symbol| symbol.placeholder.as_str()).collect();
    assert_eq!(undefined, ["__SCT__call", "__SCK__call"]);
}

#[test]
fn a_static_call_of_a_module_is_a_plain_one_to_its_trampoline() {
    let kernel =
        Kernel::default().symbol("mod_a", "__SCT__call", &[true]).symbol("mod_a", "__SCK__call", &[true]);
    let mut unit = Unit::new();
    let function = unit.function("f", None, Binding::Local);
    let call = unit.external("__SCT__call");
    let code = unit.section_of(function);
    unit.relocate(code, 0, call, -4);
    let matched = Matched::default();
    let linked = link(&input(&[unit.input("a.c", "mod_a", &matched)], &kernel)).unwrap();
    let calls: Vec<_> = linked.symbols.iter().filter(|symbol| symbol.name.contains("call")).collect();
    let [only] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((only.placeholder.as_str(), only.name.as_str()), ("kmend_call_call", "__SCT__call"));
    assert_eq!(only.resolution.waits_for(), Some("mod_a"));
}

#[test]
fn a_static_key_of_a_module_is_refused() {
    let kernel = Kernel::default().symbol("mod_a", "key", &[true]);
    for (section, code) in [
        ("__jump_table", Some(Code::ModuleStaticKey)),
        (".data..percpu", Some(Code::UnsupportedReference)),
        (".altinstr_replacement", Some(Code::UnsupportedReference)),
        (".data.x", None),
        (".discard.addressable", None),
    ] {
        let mut unit = Unit::new();
        let key = unit.external("key");
        let table = unit.section(section, elf::SHF_WRITE, &[0; 16]);
        unit.relocate(table, 8, key, 0);
        let matched = Matched::default();
        let result = link(&input(&[unit.input("a.c", "mod_a", &matched)], &kernel));
        assert_eq!(result.err().map(|refusals| refusals[0].code), code, "{section}");
    }
}

#[test]
fn the_address_of_a_function_without_a_landing_pad_is_refused() {
    let kernel = Kernel::default().symbol(VMLINUX, "sealed", &[true]).symbol(VMLINUX, "open", &[true]);
    let kernel = kernel.export("sealed_export", VMLINUX, false).symbol(VMLINUX, "sealed_export", &[true]);
    let kernel = kernel.seal("sealed").seal("sealed_export");
    for (name, kind, section, is_refused) in [
        ("sealed", elf::R_X86_64_PC32, ".text.call", false),
        ("sealed", elf::R_X86_64_PC32, ".text.jump", false),
        ("sealed", elf::R_X86_64_PLT32, ".text.f", false),
        ("sealed", elf::R_X86_64_PC32, ".text.f", true),
        ("sealed", elf::R_X86_64_64, ".rodata.ops", true),
        ("sealed", elf::R_X86_64_64, ".discard.addressable", false),
        ("sealed_export", elf::R_X86_64_64, ".rodata.ops", true),
        ("open", elf::R_X86_64_64, ".rodata.ops", false),
    ] {
        let mut unit = Unit::new();
        let function = unit.external(name);
        // `lea 0(%rip),%rdi`, `call` and `je`.
        let code: &[u8] = match section {
            ".text.call" => &[0x90, 0x90, 0xe8],
            ".text.jump" => &[0x90, 0x0f, 0x84],
            _ => &[0x48, 0x8d, 0x3d],
        };
        let flags = if section.starts_with(".text") { elf::SHF_EXECINSTR } else { 0 };
        let section = unit.section(section, flags, &[code, &[0; 16]].concat());
        unit.relocate_as(kind, section, 3, function, 0);
        let matched = Matched::default();
        let result = link(&input(&[unit.input("a.c", VMLINUX, &matched)], &kernel));
        let codes = result.err().map(|refusals| refusals[0].code);
        assert_eq!(codes, is_refused.then_some(Code::NoLandingPad), "{name} {kind}");
    }
}

#[test]
fn equal_input_gives_equal_bytes() {
    let kernel = Kernel::default().symbol(VMLINUX, "a", &[true]).symbol(VMLINUX, "b", &[true]);
    let mut unit = Unit::new();
    let function = unit.function("f", None, Binding::Local);
    let code = unit.section_of(function);
    for name in ["b", "a"] {
        let symbol = unit.external(name);
        unit.relocate(code, 0, symbol, 0);
    }
    let matched = Matched::default();
    let bytes = || {
        let units = [unit.input("a.c", VMLINUX, &matched), unit.input("b.c", VMLINUX, &matched)];
        link(&input(&units, &kernel)).unwrap().object.write().unwrap()
    };
    assert_eq!(bytes(), bytes());
}
