//! Tables that register something.

use super::*;

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
