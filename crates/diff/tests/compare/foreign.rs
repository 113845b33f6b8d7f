//! Objects that others made: what tools have been over, of other kernels, with kpatch's sections.

use super::*;
use kmend_object::Relocation;

/// As recordmcount and objtool leave a call of the tracer.
fn with_nops(mut object: Object) -> Object {
    let tracer = object.symbols.iter().position(|symbol| symbol.name == "__fentry__").unwrap();
    for section in &mut object.sections {
        for relocation in &mut section.relocations {
            if relocation.symbol.index() == tracer && section.flags & elf::SHF_EXECINSTR != 0 {
                let at = relocation.offset as usize - 1;
                section.data[at..at + 5].copy_from_slice(&[0x0f, 0x1f, 0x44, 0x00, 0x00]);
                relocation.kind = elf::R_X86_64_NONE;
            }
        }
    }
    object
}

fn report(original: &Object, patched: &Object) -> Delta {
    kmend_diff::compare(original, patched, Fentry::IfUsed).unwrap()
}

#[test]
fn a_call_of_the_tracer_may_be_a_nop_already() {
    let [before, after] =
        [TWO.to_owned(), TWO.replace("x + 1", "x + 200")].map(|source| with_nops(object(&source)));
    let delta = report(&before, &after);
    assert_eq!(functions(&delta), ["one"]);
    assert!(delta.notes.is_empty(), "{:?}", delta.notes);
    // A livepatch could be made of it.
    assert_eq!(functions(&compare(&before, &after).unwrap()), ["one"]);
}

#[test]
fn what_could_not_be_redirected_is_a_remark() {
    let source =
        "int ext(int); __attribute__((no_instrument_function)) int quiet(int x) { return ext(x + 1); }
        int other(int x) { return ext(x); }";
    let patched = source.replace("x + 1", "x + 200");
    assert_eq!(codes(diff(source, &patched)), [Code::NoFentry]);
    for change in [|object| object, with_nops] {
        let delta = report(&change(object(source)), &change(object(&patched)));
        assert_eq!(functions(&delta), ["quiet"]);
        assert!(delta.notes[0].contains("quiet could not be redirected"), "{:?}", delta.notes);
    }
}

/// Two functions, each with an entry of a table behind the instruction at `1:`, written so many times.
fn with_table(section: &str, entry: &str, times: usize) -> String {
    let site = |name: &str, add: u32| {
        let entries = format!(".pushsection {section},\\\"a\\\"\\n{entry}.popsection\\n").repeat(times);
        format!(
            "int {name}(int x) {{ asm volatile(\"1: nop\\n2: nop\\n3:\\n{entries}\"); return ext(x + {add}); }}\n"
        )
    };
    format!("int ext(int); extern char handler[];\n{}{}", site("one", 1), site("two", 3))
}

#[test]
fn tables_of_other_kernels_are_cut_by_the_places_of_their_relocations() {
    for (section, entry) in [
        // In older kernels nothing stands behind the last one (arch/x86/include/asm/paravirt_types.h).
        (".parainstructions", ".balign 8\\n.quad 1b\\n.byte 4\\n.byte 2\\n.short 1\\n"),
        // 4.6 to 5.15 (arch/x86/include/asm/asm.h).
        ("__ex_table", ".balign 4\\n.long 1b - .\\n.long 2b - .\\n.long handler - .\\n"),
        // Until 4.5.
        ("__ex_table", ".balign 4\\n.long 1b - .\\n.long 2b - .\\n"),
        ("__ex_table", ".balign 4\\n.long 1b - .\\n.long 2b - .\\n.long 3\\n"),
        // Without a file name, and with absolute addresses.
        ("__bug_table", ".long 1b - .\\n.word 7\\n"),
        ("__bug_table", ".long 1b - .\\n.long handler - .\\n.word 5, 7\\n"),
        ("__jump_table", ".balign 8\\n.quad 1b, 2b, handler\\n"),
        (".altinstructions", ".long 1b - .\\n.long 2b - .\\n.word 9\\n.byte 1, 1, 0\\n"),
    ] {
        for times in [1, 2, 3] {
            let source = with_table(section, entry, times);
            let delta = diff(&source, &source.replace("x + 1", "x + 200")).unwrap();
            assert_eq!(functions(&delta), ["one"], "{section} {entry}");
            let object = &delta.extract.object;
            let table = object.section(object.section_named(section).unwrap());
            let first = |relocation: &&Relocation| {
                object.symbol(relocation.symbol).section().is_some_and(|id| object.section(id).is_code())
            };
            assert!(table.relocations.iter().filter(first).count() >= times, "{section} {entry}");
            let places = table.relocations.iter().all(|relocation| relocation.offset < table.size);
            assert!(places && table.relocations.len().is_multiple_of(times));
            // One of the other function's entries more is no change of the first.
            let more = source
                .replace("int two(int x) {", "int two(int x) { asm volatile(\"1: nop\\n2: nop\\n3:\\n\");");
            let delta = diff(&source, &more).unwrap();
            assert_eq!(
                functions(&delta),
                ["two"],
                "{section} {entry} {times} {:?}",
                delta.functions[0].reasons
            );
        }
    }
}

#[test]
fn an_entry_more_changes_its_function_alone() {
    let entry = ".balign 8\\n.quad 1b\\n.byte 4\\n.byte 2\\n.short 1\\n";
    let source = with_table(".parainstructions", entry, 1);
    let twice = with_table(".parainstructions", entry, 2);
    let two = |source: &str| source[source.find("int two").unwrap()..].to_owned();
    let patched = source.replace(&two(&source), &two(&twice));
    assert_eq!(functions(&diff(&source, &patched).unwrap()), ["two"]);
}

#[test]
fn kpatch_says_the_same_by_other_names() {
    let source = "int ext(int); int one(int x) { return ext(x + 1); } int two(int x) { return ext(x + 3); }";
    let both = source.replace("x + 1", "x + 100").replace("x + 3", "x + 300");
    let ignore = "void *ignored __attribute__((section(\".kpatch.ignore.functions\"))) = one;";
    assert_eq!(functions(&diff(source, &format!("{both}{ignore}")).unwrap()), ["two"]);
    let callback = "static int before(void *object) { return ext(7); }
        struct { int (*call)(void *); char *object; } callbacks __attribute__((section(\".kpatch.callbacks.pre_patch\"))) = { before, 0 };";
    let delta = diff(source, &format!("{both}{callback}")).unwrap();
    assert_eq!(functions(&delta), ["+before", "one", "two"]);
    assert_eq!(
        (delta.callbacks[0].moment, delta.callbacks[0].function.as_str()),
        (Moment::PrePatch, "before")
    );
    let forced = "int *forced __attribute__((section(\".kpatch.force\"))) = (int *)one;";
    assert_eq!(functions(&diff(source, &format!("{both}{forced}")).unwrap()), ["one", "two"]);
}
