//! Patch tables as the compiler lays them out, and damaged ones.

use super::*;
use kmend_object::{
    Binding, LivepatchRelocations, Place as SymbolPlace, Section, Symbol, SymbolId, SymbolKind,
};

/// The sizes of the structures in a kernel, in bytes. They are not known to the reader.
#[derive(Clone, Copy)]
struct Sizes {
    function: u64,
    object: u64,
}

/// Linux 6.1 and 6.12, x86-64.
const SIZES: [Sizes; 2] = [Sizes { function: 152, object: 112 }, Sizes { function: 144, object: 120 }];

/// A module under construction.
struct Builder {
    object: Object,
    texts: SectionId,
    data: SectionId,
    code: SectionId,
    module: SymbolId,
}

impl Builder {
    fn new(size: u64) -> Builder {
        let mut object = Object::new();
        let mut section = |name: &str, flags: u64, size: u64| {
            object.add_section(Section::allocated(name, flags, 0, vec![0; size as usize]))
        };
        let texts = section(".rodata.str1.1", 0, 1);
        let data = section(".data", elf::SHF_WRITE, size);
        let code = section(".text", elf::SHF_EXECINSTR, 256);
        let module = object.add_symbol(Symbol::undefined(MODULE_SYMBOL));
        Builder { object, texts, data, code, module }
    }

    fn symbol(
        &mut self,
        name: &str,
        kind: SymbolKind,
        section: SectionId,
        value: u64,
        size: u64,
    ) -> SymbolId {
        let (name, place) = (name.to_owned(), SymbolPlace::Section(section));
        self.object.add_symbol(Symbol {
            name,
            value,
            size,
            kind,
            place,
            binding: Binding::Local,
            ..Symbol::null()
        })
    }

    fn point(&mut self, at: u64, symbol: SymbolId) {
        let relocation = Relocation { offset: at, kind: elf::R_X86_64_64, symbol, addend: 0 };
        self.object.sections[self.data.index()].relocations.push(relocation);
    }

    fn point_at_text(&mut self, at: u64, text: &str) {
        let section = &mut self.object.sections[self.texts.index()];
        let offset = section.size;
        section.data.extend(text.bytes().chain([0]));
        section.size = section.data.len() as u64;
        let symbol = self.symbol("", SymbolKind::None, self.texts, offset, 0);
        self.point(at, symbol);
    }

    fn point_at_data(&mut self, at: u64, target: u64, size: u64) {
        let kind = if size == 0 { SymbolKind::None } else { SymbolKind::Object };
        let symbol = self.symbol("", kind, self.data, target, size);
        self.point(at, symbol);
    }

    fn point_at_function(&mut self, at: u64, name: &str) {
        let offset = self.object.symbols.len() as u64;
        let symbol = self.symbol(name, SymbolKind::Function, self.code, offset, 1);
        self.point(at, symbol);
    }

    fn function(&mut self, at: u64, name: &str, position: u64) {
        self.point_at_text(at, name);
        self.point_at_function(at + 8, name);
        let place = at as usize + 16;
        self.object.sections[self.data.index()].data[place..place + 8]
            .copy_from_slice(&position.to_le_bytes());
    }
}

/// A livepatch of vmlinux (`a`, and `b` at its second place) and of zram (`c`, with a callback). Without symbols
/// for the arrays, as in a stripped module, if `stripped`.
fn livepatch(sizes: Sizes, replace: bool, stripped: bool) -> Object {
    let (patch, objects, first) = (64, 512, 1024);
    let second = first + 3 * sizes.function;
    let size = |count: u64, each: u64| if stripped { 0 } else { count * each };
    let mut builder = Builder::new(4096);
    let module = builder.module;
    // A structure of another kind that begins with THIS_MODULE, as file_operations do.
    builder.point(0, module);
    builder.point_at_function(8, "seek");
    builder.point(patch, module);
    builder.point_at_data(patch + 8, objects, size(3, sizes.object));
    builder.object.sections[builder.data.index()].data[patch as usize + 24] = u8::from(replace);
    builder.point_at_text(objects, "zram");
    builder.point_at_data(objects + 8, second, size(2, sizes.function));
    builder.point_at_function(objects + 40, "clear");
    builder.point_at_data(objects + sizes.object + 8, first, size(3, sizes.function));
    builder.function(first, "a", 0);
    builder.function(first + sizes.function, "b", 2);
    builder.function(second, "c", 1);
    builder.object
}

fn function(name: &str, position: u64) -> PatchedFunction {
    PatchedFunction { name: name.into(), position, replacement: name.into() }
}

#[test]
fn a_table_is_read_whatever_the_sizes_are() {
    for sizes in SIZES {
        for (replace, stripped) in [(true, false), (false, true)] {
            let callback = Callback { when: "post_unpatch", function: "clear".into() };
            let vmlinux = PatchedObject {
                name: "vmlinux".into(),
                functions: vec![function("a", 0), function("b", 2)],
                callbacks: vec![],
            };
            let zram = PatchedObject {
                name: "zram".into(),
                functions: vec![function("c", 1)],
                callbacks: vec![callback],
            };
            let patch = read(&livepatch(sizes, replace, stripped), Reader::Kernel).unwrap();
            assert_eq!(patch, Patch { replace, objects: vec![vmlinux, zram] });
        }
    }
}

