use super::*;
use crate::apply::original_lines;

const FILE: &str = "#include <a.h>\n\nint one(int a)\n{\n\tlock();\n\twork();\nout:\n\tunlock();\n\treturn 0;\n}\n\nint two(int a)\n{\n\tlock();\n\twork();\nout:\n\tunlock();\n\treturn 0;\n}\n";

fn found(wanted: &str, expected: usize, heading: &str) -> Place {
    let wanted: Vec<&[u8]> = wanted.split_inclusive('\n').map(str::as_bytes).collect();
    let clues = Clues { expected, is_exact: true, heading, has_context: true, lead: 0 };
    place(&original_lines(FILE.as_bytes()), &wanted, 0, clues)
}

fn is_unsure(place: &Place) -> bool {
    matches!(place, Place::Unsure { .. })
}

#[test]
fn the_heading_decides_between_places_that_fit() {
    let wanted = "\tlock();\n\twork();\n";
    assert_eq!(found(wanted, 7, "int one(int a)"), Place::At(4));
    assert_eq!(found(wanted, 7, "int two(int a)"), Place::At(13));
    assert_eq!(found(wanted, 4, "int two(int a)"), Place::At(13), "the line alone does not count");
    assert_eq!(found(wanted, 7, "static long two(int a, int b)"), Place::At(13), "another signature");
    assert_eq!(found(wanted, 7, "int tw"), Place::At(13), "a heading that was cut");
}

#[test]
fn without_a_heading_only_the_very_line_counts() {
    let wanted = "\tlock();\n\twork();\n";
    assert_eq!(found(wanted, 13, ""), Place::At(13));
    assert!(is_unsure(&found(wanted, 12, "")));
    assert!(is_unsure(&found(wanted, 12, "int three(int a)")));
    assert_eq!(found(wanted, 13, "int three(int a)"), Place::At(13), "a name that is not in the file");
}

#[test]
fn a_label_may_be_a_heading() {
    let wanted = "\tunlock();\n\treturn 0;\n";
    assert!(is_unsure(&found(wanted, 3, "out:")), "both are behind such a label");
    assert_eq!(found(wanted, 16, "out:"), Place::At(16));
    assert_eq!(found(wanted, 3, "int two(int a)"), Place::At(16));
}

#[test]
fn one_place_in_another_function_than_the_heading_says_is_not_taken() {
    let file = FILE.replacen("\tlock();\n", "\tlock_all();\n", 1);
    let lines = original_lines(file.as_bytes());
    let wanted: [&[u8]; 2] = [b"\tlock();\n", b"\twork();\n"];
    let at = |expected, heading| {
        place(&lines, &wanted, 0, Clues { expected, is_exact: true, heading, has_context: true, lead: 0 })
    };
    assert!(is_unsure(&at(4, "int one(int a)")));
    assert_eq!(at(4, "int gone(int a)"), Place::At(13));
    assert_eq!(at(13, "int one(int a)"), Place::At(13), "lines and number agree");
    let wanted: [&[u8]; 3] = [b"\n", b"int two(int a)\n", b"{\n"];
    let clues = Clues { expected: 4, is_exact: true, heading: "#", has_context: true, lead: 2 };
    assert_eq!(place(&lines, &wanted, 0, Clues { heading: "int two(int a)", ..clues }), Place::At(10));
}

#[test]
fn without_context_line_and_heading_must_fit() {
    let lines = original_lines(FILE.as_bytes());
    let at = |wanted: &[&[u8]], expected, heading| {
        place(&lines, wanted, 0, Clues { expected, is_exact: true, heading, has_context: false, lead: 0 })
    };
    assert_eq!(at(&[], 5, "int one(int a)"), Place::At(5));
    assert!(is_unsure(&at(&[], 14, "int one(int a)")));
    assert!(is_unsure(&at(&[], 5, "")));
    assert_eq!(at(&[], 1, ""), Place::At(1), "before any function there is no heading");
    assert!(is_unsure(&at(&[], 1, "int one(int a)")));
    assert_eq!(at(&[b"\twork();\n"], 14, "int two(int a)"), Place::At(14));
    assert!(is_unsure(&at(&[b"\twork();\n"], 13, "int two(int a)")));
    assert_eq!(at(&[b"#include <a.h>\n"], 0, ""), Place::At(0));
    assert_eq!(at(&[], 4000, "int two(int a)"), Place::Nowhere);
}

#[test]
fn all_places_are_found_that_overlap_too() {
    let lines = original_lines(b"a\na\na\na\nb\na\na\n");
    let wanted: [&[u8]; 2] = [b"a\n", b"a\n"];
    assert_eq!(all_places(&lines, &wanted, 0, 0), [0, 1, 2, 5]);
    assert_eq!(all_places(&lines, &wanted, 2, 0), [2, 5]);
    assert_eq!(all_places(&lines, &[b"a\n", b"b\n"], 0, 0), [3]);
    assert_eq!(loose_places(&original_lines(b"x\n\ta b\n  c\n"), &[b" ab\n", b"c \n"]), [1]);
    assert!(loose_places(&lines, &[b" \n"]).is_empty());
}

#[test]
fn macros_that_define_functions_are_told_apart_by_their_argument() {
    assert!(is_same(b"SYSCALL_DEFINE3(getdents, unsigned int, fd,", "SYSCALL_DEFINE3(getdents, int, fd,"));
    assert!(!is_same(b"SYSCALL_DEFINE3(getdents64, unsigned int, fd,", "SYSCALL_DEFINE3(getdents, int, fd,"));
    assert!(!is_same(b"bool compat_fillonedir(struct x *y)", "static bool fillonedir(struct x *y)"));
}
