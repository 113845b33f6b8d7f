//! Names that the compiler numbers.

use super::*;

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
fn another_name_for_a_function_is_no_change() {
    let plain = "int ext(int); static __attribute__((noinline)) int f(int x) { return ext(x + 1); } int g(int x) { return f(x) + 1; }";
    for alias in [
        "extern typeof(f) another __attribute__((alias(\"f\")));",
        "static typeof(f) another __attribute__((alias(\"f\"), used));",
    ] {
        let patched = format!("{plain} {alias}");
        assert!(diff(plain, &patched).unwrap().is_empty(), "{alias}");
        assert!(diff(&patched, plain).unwrap().is_empty(), "{alias}");
        let changed = patched.replace("x + 1)", "x + 2)");
        assert_eq!(functions(&diff(plain, &changed).unwrap()), ["f"], "{alias}");
    }
}

#[test]
fn static_functions_that_become_one_or_two_are_told_apart_by_who_calls_them() {
    // As gcc folds functions of equal code (-fipa-icf).
    let two = "int ext(int); static __attribute__((noinline)) int one(int x) { return ext(x); }
        static __attribute__((noinline)) int other(int x) { return ext(x); }
        int f(int x) { return one(x) + 3; } int g(int x) { return other(x) + 4; }";
    let folded = "int ext(int); static __attribute__((noinline)) int one(int x) { return ext(x); }
        static typeof(one) other __attribute__((alias(\"one\")));
        int f(int x) { return one(x) + 3; } int g(int x) { return other(x) + 4; }";
    let apart = two.replace("other(int x) { return ext(x)", "other(int x) { return ext(x + 7)");
    let delta = diff(folded, &apart).unwrap();
    assert_eq!(functions(&delta), ["+other", "g"], "f() and one() stay");
    let joined = diff(&apart, folded).unwrap();
    assert_eq!(functions(&joined), ["g"], "other() is one() now");
    // Other units call the global one: it is the living one, and the static one goes along as new.
    let global = |source: &str| {
        source.replace("static __attribute__((noinline)) int other", "__attribute__((noinline)) int other")
    };
    let global_alias = folded.replace("static typeof(one) other", "extern typeof(one) other");
    assert_eq!(functions(&diff(&global_alias, &global(&apart)).unwrap()), ["+one", "f", "other"]);
    assert_eq!(functions(&diff(&global(&apart), &global_alias).unwrap()), ["f", "other"]);
    // Two that are global are called by names of their own: one place cannot be both.
    let both = |source: &str| global(source).replace("static __attribute__((noinline)) int one", "int one");
    assert_eq!(codes(diff(&both(&global_alias), &both(&apart))), [Code::Unexplained]);
    assert_eq!(codes(diff(&both(&apart), &both(&global_alias))), [Code::Unexplained]);
}
