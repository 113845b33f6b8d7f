//! What counts as a change, and what goes along.

use super::*;

#[test]
fn a_vector_of_constants_is_its_content() {
    let source = |first: &str| {
        format!(
            "struct pair {{ long a, b; }}; void take(struct pair *);
             int one(int x) {{ struct pair p = {{ {first} }}; take(&p); return x; }}
             int two(int x) {{ struct pair p = {{ 11, 13 }}; take(&p); return x; }}"
        )
    };
    let original = object(&source("5, 7"));
    assert!(original.symbols.iter().any(|symbol| symbol.name.starts_with(".L")), "no label was kept");
    // The labels keep their names and change their contents, or the other way round.
    let delta = compare(&original, &object(&source("5, 9"))).unwrap();
    assert_eq!(functions(&delta), ["one"]);
    assert!(originals(&delta).is_empty(), "a constant is copied: {:?}", originals(&delta));
    let delta = compare(&original, &object(&source("11, 13"))).unwrap();
    assert_eq!(functions(&delta), ["one"]);
}

#[test]
fn the_same_source_gives_no_change() {
    assert!(diff(TWO, TWO).unwrap().is_empty());
    assert!(diff(TWO, &format!("/* a comment */\n\n\n{TWO}\n/* another */")).unwrap().is_empty());
}

#[test]
fn a_constant_changes_its_function_only() {
    let delta = diff(TWO, &TWO.replace("x + 1", "x + 200")).unwrap();
    assert_eq!(functions(&delta), ["one"]);
    assert!(matches!(delta.functions[0].reasons[0], Reason::Code { .. } | Reason::Size { .. }));
}

#[test]
fn a_string_is_named_as_the_reason() {
    let delta = diff(TWO, &TWO.replace("\"two\"", "\"TWO\"")).unwrap();
    assert_eq!(functions(&delta), ["two"]);
    assert_eq!(delta.functions[0].reasons, [Reason::Text { before: "two".into(), after: "TWO".into() }]);
}

#[test]
fn a_call_to_another_function_is_a_changed_target() {
    let delta = diff(
        "int a(int); int b(int); int f(int x) { return a(x) + 1; }",
        "int a(int); int b(int); int f(int x) { return b(x) + 1; }",
    );
    let expect = Reason::Target { before: "a".into(), after: "b".into() };
    assert_eq!(delta.unwrap().functions[0].reasons, [expect]);
}

#[test]
fn an_inlined_callee_changes_its_callers_and_nobody_else() {
    let source = "int ext(int);
        static inline int helper(int x) { return x * 5 + 1; }
        int a(int x) { return ext(helper(x)); }
        int b(int x) { return ext(helper(x) + 2); }
        int c(int x) { return ext(x); }";
    let delta = diff(source, &source.replace("x * 5 + 1", "x * 5 + 70000")).unwrap();
    assert_eq!(functions(&delta), ["a", "b"]);
}

#[test]
fn new_functions_and_variables_are_taken_along_when_needed() {
    let original = "int ext(int); int f(int x) { return ext(x); }";
    let patched = "int ext(int);
        static int calls; int visible_calls = 3; int unused_calls = 4;
        static __attribute__((noinline)) int helper(int x) { return ext(x + ++calls + visible_calls); }
        int f(int x) { return helper(x) + 1; }";
    let delta = diff(original, patched).unwrap();
    assert_eq!(functions(&delta), ["+helper", "f"]);
    let mut variables = delta.variables.clone();
    variables.sort();
    assert_eq!(variables, ["calls", "visible_calls"]);
}

#[test]
fn a_call_goes_to_the_replacement_and_a_pointer_to_the_original() {
    let source = "int take(int (*)(int)); int ext(int);
        __attribute__((noinline)) int callee(int x) { return ext(x + 1); }
        int caller(int x) { return callee(x) + take(callee) + 10; }";
    let delta = diff(source, &source.replace("x + 1", "x + 500").replace("+ 10", "+ 2000")).unwrap();
    assert_eq!(functions(&delta), ["callee", "caller"]);
    assert_eq!(originals(&delta), ["callee"]);
    let object = &delta.extract.object;
    let caller = object.section(object.section_named(".text.caller").unwrap());
    let calls: Vec<_> = caller
        .relocations
        .iter()
        .filter(|relocation| object.symbol(relocation.symbol).name == "callee")
        .map(|relocation| (relocation.kind, object.symbol(relocation.symbol).is_undefined()))
        .collect();
    assert!(calls.contains(&(elf::R_X86_64_PLT32, false)), "the call: {calls:?}");
    assert!(
        calls.iter().any(|&(kind, outside)| outside && kind != elf::R_X86_64_PLT32),
        "the pointer: {calls:?}"
    );
}

