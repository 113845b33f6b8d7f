//! Values that are exchanged in place.

use super::*;

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
    assert_eq!((section.size, word(8), word(16), word(24)), (40, 1 | 1 << 32, 0x34, 0x56));
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
    }
    assert_eq!(updates(change("const", ".run = one, .name = \"x\"")), ["operations 1+"]);
    // Where a writable pointer to a string leads by now is not known.
    assert_eq!(codes(change("", ".run = one, .name = \"x\"")), [Code::ChangedData]);
    assert_eq!(updates(change("const", ".run = one, .number = 7")), ["operations 1"]);
    assert_eq!(codes(change("", ".run = one, .number = 7")), [Code::ChangedData]);
    let asked = source("", ".run = one, .number = 7")
        + "static const char ask[] __attribute__((used, section(\".kmend.update\"))) = \"operations\";";
    assert_eq!(updates(diff(&source("", ".run = one"), &asked)), ["operations 1"]);
}

#[test]
fn strings_of_constant_tables_are_told_by_their_text() {
    let table = |quality: &str, word: &str| {
        format!(
            "const char *{quality} words[] = {{ \"one\", \"{word}\", \"three\" }};
             int ext(const void *); int f(void) {{ return ext(words); }}"
        )
    };
    let delta = diff(&table("const", "two"), &table("const", "zwei")).unwrap();
    let object = &delta.extract.object;
    let section = object.section(object.symbol(delta.update_table.unwrap()).section().unwrap());
    assert!(section.is_writable() && section.data[12..16] == 3_u32.to_le_bytes(), "constant, and a text");
    let [_, old, new] = section.relocations.as_slice() else { panic!("{:?}", section.relocations) };
    let text = |relocation: &kmend_object::Relocation| {
        let home = object.section(object.symbol(relocation.symbol).section().unwrap());
        home.string_at(relocation.addend as u64).unwrap().to_string()
    };
    assert_eq!((old.offset, text(old), new.offset, text(new)), (16, "two".into(), 24, "zwei".into()));
    assert!(delta.updates[0].pins && delta.updates[0].words == 1);
    let refusals = diff(&table("", "two"), &table("", "zwei")).unwrap_err();
    assert!(refusals[0].why.contains("its pointer to \"two\" changes, and it is writable"), "{refusals:?}");
    let asked = table("", "zwei") + &note(".kmend.update", "words");
    assert_eq!(codes(diff(&table("", "two"), &asked)), [Code::ChangedData]);
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

#[test]
fn a_zero_is_the_same_with_and_without_bytes_in_the_file() {
    let source = |attribute: &str, add: u32| {
        format!(
            "static int seen {attribute}; int ext(int); int f(int x) {{ seen++; return ext(x + seen + {add}); }}"
        )
    };
    let often = "__attribute__((section(\".data..read_mostly\")))";
    for (before, after) in [("", often), (often, "")] {
        let delta = diff(&source(before, 1), &source(after, 2)).unwrap();
        assert_eq!((functions(&delta), originals(&delta)), (vec!["f".to_owned()], vec!["seen"]));
        assert!(delta.updates.is_empty() && delta.update_table.is_none());
    }
    let one = format!("{often} = 1");
    assert_eq!(codes(diff(&source("", 1), &source(&one, 2))), [Code::ChangedData]);
}
