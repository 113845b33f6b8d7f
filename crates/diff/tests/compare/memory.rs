//! Variables whose memory changes its kind, and references to what is freed.

use super::*;

/// A function that uses `v`, changed on the patched side.
fn with(variable: &str, number: u32) -> String {
    format!(
        "extern int ext(volatile int *, int); {variable}; int f(int x) {{ return ext(&v, x + {number}); }}"
    )
}

fn in_section(section: &str) -> String {
    format!("int v __attribute__((section(\"{section}\")))")
}

/// What changes if the variable does, and a function with it.
fn change(before: &str, after: &str) -> Result<Delta, Vec<Refusal>> {
    diff(&with(before, 1), &with(after, 2))
}

#[test]
fn a_kind_of_memory_that_changes_is_refused() {
    let per_cpu = in_section(".data..percpu");
    let after_start = in_section(".data..ro_after_init");
    let start = in_section(".init.data");
    for (before, after) in [
        ("const int v = 5", "int v = 5"),
        ("static const int v = 5", "static int v = 5"),
        ("int v = 5", "const int v = 5"),
        ("int v", &after_start),
        ("int v", &per_cpu),
        (&per_cpu, "int v"),
        (&after_start, "int v"),
        (&after_start, &per_cpu),
        (&start, "int v"),
        ("int v", &in_section("a_list_of_somebody")),
        (&in_section("a_list_of_somebody"), "int v"),
        ("int v", &in_section(".bss..decrypted")),
        ("int v", "int v __attribute__((aligned(64)))"),
    ] {
        let codes = codes(change(before, after));
        assert!(codes.contains(&Code::ChangedMemory), "{before} to {after}: {codes:?}");
        assert!(!codes.contains(&Code::ChangedData), "{before} to {after}: {codes:?}");
    }
}

#[test]
fn what_living_memory_bears_is_used_as_it_is() {
    for (before, after) in [
        ("int v", &*in_section(".data..read_mostly")),
        (&*in_section(".data..read_mostly"), "int v"),
        (&*in_section(".data..ro_after_init"), "const int v = 0"),
        ("int v __attribute__((aligned(64)))", "int v"),
    ] {
        let delta =
            change(before, after).unwrap_or_else(|refusals| panic!("{before} to {after}: {refusals:?}"));
        assert_eq!(functions(&delta), ["f"], "{before} to {after}");
        assert_eq!(originals(&delta), ["v"], "{before} to {after}");
        assert!(delta.updates.is_empty(), "{before} to {after}: {:?}", delta.updates);
    }
}

#[test]
fn what_is_freed_is_not_referred_to() {
    let start = "__attribute__((section(\".init.text\")))";
    let source = format!(
        "int ext(int); {start} __attribute__((noinline)) int begin(int x) {{ return ext(x); }}
         int table[4] __attribute__((section(\".init.data\"))) = {{ 1 }};
         int later(int x) {{ return ext(x + 1); }}"
    );
    for added in ["begin(x)", "table[x]"] {
        let patched = source.replace("ext(x + 1)", &format!("ext(x + 1) + {added}"));
        assert_eq!(codes(diff(&source, &patched)), [Code::ChangedInit], "{added}");
    }
}

#[test]
fn constants_that_stay_after_the_start_come_along() {
    let source = |section: &str, number| {
        format!(
            "int ext(const int *, int); __attribute__((section(\"{section}\"))) const int v[2] = {{ 1, 2 }};
             int f(int x) {{ return ext(v, x + {number}); }}"
        )
    };
    let delta = diff(&source(".init.rodata", 1), &source(".rodata.kept", 2)).unwrap();
    assert_eq!((functions(&delta), originals(&delta)), (vec!["f".to_owned()], vec![]));
    assert_eq!(delta.variables, ["v"]);
}