#[test]
fn changed_data_is_refused_with_its_name() {
    let source = "int ext(int); static int limits[] = { 1, 2, 3 };
        int f(int x) { limits[0]++; return ext(limits[x]); }";
    let refusals = diff(source, &source.replace("1, 2, 3", "1, 2, 4")).unwrap_err();
    assert_eq!((refusals[0].code, refusals[0].subject.as_str()), (Code::ChangedData, "limits"));
    let refusals = diff(source, &source.replace("1, 2, 3", "1, 2, 3, 4")).unwrap_err();
    assert!(refusals[0].why.contains("from 12 to 16 bytes"), "{}", refusals[0]);
}

#[test]
fn a_changed_constant_table_of_the_compiler_is_copied() {
    let source = "int ext(int);
        int f(int x) { int v; switch (x) { case 0: v = 11; break; case 1: v = 230; break; case 2: v = 35; break;
            case 3: v = 478; break; case 4: v = 599; break; default: v = 9; } return ext(v); }";
    let before = object(source);
    assert!(before.symbols.iter().any(|symbol| symbol.name.starts_with("CSWTCH.")), "the test needs a table");
    let delta = compare(&before, &object(&source.replace("478", "479"))).unwrap();
    assert_eq!(functions(&delta), ["f"]);
    assert!(matches!(delta.functions[0].reasons[0], Reason::Content { .. }));
}

#[test]
fn messages_of_netlink_are_texts() {
    // As NL_SET_ERR_MSG() makes them (include/linux/netlink.h).
    let message = |text: &str| format!("{{ static const char __msg[] = \"{text}\"; said = __msg; }}");
    let source = |one: &str, two: &str| {
        let (one, two) = (message(one), message(two));
        format!("extern const char *said; void f(int x) {{ if (x) {one} else {two} }} void g(void) {one}")
    };
    let same = source("one", "another");
    assert!(diff(&same, &same.replace("void f", "int h(void) { return 1; } void f")).unwrap().is_empty());
    let delta = diff(&same, &same.replace("another", "some more words")).unwrap();
    assert_eq!(functions(&delta), ["f"]);
}

#[test]
fn a_function_without_fentry_is_refused() {
    let source = "int ext(int); int traced(int x) { return ext(x); }
        __attribute__((no_instrument_function)) int f(int x) { return ext(x + 1); }";
    let refusals = diff(source, &source.replace("x + 1", "x + 2")).unwrap_err();
    assert_eq!((refusals[0].code, refusals[0].subject.as_str()), (Code::NoFentry, "f"));
}

#[test]
fn a_static_function_without_fentry_goes_along_with_its_callers() {
    let source = "int ext(int);
        static __attribute__((no_instrument_function, noinline)) int body(int x) { return ext(x + 1) * 3; }
        int a(int x) { return body(x) + 1; } int b(int x) { return body(x) + 2; } int c(int x) { return ext(x); }";
    let delta = diff(source, &source.replace("x + 1)", "x + 2)")).unwrap();
    assert_eq!(functions(&delta), ["a", "b", "~body"]);
    assert!(originals(&delta).is_empty(), "both call the new body");
    let pointed = source.replace("int c(int x) { return ext(x); }", "int (*pointer)(int) = body;");
    assert_eq!(codes(diff(&pointed, &pointed.replace("x + 1)", "x + 2)"))), [Code::NoFentry]);
}

