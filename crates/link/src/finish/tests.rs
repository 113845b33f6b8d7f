use super::*;
use crate::{Location, PatchedFunction, PlannedSymbol};
use kmend_object::{Binding, SectionId, Symbol, SymbolKind};

fn section(object: &mut Object, name: &str, flags: u64, data: &[u8]) -> SectionId {
    object.add_section(Section { flags, ..Section::allocated(name, 0, 1, data.to_vec()) })
}

fn relocate(object: &mut Object, section: SectionId, offset: u64, kind: u32, symbol: SymbolId) {
    object.sections[section.index()].relocations.push(Relocation { offset, kind, symbol, addend: -4 });
}

/// The place of a relocation holds something that a linker left.
const LEFT_OVER: [u8; 16] = [0xaa; 16];

/// A module as the build system makes it: one function that refers to exported, unexported and module
/// symbols, and the patch table's pointer.
struct Built {
    module: Object,
    text: SectionId,
    symbols: BTreeMap<&'static str, SymbolId>,
}

fn built(modinfo: &[u8]) -> Built {
    let mut module = Object::new();
    let text = section(&mut module, ".text.show", elf::SHF_ALLOC | elf::SHF_EXECINSTR, &LEFT_OVER);
    let data = section(&mut module, ".data", elf::SHF_ALLOC | elf::SHF_WRITE, &[0; 24]);
    section(&mut module, ".modinfo", elf::SHF_ALLOC, modinfo);
    let comment = section(&mut module, ".comment", 0, &[0; 8]);
    let place = Place::Section(text);
    let function = Symbol { name: "show.kmend1".into(), kind: SymbolKind::Function, place, ..Symbol::null() };
    module.add_symbol(function);
    module.add_symbol(Symbol { name: "__pfx_show.kmend1".into(), place, ..Symbol::null() });
    let names =
        ["printk", "counter", "of_mod", "__SCK__unused", "kmend_new_0", "kmend_places_0", "text_poke"];
    let symbols: BTreeMap<_, _> =
        names.into_iter().map(|name| (name, module.add_symbol(Symbol::undefined(name)))).collect();
    relocate(&mut module, text, 0, elf::R_X86_64_PLT32, symbols["printk"]);
    relocate(&mut module, text, 4, elf::R_X86_64_PC32, symbols["counter"]);
    relocate(&mut module, text, 8, elf::R_X86_64_PLT32, symbols["of_mod"]);
    relocate(&mut module, text, 12, elf::R_X86_64_NONE, symbols["counter"]);
    relocate(&mut module, data, 8, elf::R_X86_64_64, symbols["kmend_new_0"]);
    relocate(&mut module, data, 0, elf::R_X86_64_64, symbols["kmend_places_0"]);
    relocate(&mut module, comment, 0, elf::R_X86_64_64, symbols["counter"]);
    Built { module, text, symbols }
}

fn planned(name: &str, object: &str, applied_with: &str) -> PlannedSymbol {
    let target = Location { object: object.into(), name: name.into(), position: 2, count: 3 };
    let resolution = Resolution::Livepatch { target, applied_with: applied_with.into() };
    PlannedSymbol { placeholder: name.into(), name: name.into(), resolution, ends: false }
}

fn linked() -> Linked {
    let target = Location { object: "mod".into(), name: "show".into(), position: 1, count: 1 };
    Linked {
        stem: "livepatch-x".into(),
        replace: true,
        build_id: String::new(),
        mends: crate::Mends::default(),
        engine: None,
        functions: vec![PatchedFunction { target, replacement: "show.kmend1".into() }],
        callbacks: Vec::new(),
        words: Vec::new(),
        pins: Vec::new(),
        symbols: vec![
            PlannedSymbol {
                placeholder: "printk".into(),
                name: "printk".into(),
                resolution: Resolution::Export,
                ends: false,
            },
            planned("counter", "vmlinux", "vmlinux"),
            planned("of_mod", "other", "mod"),
            planned("__SCK__unused", "vmlinux", "vmlinux"),
        ],
        warnings: Vec::new(),
        clearing: Some(["text_poke", "sync", "mutex"].map(str::to_owned)),
        object: Object::new(),
        renamed: BTreeMap::from([("show.kmend1".into(), "show".into())]),
    }
}

fn names(module: &Object) -> Vec<&str> {
    module.symbols.iter().map(|symbol| symbol.name.as_str()).filter(|name| !name.is_empty()).collect()
}

