//! Tables that register something.

use super::*;
use crate::state::both;

const TABLE: &str = "int ext(int); int f(int x) { return ext(x + 1); } int g(int x) { return ext(x + 9); }
    __attribute__((section(\"strange_table\"), used)) static void *entry = f;";

#[test]
fn an_unchanged_table_may_lead_to_the_entry_of_a_changed_function() {
    let delta = diff(TABLE, &TABLE.replace("x + 1", "x + 2")).unwrap();
    assert_eq!(functions(&delta), ["f"]);
    // An offset relative to the entry of the table, as DECLARE_PCI_FIXUP_SECTION writes it (include/linux/pci.h).
    let quirk = "int ext(int); void f(int x) { ext(x + 1); }
        asm(\".section .pci_fixup_final, \\\"a\\\"\\n.balign 16\\n.short 1, 2\\n.long 3, 4\\n.long f - .\\n.previous\");";
    let delta = diff(quirk, &quirk.replace("x + 1", "x + 2")).unwrap();
    assert_eq!(functions(&delta), ["f"]);
}

#[test]
fn a_place_inside_a_changed_function_is_refused_where_no_row_knows_the_table() {
    let source = "int ext(int); int f(int x) { x = ext(x); asm volatile(\"1:\\n.pushsection strange_table,\\\"a\\\"\\n\"
        \".quad 1b\\n.popsection\"); return ext(x + 1); } int g(int x) { return ext(x + 9); }";
    let refusals = diff(source, &source.replace("x + 1", "x + 2")).unwrap_err();
    assert_eq!((refusals[0].code, refusals[0].subject.as_str()), (Code::UnknownSection, "strange_table"));
    let delta = diff(source, &source.replace("x + 9", "x + 10")).unwrap();
    assert_eq!(functions(&delta), ["g"], "a section that refers to others is no obstacle");
}

#[test]
fn a_changed_unknown_table_is_refused_by_name() {
    for patched in [
        TABLE.replace("= f", "= g"),
        TABLE.replace(
            "entry = f;",
            "entry = f; __attribute__((section(\"strange_table\"), used)) static void *more = g;",
        ),
        TABLE.replace("entry = f;", "entry;"),
        TABLE.replace("section(\"strange_table\"),", ""),
    ] {
        let refusals = diff(TABLE, &patched).unwrap_err();
        assert_eq!((refusals[0].code, refusals[0].subject.as_str()), (Code::UnknownSection, "strange_table"));
    }
}

/// A unit with a set of functions with flags, as BTF_SET8_START and BTF_ID_FLAGS write it (include/linux/btf_ids.h). The
/// numbers are those of the compiler.
fn set(entries: &[(&str, u32, u32)]) -> String {
    let head = ".pushsection .BTF_ids,\\\"a\\\"\\n.local kfuncs\\nkfuncs:\\n.popsection\\n\
         .pushsection .BTF_ids,\\\"a\\\"\\n.local __BTF_ID__set8__kfuncs\\n__BTF_ID__set8__kfuncs:\\n.zero 8\\n.popsection\\n";
    let entry = |(name, number, flags): &(&str, u32, u32)| {
        let symbol = format!("__BTF_ID__func__{name}__{number}");
        format!(
            ".pushsection .BTF_ids,\\\"a\\\"\\n.local {symbol}\\n.type {symbol}, STT_OBJECT\\n.size {symbol}, 4\\n{symbol}:\\n\
             .zero 4\\n.long {flags}\\n.popsection\\n"
        )
    };
    let entries: String = entries.iter().map(entry).collect();
    let text = format!("{head}{entries}");
    format!("asm(\"{text}\"); int ext(int); int f(int x) {{ return ext(x + 1); }}")
}

#[test]
fn a_set_of_types_that_changes_is_refused_with_what_changes() {
    let before = set(&[("a", 10, 0), ("b", 11, 4)]);
    for (entries, expect) in [
        (&[("a", 10, 0)][..], "b leaves it"),
        (&[("a", 10, 0), ("b", 11, 4), ("c", 12, 0)], "c joins it"),
        (&[("a", 10, 0), ("b", 11, 20)], "the flags of b change"),
        (&[("a", 10, 0), ("c", 11, 4)], "b leaves it"),
        (&[], "a leaves it"),
    ] {
        // Also beside a change of code.
        for code in ["x + 1", "x + 200"] {
            let refusals = diff(&before, &set(entries).replace("x + 1", code)).unwrap_err();
            assert_eq!(
                (refusals[0].code, refusals[0].subject.as_str()),
                (Code::ChangedRegistration, "kfuncs")
            );
            assert!(refusals[0].why.contains(expect), "{}", refusals[0].why);
        }
    }
    let ignored =
        set(&[("a", 10, 0)]).replace("x + 1", "x + 200") + &note(".kmend.ignore.sections", ".BTF_ids");
    assert_eq!(functions(&diff(&before, &ignored).unwrap()), ["f"]);
}

#[test]
fn the_declaration_of_a_function_in_a_set_is_the_kernel_s() {
    let unit = |parameters: &str, more: &str| {
        format!("{} int a({parameters}) {{ return ext(x){more}; }}", set(&[("a", 10, 0)]))
    };
    assert_eq!(functions(&both(&unit("int x", ""), &unit("int x", " + 1")).unwrap()), ["a"]);
    for parameters in ["int x__sz", "long x", "int x, int y__ign"] {
        let patched = unit(parameters, "")
            .replace("ext(x)", if parameters.contains("x__sz") { "ext(x__sz)" } else { "ext(x)" });
        let refusals = both(&unit("int x", ""), &patched).unwrap_err();
        assert_eq!((refusals[0].code, refusals[0].subject.as_str()), (Code::ChangedRegistration, "a"));
    }
}

#[test]
fn a_set_of_types_is_the_same_whatever_the_compiler_counts() {
    let before = set(&[("a", 10, 0), ("b", 11, 4)]);
    assert!(diff(&before, &set(&[("a", 20, 0), ("b", 31, 4)])).unwrap().is_empty());
    // It is sorted at the final link.
    assert!(diff(&before, &set(&[("b", 10, 4), ("a", 11, 0)])).unwrap().is_empty());
}

#[test]
fn a_list_of_types_counts_in_its_order() {
    let list = |first: &str, second: &str| {
        set(&[]).replace(
            "asm(\"",
            &format!(
                "asm(\".pushsection .BTF_ids,\\\"a\\\"\\nids:\\n__BTF_ID__struct__{first}__7:\\n.zero 4\\n__BTF_ID__struct__{second}__8:\\n\
                 .zero 4\\n.popsection\\n"
            ),
        )
    };
    assert!(diff(&list("a", "b"), &list("a", "b")).unwrap().is_empty());
    let refusals = diff(&list("a", "b"), &list("b", "a")).unwrap_err();
    assert_eq!((refusals[0].subject.as_str(), refusals[0].code), ("ids", Code::ChangedRegistration));
    assert!(refusals[0].why.contains("order"), "{}", refusals[0].why);
}

#[test]
fn an_entry_that_was_read_at_the_start_is_refused_when_it_comes_goes_or_changes() {
    let source = |entries: &str| {
        format!(
            "int ext(int); int f(int x) {{ return ext(x + 1); }} int g(int x) {{ return ext(x + 9); }} {entries}"
        )
    };
    let entry = |name: &str, function: &str| {
        format!(
            "static void *{name} __attribute__((section(\"_error_injection_whitelist\"), used)) = {function};"
        )
    };
    let (one, other) = (entry("_eil_f", "f"), entry("_eil_g", "g"));
    for (before, after) in [
        (source(&one), source("")),
        (source(""), source(&one)),
        (source(&one), source(&other)),
        (source(&one), source(&entry("_eil_f", "g"))),
    ] {
        assert!(codes(diff(&before, &after)).iter().all(|code| *code == Code::ChangedRegistration));
        assert!(codes(diff(&before, &after.replace("x + 9", "x + 90"))).contains(&Code::ChangedRegistration));
    }
    let changed = source(&one).replace("x + 1", "x + 100");
    assert_eq!(functions(&diff(&source(&one), &changed).unwrap()), ["f"]);
}

#[test]
fn an_entry_that_is_read_of_each_module_goes_with_what_it_registers() {
    let table = "__attribute__((section(\"___srcu_struct_ptrs\"), used))";
    let source = |variables: &str, code: &str| {
        format!(
            "struct srcu {{ long a, b; }}; int ext(void *); {variables} int f(int x) {{ {code} return x; }}"
        )
    };
    let new = format!("static struct srcu new; struct srcu *const __srcu_struct_new {table} = &new;");
    let delta = diff(&source("", ""), &source(&new, "x = ext(&new);")).unwrap();
    assert_eq!(functions(&delta), ["f"]);
    let object = &delta.extract.object;
    let entries = object.section(object.section_named("___srcu_struct_ptrs").unwrap());
    assert_eq!((entries.size, entries.relocations.len()), (8, 1));
    assert_eq!(object.symbol(entries.relocations[0].symbol).name, "new");
    // One that nothing uses, and one that goes.
    assert_eq!(codes(diff(&source("", ""), &source(&new, ""))), [Code::ChangedRegistration]);
    assert_eq!(codes(diff(&source(&new, ""), &source("", ""))), [Code::ChangedRegistration]);
    let format = |text: &str| {
        source(
            "",
            &format!(
                "static const char *format __attribute__((section(\"__trace_printk_fmt\"), used)) = \"{text}\"; x = ext(format);"
            ),
        )
    };
    let delta = diff(&source("", ""), &format("hello")).unwrap();
    assert!(delta.extract.object.section_named("__trace_printk_fmt").is_some());
    let unused = format("hello").replace("x = ext(format);", "x = ext(0);");
    let delta = diff(&source("", ""), &unused).unwrap();
    assert!(delta.extract.object.section_named("__trace_printk_fmt").is_some());
}