#[test]
fn a_runtime_constant_becomes_a_load_of_its_variable() {
    let source = "extern unsigned long LIMIT;
        static unsigned long limit(void) { unsigned long v; asm(\"movabs $0x123456789abcdef,%0\\n1:\\n.pushsection \"
            \"runtime_ptr_LIMIT,\\\"a\\\"\\n.long 1b - 8 - .\\n.popsection\" : \"=r\"(v)); return v; }
        int ext(unsigned long); int f(unsigned long x) { return ext(x < limit() ? x + 1 : 0); }";
    let delta = diff(source, &source.replace("x + 1", "x + 7")).unwrap();
    assert_eq!(functions(&delta), ["f"]);
    let object = &delta.extract.object;
    assert!(object.section_named("runtime_ptr_LIMIT").is_none());
    let code = object.section(object.section_named(".text.f").unwrap());
    let load =
        code.relocations.iter().find(|relocation| object.symbol(relocation.symbol).name == "LIMIT").unwrap();
    assert_eq!((load.kind, load.addend), (elf::R_X86_64_PC32, -4));
    let at = load.offset as usize;
    assert!(matches!(code.data[at - 3..at], [0x48 | 0x4c, 0x8b, _]), "{:x?}", &code.data[at - 3..at + 7]);
    assert_eq!(code.data[at + 4..at + 7], [0x0f, 0x1f, 0x00]);
}

#[test]
fn kept_table_entries_follow_their_function() {
    let bug = |line: u32| {
        format!(
            "asm volatile(\"1: ud2\\n.pushsection __bug_table,\\\"aw\\\"\\n.long 1b-.\\n.long file-.\\n.word {line}\\n.word 0\\n.popsection\");"
        )
    };
    let source = format!(
        "char file[] = \"a.c\"; int ext(int);
         int f(int x) {{ if (ext(x)) {{ {} }} return x + 1; }}
         int g(int x) {{ if (ext(x)) {{ {} }} return x + 2; }}",
        bug(10),
        bug(20)
    );
    let delta = diff(&source, &source.replace("x + 2", "x + 2000")).unwrap();
    assert_eq!(functions(&delta), ["g"]);
    let object = &delta.extract.object;
    let table = object.section(object.section_named("__bug_table").unwrap());
    assert_eq!(table.size, 12, "one entry of two");
    assert_eq!(&table.data[8..10], &20u16.to_le_bytes());
    assert_eq!(object.symbol(table.relocations[0].symbol).name, "g");
    let delta = diff(&source, &source.replace(".word 10", ".word 11")).unwrap();
    let Reason::Table { section, before: Some(before), after: Some(after) } = &delta.functions[0].reasons[0]
    else {
        panic!("{:?}", delta.functions[0].reasons);
    };
    assert_eq!(section, "__bug_table");
    assert!(before.starts_with("f+0x") && before.ends_with(", file, 0a000000"), "{before}");
    assert_eq!(after.as_str(), before.replace("0a000000", "0b000000"));
}

#[test]
fn the_extract_stands_alone() {
    let source = "int ext(const char *, int); static int total; static const int table[4] = { 5, 6, 7, 8 };
        int f(int x) { total += x; return ext(\"text\", table[x & 3] + total); }";
    let delta = diff(source, &source.replace("total += x", "total += x + 70000")).unwrap();
    assert_eq!(originals(&delta), ["table", "total"]);
    let object = &delta.extract.object;
    for (id, symbol) in object.symbol_ids().map(|id| (id, object.symbol(id))) {
        assert_eq!(symbol.is_undefined(), delta.extract.references.contains_key(&id), "{}", symbol.name);
    }
    let function = object.symbol(delta.functions[0].symbol);
    assert_eq!((function.name.as_str(), function.kind), ("f", SymbolKind::Function));
    assert_eq!(Object::parse(&object.write().unwrap()).unwrap().sections.len(), object.sections.len());
}

#[test]
fn objects_without_function_sections_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unit.c"), TWO).unwrap();
    Command::new("gcc").args(["-O2", "-c", "unit.c", "-o", "unit.o"]).folder(folder.path()).run().unwrap();
    let shared = Object::parse(&fs::read(folder.path().join("unit.o")).unwrap()).unwrap();
    assert_eq!(codes(compare(&shared, &shared)), [Code::NoFunctionSections]);
}

#[test]
fn new_data_of_each_processor_lies_where_a_module_has_it() {
    let per_cpu = |suffix: &str, name: &str| {
        format!("static __attribute__((section(\".data..percpu{suffix}\"))) int {name} = 1;")
    };
    let original = "int ext(int); int f(int x) { return ext(x); }";
    let names = [("", "a"), ("..read_mostly", "b"), ("..shared_aligned", "c")];
    let variables: String = names.iter().map(|(suffix, name)| per_cpu(suffix, name)).collect();
    let patched = format!("{variables} int ext(int); int f(int x) {{ a++; b++; c++; return ext(x); }}");
    let object = diff(original, &patched).unwrap().extract.object;
    for name in ["a", "b", "c"] {
        let symbol = object.symbols.iter().find(|symbol| symbol.name == name).unwrap();
        assert_eq!(object.section(symbol.section().unwrap()).name, ".data..percpu");
    }
}

#[test]
fn the_end_of_an_array_is_the_arrays_where_sections_are_told_apart() {
    // What crates/compile makes of data in a section that the source names.
    let source = |more: &str, number: u32| {
        format!(
            "asm(\"{more}.section .data..x,\\\"aw\\\",@progbits,unique,{number}\\n.type array, @object\\n.size array, 8\\n\"
                 \"array: .quad 1\\n.previous\");
             int ext(long); int f(int x) {{ long end; asm(\"mov $array + 8, %0\" : \"=r\"(end)); return ext(end + {number}); }}"
        )
    };
    let next = ".section .data..x,\\\"aw\\\",@progbits,unique,7\\n.type next, @object\\n.size next, 8\\nnext: .quad 1\\n.previous\\n";
    let delta = diff(&source("", 1), &source(next, 8)).unwrap();
    assert_eq!(originals(&delta), ["array"]);
    let object = &delta.extract.object;
    let code = object.section(object.section_named(".text.f").unwrap());
    let end =
        code.relocations.iter().find(|relocation| object.symbol(relocation.symbol).name == "array").unwrap();
    assert_eq!(end.addend, 8);
}
