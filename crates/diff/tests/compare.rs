//! What the differ says of small C sources, compiled here with the machine's gcc.

use kmend_diff::{Context, Delta, Fentry, Moment, Reason, Reference};
use kmend_object::{Object, SymbolKind, elf};
use kmend_process::Command;
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeSet;
use std::fs;

/// The options that shape the kernel's code, as far as they matter here.
const OPTIONS: &[&str] = &[
    "-O2",
    "-c",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-pic",
    "-fno-pie",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-fno-stack-protector",
    "-pg",
    "-mfentry",
    "-mrecord-mcount",
    "-fno-jump-tables",
    "-fno-common",
    "-fno-strict-aliasing",
    "-w",
    "-g0",
];

fn object(source: &str) -> Object {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unit.c"), source).unwrap();
    Command::new("gcc").args(OPTIONS).args(["unit.c", "-o", "unit.o"]).folder(folder.path()).run().unwrap();
    Object::parse(&fs::read(folder.path().join("unit.o")).unwrap()).unwrap()
}

fn compare(original: &Object, patched: &Object) -> Result<Delta, Vec<Refusal>> {
    kmend_diff::compare(original, patched, Fentry::Required)
}

fn diff(original: &str, patched: &str) -> Result<Delta, Vec<Refusal>> {
    compare(&object(original), &object(patched))
}

/// The functions that go into the module, as `name`, `+name` for new ones and `~name` for those that go along.
fn functions(delta: &Delta) -> Vec<String> {
    let mark = |function: &kmend_diff::FunctionChange| match (&function.original, function.carried) {
        (Some(_), _) => "",
        (None, true) => "~",
        (None, false) => "+",
    };
    let mut names: Vec<String> =
        delta.functions.iter().map(|function| format!("{}{}", mark(function), function.name)).collect();
    names.sort();
    names
}

fn codes(result: Result<Delta, Vec<Refusal>>) -> Vec<Code> {
    result.expect_err("it should have been refused").iter().map(|refusal| refusal.code).collect()
}

fn originals(delta: &Delta) -> Vec<&str> {
    let is_original = |reference: &&Reference| matches!(reference, Reference::Original { .. });
    let mut names: Vec<&str> =
        delta.extract.references.values().filter(is_original).map(Reference::name).collect();
    names.sort_unstable();
    names
}