#[test]
fn an_object_may_have_callbacks_alone() {
    for stripped in [false, true] {
        let size = |size| if stripped { 0 } else { size };
        let mut builder = Builder::new(2048);
        let (objects, functions, patch, module) = (0, 512, 1024, builder.module);
        builder.point_at_text(objects, "dummy");
        builder.point_at_data(objects + 8, functions, size(SIZES[0].function));
        builder.point_at_function(objects + 16, "kmend_pre_patch_0");
        builder.point_at_function(objects + 40, "kmend_post_unpatch_0");
        builder.point(patch, module);
        builder.point_at_data(patch + 8, objects, size(2 * SIZES[0].object));
        let mut patch = read(&builder.object, Reader::Kernel).unwrap();
        let callback = |when, function: &str| Callback { when, function: function.into() };
        let object = |callbacks| PatchedObject { name: "dummy".into(), functions: vec![], callbacks };
        let of_kmend = ["kmend_pre_patch_0", "kmend_post_unpatch_0"];
        let whole = vec![callback("pre_patch", of_kmend[0]), callback("post_unpatch", of_kmend[1])];
        assert_eq!(patch.objects, [object(whole)]);
        // What .modinfo says of them is shown in their place, and nothing else in it is believed.
        let described =
            ["dummy pre_patch one", "dummy pre_patch two", "vmlinux post_unpatch no", "", "dummy"];
        name_callbacks(&mut patch, described.into_iter());
        let named = ["one", "two"].map(|name| callback("pre_patch", name)).into_iter();
        assert_eq!(patch.objects, [object(named.chain([callback("post_unpatch", of_kmend[1])]).collect())]);
    }
}

#[test]
fn a_module_without_a_table_has_none() {
    assert_eq!(read(&Object::new(), Reader::Kernel), None);
    let mut builder = Builder::new(64);
    let module = builder.module;
    builder.point(0, module);
    builder.point_at_function(8, "seek");
    assert_eq!(read(&builder.object, Reader::Kernel), None);
}

#[test]
fn damaged_tables_are_read_without_a_panic() {
    let whole = livepatch(SIZES[0], true, false);
    let data = whole.section_named(".data").unwrap().index();
    let relocations = whole.sections[data].relocations.len();
    for number in 0..relocations {
        for addend in [i64::MIN, -1, 1, 4096, i64::MAX] {
            let mut damaged = whole.clone();
            damaged.sections[data].relocations[number].addend = addend;
            read(&damaged, Reader::Kernel);
            read(&damaged, Reader::Engine);
        }
        let mut damaged = whole.clone();
        damaged.sections[data].relocations[number].offset = u64::MAX;
        read(&damaged, Reader::Kernel);
        read(&damaged, Reader::Engine);
        let mut damaged = whole.clone();
        damaged.sections[data].relocations.remove(number);
        read(&damaged, Reader::Kernel);
        read(&damaged, Reader::Engine);
        // Every pointer to data at the table's own beginning.
        let mut damaged = whole.clone();
        damaged.sections[data].relocations[number].symbol = damaged.sections[data].relocations[3].symbol;
        read(&damaged, Reader::Kernel);
        read(&damaged, Reader::Engine);
    }
    for symbol in 0..whole.symbols.len() {
        let mut damaged = whole.clone();
        (damaged.symbols[symbol].value, damaged.symbols[symbol].size) = (u64::MAX, u64::MAX);
        read(&damaged, Reader::Kernel);
        read(&damaged, Reader::Engine);
    }
}

/// A patch for the consistency engine: `a` of vmlinux, and of zram the second `b`, with a callback.
fn engine_patch(replace: bool) -> Object {
    const FUNCTION: u64 = 56;
    let (patch, objects, first, object) = (64, 512, 1024, 72);
    let second = first + 2 * FUNCTION;
    let mut builder = Builder::new(2048);
    let module = builder.module;
    builder.point(patch, module);
    builder.point_at_data(patch + 8, objects, 3 * object);
    builder.object.sections[builder.data.index()].data[patch as usize + 16] = u8::from(replace);
    builder.point_at_data(objects + 8, first, 2 * FUNCTION);
    builder.point_at_text(objects + object, "zram");
    builder.point_at_data(objects + object + 8, second, 2 * FUNCTION);
    builder.point_at_function(objects + object + 24, "started");
    for (at, name, living) in [(first, "a", "vmlinux.a,0"), (second, "b", "zram.b,2")] {
        builder.point_at_text(at, name);
        let symbol =
            Symbol { place: SymbolPlace::Livepatch, ..Symbol::undefined(format!(".klp.sym.{living}")) };
        let symbol = builder.object.add_symbol(symbol);
        let relocation = Relocation { offset: at + 8, kind: elf::R_X86_64_64, symbol, addend: 0 };
        builder.object.sections[builder.data.index()].livepatch.push(LivepatchRelocations {
            object: living.split('.').next().unwrap_or_default().into(),
            relocations: vec![relocation],
        });
        builder.point_at_function(at + 16, name);
    }
    builder.object
}

#[test]
fn a_table_for_the_engine_is_read() {
    for replace in [true, false] {
        let patch = read(&engine_patch(replace), Reader::Engine).unwrap();
        let callback = Callback { when: "post_patch", function: "started".into() };
        let object = |name: &str, function, callbacks| PatchedObject {
            name: name.into(),
            functions: vec![function],
            callbacks,
        };
        let objects = vec![
            object("vmlinux", function("a", 0), vec![]),
            object("zram", function("b", 2), vec![callback]),
        ];
        assert_eq!(patch, Patch { replace, objects });
    }
}