fn shown(module: &Object, relocations: &[Relocation]) -> Vec<(u64, String)> {
    let name = |id: SymbolId| match module.symbol(id) {
        symbol if symbol.kind == SymbolKind::Section => {
            module.section(symbol.section().unwrap()).name.clone()
        }
        symbol => symbol.name.clone(),
    };
    relocations.iter().map(|relocation| (relocation.offset, name(relocation.symbol))).collect()
}

#[test]
fn planned_symbols_become_livepatch_symbols() {
    let built = built(b"depends=\0name=x\0");
    let module = finish(built.module, &linked()).unwrap();
    // The aliases and the key that nothing refers to are gone; functions have their names again.
    assert_eq!(
        names(&module),
        [
            "show",
            "__pfx_show",
            "printk",
            ".klp.sym.vmlinux.counter,2",
            ".klp.sym.other.of_mod,2",
            "text_poke"
        ]
    );
    let livepatch = module.symbols.iter().filter(|symbol| symbol.place == Place::Livepatch);
    assert!(livepatch.clone().all(|symbol| symbol.binding == Binding::Global));
    assert_eq!(livepatch.count(), 2);
    let text = module.section(built.text);
    assert_eq!(shown(&module, &text.relocations), [(0, "printk".into())]);
    let lists: Vec<_> =
        text.livepatch.iter().map(|list| (list.object.as_str(), shown(&module, &list.relocations))).collect();
    assert_eq!(
        lists,
        [
            ("mod", vec![(8, ".klp.sym.other.of_mod,2".into())]),
            ("vmlinux", vec![(4, ".klp.sym.vmlinux.counter,2".into())])
        ]
    );
    assert_eq!(text.data, [[0xaa; 4], [0; 4], [0; 4], [0xaa; 4]].concat());
}

#[test]
fn the_table_points_at_functions_and_places() {
    let module = finish(built(b"depends=\0").module, &linked()).unwrap();
    let data = module.section(module.section_named(".data").unwrap());
    assert_eq!(shown(&module, &data.relocations), [(8, "show".into()), (0, ".rodata.kmend_places_0".into())]);
    let places = module.section(module.section_named(".rodata.kmend_places_0").unwrap());
    // One place of 4 bytes, and the end.
    assert_eq!(places.data, [[0; 8], 4_u64.to_le_bytes(), [0; 8], [0; 8]].concat());
    let relocation = places.relocations[0];
    assert_eq!((relocation.offset, relocation.kind, relocation.addend), (0, elf::R_X86_64_64, 8));
    assert_eq!(shown(&module, &[relocation])[0].1, ".text.show");
}

#[test]
fn the_result_survives_writing_and_reading() {
    let module = finish(built(b"depends=\0").module, &linked()).unwrap();
    let bytes = module.write().unwrap();
    let again = Object::parse(&bytes).unwrap();
    assert_eq!(again.write().unwrap(), bytes);
    assert_eq!(again.section(again.section_named(".text.show").unwrap()).livepatch.len(), 2);
}

fn fails(module: Object, linked: &Linked, expect: &str) {
    let error = finish(module, linked).unwrap_err().to_string();
    assert!(error.contains(expect), "{error}");
}

#[test]
fn what_went_wrong_on_the_way_is_an_error() {
    fails(built(b"depends=mod\0").module, &linked(), "depend on the module(s) mod");
    let mut lost = linked();
    lost.functions[0].replacement = "other".into();
    fails(built(b"").module, &lost, "lost what kmend_new_0");
    let mut more = linked();
    more.functions.push(more.functions[0].clone());
    fails(built(b"").module, &more, "1 of the 2 things");
    let mut twice = built(b"").module;
    section(&mut twice, ".data", elf::SHF_ALLOC, &[0]);
    fails(twice, &linked(), "two sections are called .data");
    let mut strange = built(b"");
    let counter = strange.symbols["counter"];
    relocate(&mut strange.module, strange.text, 0, elf::R_X86_64_16, counter);
    fails(strange.module, &linked(), "cannot apply relocation 12 at .text.show+0x0");
    let mut unwind = built(b"").module;
    section(&mut unwind, ".orc_unwind_ip", elf::SHF_ALLOC, &[0; 4]);
    fails(unwind, &linked(), "no unwind information");
}