const TWO: &str = "int ext(const char *, int);
    int one(int x) { return ext(\"one\", x + 1); }
    int two(int x) { return ext(\"two\", x * 3); }";

#[test]
fn a_numbered_variable_of_a_special_section_is_found_again() {
    let source = |before: &str| {
        format!(
            "struct block {{ int (*call)(int); }}; int enlist(struct block *); int called(int); {before}
    int start(void) {{ static struct block block __attribute__((section(\".meminit.data\"))) = {{ called }};
        return enlist(&block); }}"
        )
    };
    let (original, patched) = (source(""), source("int more(void) { static int count; return ++count; }"));
    let delta = diff(&original, &patched).unwrap();
    assert!(delta.changed().next().is_none(), "{:?}", functions(&delta));
}

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
fn a_static_local_stays_the_living_one_whatever_its_number() {
    let source = "int ext(int *);
        int a(void) { static int count; return ext(&count); }
        int b(void) { static int count = 7; return ext(&count) + ++count; }
        EXTRA";
    let original = source.replace("EXTRA", "");
    let patched = source
        .replace("EXTRA", "int z(void) { static int other; return ext(&other); }")
        .replace("++count", "(count += 2)");
    let (before, after) = (object(&original), object(&patched));
    let numbered = |object: &Object, size: u64, section: &str| {
        let hit = object.symbols.iter().find(|symbol| {
            symbol.name.starts_with("count.")
                && symbol.size == size
                && symbol.section().is_some_and(|id| object.section(id).name.starts_with(section))
        });
        hit.unwrap().name.clone()
    };
    let living = numbered(&before, 4, ".data");
    assert_ne!(living, numbered(&after, 4, ".data"), "the patch must renumber for this test to see");
    let delta = compare(&before, &after).unwrap();
    assert_eq!(functions(&delta), ["b"], "z is new, but nothing that is kept needs it");
    assert_eq!(originals(&delta), [living.as_str()]);
}

#[test]
fn two_statics_of_one_name_in_one_function_keep_their_order() {
    let source = "int ext(int *, int);
        int f(int x) { if (x) { static int state = 1; return ext(&state, x + 1); }
                       { static int state = 2; return ext(&state, 2); } }";
    let delta = diff(source, &source.replace("x + 1", "x + 300")).unwrap();
    assert_eq!(functions(&delta), ["f"]);
    assert_eq!(originals(&delta).len(), 2);
}

#[test]
fn an_added_static_of_the_same_name_in_the_same_function_is_refused() {
    let original = "int ext(int *, int); int f(int x) { static int state; return ext(&state, 2); }";
    let patched = "int ext(int *, int); int f(int x) { { static int state; ext(&state, 5); }
        { static int state; return ext(&state, 2); } }";
    let codes = codes(diff(original, patched));
    assert_eq!(codes, [Code::UnsupportedReference; 2], "either may be the one of the original");
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
fn the_cold_part_belongs_to_its_function() {
    let source = "void slow(int); int ext(int);
        int f(int x) { if (__builtin_expect(x < 0, 0)) { slow(1); slow(2); slow(77); } return ext(x); }";
    let with_cold = |text: &str| text.replace("void slow(int);", "__attribute__((cold)) void slow(int);");
    let (original, patched) = (with_cold(source), with_cold(&source.replace("77", "78")));
    assert!(
        object(&original).symbols.iter().any(|symbol| symbol.name == "f.cold"),
        "the test needs a cold part"
    );
    let delta = diff(&original, &patched).unwrap();
    assert_eq!(functions(&delta), ["f"]);
    assert!(delta.extract.object.symbols.iter().any(|symbol| symbol.name == "f.cold"));
}

#[test]
fn renumbered_clones_are_not_changes() {
    let clone = |n: u32| {
        format!(
            "static __attribute__((noinline)) int helper{n}(int x, int unused) {{ return ext(x * {n} + 7) + ext(x); }}
             int user{n}(int x) {{ return helper{n}(x, 5) + helper{n}(x + 1, 5); }}\n"
        )
    };
    let original = format!("int ext(int);\n{}{}", clone(3), clone(4));
    let patched = format!("int ext(int);\n{}{}{}", clone(9), clone(3), clone(4));
    assert!(diff(&original, &patched).unwrap().is_empty());
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
fn the_entries_of_a_list_of_types_may_get_other_numbers() {
    // As BTF_ID_LIST() and BTF_ID() make them (include/linux/btf_ids.h). The second list has no name of its own.
    let source = |first: u32, change: u32| {
        let entry = |number: u32| {
            format!(
                ".local __BTF_ID__struct__file__{number}\\n.type __BTF_ID__struct__file__{number}, STT_OBJECT\\n\
                 .size __BTF_ID__struct__file__{number}, 4\\n__BTF_ID__struct__file__{number}:\\n.zero 4\\n"
            )
        };
        let (one, two) = (entry(first), entry(first + 1));
        format!(
            "asm(\".pushsection .BTF_ids,\\\"a\\\"\\n.local ids\\nids:\\n{one}{two}.popsection\");
             extern unsigned ids[]; unsigned *other(void) {{ return &ids[1]; }}
             unsigned *of(void) {{ return &ids[{change}]; }} unsigned use(unsigned x) {{ return x + {change}; }}"
        )
    };
    let delta = diff(&source(98, 0), &source(99, 0)).unwrap();
    assert!(delta.is_empty(), "{:?}", delta.functions);
    let delta = diff(&source(98, 0), &source(99, 1)).unwrap();
    assert_eq!(functions(&delta), ["of", "use"]);
    let led_to: Vec<&str> = delta.extract.references.values().map(kmend_diff::Reference::name).collect();
    assert!(
        led_to.contains(&"__BTF_ID__struct__file__99"),
        "the name that the running kernel has: {led_to:?}"
    );
}

#[test]
fn code_that_ran_at_the_start_is_refused() {
    let source = "int ext(int); __attribute__((section(\".init.text\"))) int start(void) { return ext(5); }";
    assert_eq!(codes(diff(source, &source.replace("ext(5)", "ext(6)"))), [Code::ChangedInit]);
}

/// Compares two units of the image, of whose functions a patch touches these.
fn diff_in_image(original: &str, patched: &str, touched: &[&str]) -> Result<Delta, Vec<Refusal>> {
    let touched: BTreeSet<String> = touched.iter().map(|&name| name.to_owned()).collect();
    let context = Context { touched: Some(&touched), built_in: true, ..Context::default() };
    kmend_diff::compare_in(&object(original), &object(patched), Fentry::Required, context)
}

const START: &str = "__attribute__((section(\".init.text\")))";
const END: &str = "__attribute__((section(\".exit.text\"), no_instrument_function))";

#[test]
fn code_of_the_start_that_nobody_touched_is_passed_over() {
    let source = format!(
        "int ext(int *);
         static inline int twice(int x) {{ return 2 * x; }}
         static int table[2] __attribute__((section(\".init.data\"))) = {{ 4, 5 }};
         {START} int start(int x) {{ return ext(table) + twice(x); }}
         int later(int x) {{ return twice(x); }}"
    );
    let patched = source.replace("2 * x", "3 * x").replace("table[2]", "table[3]");
    let delta = diff_in_image(&source, &patched, &["twice"]).unwrap();
    assert_eq!(functions(&delta), ["later"]);
    assert!(
        matches!(delta.passed_over.as_slice(), [one] if one.subject == "start"),
        "{:?}",
        delta.passed_over
    );
    let touched = BTreeSet::from(["twice".to_owned()]);
    let context = Context { touched: Some(&touched), ..Context::default() };
    let of_module =
        kmend_diff::compare_in(&object(&source), &object(&patched), Fentry::Required, context).unwrap();
    assert!(of_module.passed_over[0].why.contains("when the module is loaded"));
    assert_eq!(codes(diff_in_image(&source, &patched, &["start"])), [Code::ChangedInit; 2]);
    assert_eq!(codes(diff(&source, &patched)), [Code::ChangedInit; 2]);
    let registered = "int *entry __attribute__((section(\".initcall6.init\"))) = table;";
    let (source, patched) = (source + registered, patched + registered);
    assert_eq!(codes(diff_in_image(&source, &patched, &["twice"])), [Code::ChangedInit], "the table");
}

#[test]
fn a_modules_exit_function_is_led_to_by_its_pointer() {
    let source = format!(
        "int ext(int); {END} static __attribute__((noinline)) void leave(void) {{ ext(5); }}
         void cleanup_module(void) __attribute__((alias(\"leave\")));
         static void *__UNIQUE_ID___addressable_cleanup_module9
             __attribute__((used, section(\".exit.data\"))) = &cleanup_module;"
    );
    let in_module = |source: &str, exit_pointer| {
        let context = Context { exit_pointer, ..Context::default() };
        let patched = source.replace("ext(5)", "ext(6)");
        kmend_diff::compare_in(&object(source), &object(&patched), Fentry::Required, context)
    };
    let delta = in_module(&source, Some(0x320)).unwrap();
    assert!(delta.functions.iter().all(|function| function.carried), "{:?}", delta.functions);
    assert!(
        matches!(delta.updates.as_slice(), [update] if update.variable == "__this_module" && update.pins)
    );
    assert_eq!(codes(in_module(&source, None)), [Code::NoFentry]);
    let also_called = source + " void reset(void) { leave(); }";
    assert_eq!(codes(in_module(&also_called, Some(0x320))), [Code::NoFentry]);
}

#[test]
fn code_that_still_runs_is_never_passed_over() {
    let source =
        format!("int ext(int); int one(int x) {{ return ext(x); }} {END} int end(void) {{ return ext(1); }}");
    let moved = source.replace("int one", &format!("{START} int one")).replace("ext(x)", "ext(x + 1)");
    assert_eq!(codes(diff_in_image(&source, &moved, &[])), [Code::ChangedInit]);
    let ended = source.replace("ext(1)", "ext(2)").replace("ext(x)", "ext(x + 1)");
    let delta = diff_in_image(&source, &ended, &["end", "one"]).unwrap();
    assert_eq!((functions(&delta), delta.passed_over.len()), (vec!["one".to_owned()], 1));
    assert_eq!(codes(diff(&source, &ended)), [Code::NoFentry], "the end of a module");
}

#[test]
fn the_functions_of_a_module_answer_to_their_names_in_the_source() {
    let source = format!(
        "int ext(int); int later(int x) {{ return ext(x); }}
         static {START} int foo_init(void) {{ return ext(1); }}
         int init_module(void) __attribute__((alias(\"foo_init\")));
         static {END} void foo_exit(void) {{ ext(2); }}
         void cleanup_module(void) __attribute__((alias(\"foo_exit\")));"
    );
    let patched =
        source.replace("ext(1)", "ext(5)").replace("ext(2)", "ext(6)").replace("ext(x)", "ext(x + 1)");
    let touched = BTreeSet::from(["foo_init".to_owned()]);
    let context = Context { touched: Some(&touched), ..Context::default() };
    let refusals = kmend_diff::compare_in(&object(&source), &object(&patched), Fentry::Required, context);
    let subjects: Vec<String> = refusals.unwrap_err().into_iter().map(|refusal| refusal.subject).collect();
    assert_eq!(subjects, ["foo_init", "foo_exit"]);
    let ignored = ["foo_init", "foo_exit"].map(|name| note(".kmend.ignore.functions", name)).concat();
    assert_eq!(functions(&diff(&source, &(patched + &ignored)).unwrap()), ["later"]);
}

#[test]
fn code_of_the_start_that_runs_later_is_new() {
    let source = format!(
        "int ext(int); {START} int once(int x) {{ return ext(x); }} int later(int x) {{ return x; }}"
    );
    let patched =
        source.replace(START, "__attribute__((noinline))").replace("return x;", "return once(x) + 1;");
    assert_eq!(functions(&diff_in_image(&source, &patched, &["once", "later"]).unwrap()), ["+once", "later"]);
    let source = format!("int ext(int); {END} int once(int x) {{ return ext(x); }}");
    let patched = source.replace(END, "").replace("ext(x)", "ext(x + 1)");
    assert_eq!(codes(diff(&source, &patched)), [Code::NoFentry], "its original has no ftrace entry");
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
fn an_unknown_section_that_refers_to_a_changed_function_is_refused_by_name() {
    let source = "int ext(int); int f(int x) { return ext(x + 1); } int g(int x) { return ext(x + 9); }
        __attribute__((section(\"strange_table\"), used)) static void *entry = f;";
    let refusals = diff(source, &source.replace("x + 1", "x + 2")).unwrap_err();
    assert_eq!((refusals[0].code, refusals[0].subject.as_str()), (Code::UnknownSection, "strange_table"));
    let delta = diff(source, &source.replace("x + 9", "x + 10")).unwrap();
    assert_eq!(functions(&delta), ["g"], "a section that refers to others is no obstacle");
}

#[test]
fn functions_of_one_shared_section_are_told_apart() {
    let shared = "__attribute__((section(\".sched.text\"), noinline))";
    let source = format!(
        "int ext(int); {shared} int first(int x) {{ return ext(x + 1) * 3; }}
         {shared} static int second(int x) {{ return ext(x + 2) * 5; }}
         {shared} int third(int x) {{ return second(x) + ext(x + 3) * 7; }}"
    );
    let delta = diff(&source, &source.replace("x + 1", "x + 100000")).unwrap();
    assert_eq!(functions(&delta), ["first"], "the others only moved");
    let delta = diff(&source, &source.replace("x + 3", "x + 300000")).unwrap();
    assert_eq!(functions(&delta), ["third"]);
    assert_eq!(originals(&delta), ["second"], "a branch without relocation becomes a reference");
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

/// What the macros of kmend.h write.
fn note(section: &str, text: &str) -> String {
    let name = format!("note_{}", text.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    format!(
        "static const char {name}[] __attribute__((used, aligned(1), section(\"{section}\"))) = \"{text}\";"
    )
}

fn callback(kind: &str, function: &str) -> String {
    format!(
        "static void *const at_{function} __attribute__((used, section(\".kmend.callbacks.{kind}\"))) = {function};"
    )
}

#[test]
fn callbacks_come_along_with_what_they_need() {
    let added = format!(
        "static int ready; static int prepare(void *o) {{ return ext(\"up\", ready++); }} {}
         static void release(void *o) {{ living = ready; }} {}",
        callback("pre_patch", "prepare"),
        callback("post_unpatch", "release")
    );
    let source = format!("static int living = 4; int get(void) {{ return living++; }} {TWO}");
    let delta = diff(&source, &format!("{source} {added}")).unwrap();
    assert_eq!(functions(&delta), ["+prepare", "+release"]);
    assert_eq!(delta.variables, ["ready"]);
    assert!(!delta.is_empty(), "callbacks are enough for a livepatch");
    let moments: Vec<_> = delta.callbacks.iter().map(|it| (it.moment, it.function.as_str())).collect();
    assert_eq!(moments, [(Moment::PrePatch, "prepare"), (Moment::PostUnpatch, "release")]);
    for callback in &delta.callbacks {
        assert_eq!(delta.extract.object.symbol(callback.symbol).name, callback.function);
    }
    assert_eq!(originals(&delta), ["living"], "the running kernel's");
    let sections = &delta.extract.object.sections;
    assert!(sections.iter().all(|section| !section.name.starts_with(".kmend")), "requests stay behind");
}

#[test]
fn a_callback_must_be_a_new_function_of_the_source() {
    for function in ["one", "ext"] {
        let refusals = diff(TWO, &format!("{TWO} {}", callback("pre_patch", function))).unwrap_err();
        assert_eq!((refusals[0].code, refusals[0].subject.as_str()), (Code::Request, function));
    }
}

#[test]
fn what_the_author_ignores_stays_and_is_noted() {
    let source = TWO.replace("int one", "__attribute__((noipa)) int one");
    let patched = source.replace("x + 1", "x + 200").replace("x * 3", "one(x) * 300");
    let delta = diff(&source, &format!("{patched} {}", note(".kmend.ignore.functions", "one"))).unwrap();
    assert_eq!(functions(&delta), ["two"]);
    assert_eq!(originals(&delta), ["one"], "patched code calls the running one");
    assert!(delta.notes.len() == 1 && delta.notes[0].starts_with("one changes"), "{:?}", delta.notes);

    let table = "int table[2] __attribute__((section(\"odd_table\"))) = { 1, 2 };";
    let source = format!("{TWO} {table}");
    let patched = source.replace("{ 1, 2 }", "{ 1, 3 }");
    assert!(diff(&source, &patched).is_err());
    let delta = diff(&source, &format!("{patched} {}", note(".kmend.ignore.sections", "odd_table"))).unwrap();
    assert!(delta.is_empty() && delta.notes[0].starts_with("table changes"), "{:?}", delta.notes);

    let delta = diff(TWO, &format!("{TWO} {}", note(".kmend.ignore.functions", "three"))).unwrap();
    assert!(delta.notes[0].contains("three"), "a name that leads nowhere is told");
}

#[test]
fn objects_without_function_sections_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unit.c"), TWO).unwrap();
    Command::new("gcc").args(["-O2", "-c", "unit.c", "-o", "unit.o"]).folder(folder.path()).run().unwrap();
    let shared = Object::parse(&fs::read(folder.path().join("unit.o")).unwrap()).unwrap();
    assert_eq!(codes(compare(&shared, &shared)), [Code::NoFunctionSections]);
}

/// Each update as `VARIABLE WORDS`, with `+` if it leads into the livepatch.
fn updates(result: Result<Delta, Vec<Refusal>>) -> Vec<String> {
    let delta = result.expect("it should not have been refused");
    assert_eq!(delta.update_table.is_some(), !delta.updates.is_empty());
    let text = |update: &kmend_diff::VariableUpdate| {
        format!("{} {}{}", update.variable, update.words, if update.pins { "+" } else { "" })
    };
    delta.updates.iter().map(text).collect()
}

#[test]
fn constants_are_updated_word_by_word() {
    let table = |values: &str| {
        format!(
            "const int table[] = {{ {values} }}; int ext(const int *); int f(void) {{ return ext(table); }}"
        )
    };
    let change = |values: &str| diff(&table("1, 2, 3, 4, 5"), &table(values));
    assert_eq!(updates(change("1, 2, 9, 4, 5")), ["table 1"]);
    // Two numbers of eight aligned bytes are one word.
    assert_eq!(updates(change("1, 2, 9, 9, 5")), ["table 1"]);
    assert_eq!(updates(change("9, 2, 3, 4, 9")), ["table 2"]);
    assert!(functions(&change("9, 2, 3, 4, 9").unwrap()).is_empty());
    assert_eq!(codes(change("1, 2, 3, 4, 5, 6")), [Code::ChangedGlobal]);
}

#[test]
fn the_table_of_words_holds_place_width_and_both_values() {
    let source = |value: &str| {
        format!(
            "const short pair[] = {{ 1, {value} }}; int ext(const short *); int f(void) {{ return ext(pair); }}"
        )
    };
    let delta = diff(&source("0x1234"), &source("0x1256")).unwrap();
    let object = &delta.extract.object;
    let table = object.symbol(delta.update_table.unwrap());
    let section = object.section(table.section().unwrap());
    let word = |at: usize| u64::from_le_bytes(section.data[at..at + 8].try_into().unwrap());
    // One byte differs, at +2; the variable is read-only.
    assert_eq!((section.size, word(8), word(16), word(24)), (32, 1 | 1 << 32, 0x34, 0x56));
    let [place] = section.relocations.as_slice() else { panic!("{:?}", section.relocations) };
    assert_eq!((place.offset, place.kind, place.addend), (0, elf::R_X86_64_64, 2));
    assert_eq!(delta.extract.references[&place.symbol], Reference::Original { name: "pair".into() });
}

#[test]
fn pointers_to_functions_are_updated_in_writable_data_too() {
    let source = |quality: &str, operation: &str| {
        format!(
            "struct operations {{ int (*run)(int); const char *name; int number; }};
             int one(int x) {{ return x + 1; }} int two(int x) {{ return x + 2; }}
             {quality} struct operations operations = {{ {operation} }};
             int ext(const void *); int f(void) {{ return ext(&operations); }}"
        )
    };
    let change = |quality, operation| diff(&source(quality, ".run = one"), &source(quality, operation));
    for quality in ["", "const"] {
        assert_eq!(updates(change(quality, ".run = two")), ["operations 1"], "{quality}");
        assert_eq!(updates(change(quality, "0")), ["operations 1"], "{quality}");
        // A string of the livepatch has no place that could be named, nor has one of the kernel.
        assert_eq!(codes(change(quality, ".run = one, .name = \"x\"")), [Code::ChangedData], "{quality}");
    }
    assert_eq!(updates(change("const", ".run = one, .number = 7")), ["operations 1"]);
    assert_eq!(codes(change("", ".run = one, .number = 7")), [Code::ChangedData]);
    let asked = source("", ".run = one, .number = 7")
        + "static const char ask[] __attribute__((used, section(\".kmend.update\"))) = \"operations\";";
    assert_eq!(updates(diff(&source("", ".run = one"), &asked)), ["operations 1"]);
}

#[test]
fn a_pointer_to_a_new_function_brings_it_along() {
    let source = |new: &str, run: &str| {
        format!(
            "int one(int x) {{ return x + 1; }} {new}
             int (*const table[])(int) = {{ {run} }};
             int ext(const void *); int f(void) {{ return ext(table); }}"
        )
    };
    let new = "int ext2(int); static int three(int x) { return ext2(x) + 3; }";
    let delta = diff(&source("", "one"), &source(new, "three")).unwrap();
    assert_eq!(functions(&delta), ["+three"]);
    assert_eq!(updates(Ok(delta)), ["table 1+"]);
}
