//! Strings that code refers to.

use super::*;

/// A function that refers to a literal.
fn user(literal: &str, add: u32) -> String {
    format!("int ext(const void *, int); int f(int x) {{ return ext({literal}, x + {add}); }}")
}

/// The bytes that the one reference of `f` to the copied strings leads to, and what the section is aligned to.
fn copied(delta: &Delta) -> (Vec<u8>, u64) {
    let object = &delta.extract.object;
    let strings = object.section_named(".rodata.kmend_strings").unwrap();
    let code = object.section(object.section_named(".text.f").unwrap());
    let to_strings =
        |relocation: &&kmend_object::Relocation| object.symbol(relocation.symbol).section() == Some(strings);
    let [reference] = code.relocations.iter().filter(to_strings).collect::<Vec<_>>()[..] else {
        panic!("{:?}", code.relocations)
    };
    let tail = if elf::is_relative(reference.kind) { 4 } else { 0 };
    let at = (reference.addend + tail) as usize;
    (object.section(strings).data[at..].to_vec(), object.section(strings).align)
}

#[test]
fn a_literal_is_copied_whole_by_its_characters() {
    let change = |literal: &str| copied(&diff(&user(literal, 1), &user(literal, 200)).unwrap());
    assert_eq!(change("\"BD\"").0, b"BD\0");
    let (bytes, align) = change("u\"BD\"");
    assert_eq!((bytes.as_slice(), align.max(2)), (&b"B\0D\0\0\0"[..], align));
    let (bytes, align) = change("U\"B\\x100\"");
    assert_eq!((bytes.as_slice(), align.max(4)), (&b"B\0\0\0\0\x01\0\0\0\0\0\0"[..], align));
    assert_eq!(change("u\"\"").0, b"\0\0");
    // What a section of its own for long strings aligns to eight stays so.
    let long = format!("\"{}\"", "x".repeat(40));
    assert_eq!(change(&long).1, 8);
}

#[test]
fn a_difference_behind_the_first_zero_byte_is_one() {
    for (before, after) in
        [("u\"BD\"", "u\"BE\""), ("U\"BD\"", "U\"BE\""), ("u\"\"", "\"\""), ("u\"B\"", "\"B\"")]
    {
        let delta = diff(&user(before, 1), &user(after, 1)).unwrap();
        assert_eq!(functions(&delta), ["f"], "{before} {after}");
        assert!(matches!(delta.functions[0].reasons[0], Reason::Text { .. }));
    }
    let delta = diff(&user("u\"BD\"", 1), &user("u\"BE\"", 1)).unwrap();
    assert_eq!(delta.functions[0].reasons, [Reason::Text { before: "BD".into(), after: "BE".into() }]);
}

#[test]
fn strings_of_several_alignments_stand_beside_each_other() {
    let source = |add: u32| {
        format!(
            "int ext(const void *, const void *, const void *, int);
             int f(int x) {{ return ext(\"a\", u\"bc\", U\"d\", x + {add}); }}"
        )
    };
    let delta = diff(&source(1), &source(200)).unwrap();
    let object = &delta.extract.object;
    let strings = object.section(object.section_named(".rodata.kmend_strings").unwrap());
    assert_eq!(strings.size, strings.data.len() as u64);
    let at = |text: &[u8]| strings.data.windows(text.len()).position(|window| window == text).unwrap();
    assert!(at(b"b\0c\0\0\0").is_multiple_of(2) && at(b"d\0\0\0\0\0\0\0").is_multiple_of(4));
}

#[test]
fn a_text_without_an_end_is_refused() {
    let source = |add: u32| {
        format!(
            "int ext(int); int f(int x) {{ int y; asm(\"lea 1f(%%rip), %0\\n.pushsection .rodata.str2.2,\\\"aMS\\\",@progbits,2\\n\"
                \".ascii \\\"abc\\\"\\n1: .ascii \\\"d\\\\0\\\\0\\\\0\\\"\\n.popsection\" : \"=r\"(y)); return ext(x + y + {add}); }}"
        )
    };
    let refusals = diff(&source(1), &source(200)).unwrap_err();
    assert_eq!(refusals[0].code, Code::UnsupportedReference);
    assert!(refusals[0].why.contains(".rodata.str2.2+0x3"), "{}", refusals[0].why);
}
