//! Calls that do not come back, tables of labels, terms of exports, and functions that become notrace.

use super::*;

/// What a patch's new code calls without coming back.
fn ends(head: &str, before: &str, after: &str) -> Vec<String> {
    let source = |body: &str| format!("{head} int f(int x) {{ {body} }}");
    let delta = diff(&source(before), &source(after)).expect("it should not have been refused");
    let extract = &delta.extract;
    extract.ends.iter().map(|id| extract.references[id].name().to_owned()).collect()
}

#[test]
fn a_static_function_without_a_return_ends_its_callers() {
    let head = "int ext(int); void say(const char *);
        static void __attribute__((noinline, noclone)) die(int x) { say(\"dead\"); __builtin_trap(); }
        static void __attribute__((noinline, noclone)) live(int x) { say(\"alive\"); ext(x); say(\"on\"); }
        static void __attribute__((noinline, noclone)) through(int x) { say(\"through\"); die(x + 1); }";
    assert_eq!(
        ends(head, "if (x) die(x); live(x); return 1;", "if (x) die(x); live(x); return ext(2);"),
        ["die"]
    );
    let both = ends(
        head,
        "if (x > 3) through(x); if (x) die(x); return 1;",
        "if (x > 3) through(x); if (x) die(x); return 2;",
    );
    assert_eq!(both.len(), 2, "{both:?}");
    assert_eq!(ends(head, "die(1); return 1;", "die(2); return 1;"), ["die"]);
    assert_eq!(ends(head, "live(1); return 1;", "live(2); return 1;"), [""; 0]);
}

#[test]
fn where_nothing_follows_a_call_it_does_not_come_back() {
    let head = "void panic(const char *) __attribute__((noreturn)); int ext(int);";
    let end = ends(head, "if (ext(x)) return 1; panic(\"a\");", "if (ext(x)) return 2; panic(\"a\");");
    assert_eq!(end, ["panic"]);
    // A jump in place of a call and a return is none, and what follows another call is reached.
    assert_eq!(ends(head, "ext(1); return ext(x);", "ext(2); return ext(x);"), [""; 0]);
}

#[test]
fn a_table_of_labels_goes_along_with_its_function() {
    let source = |more: &str| {
        format!(
            "int ext(int);
             int run(const unsigned char *code, int x) {{
                 static const void *const table[4] = {{ &&add, &&sub, &&call, &&end }};
                 {more}
             #define NEXT goto *table[*code++]
                 NEXT;
                 add: x++; NEXT; sub: x--; NEXT; call: x = ext(x); NEXT;
                 end: return x;
             }}"
        )
    };
    let delta = diff(&source(""), &source("if (!code) return 0;")).unwrap();
    assert_eq!((functions(&delta), delta.updates.len()), (vec!["run".to_owned()], 0));
    let table = delta.extract.object.sections.iter().find(|section| section.name.contains("table")).unwrap();
    assert_eq!(table.relocations.len(), 4);
    let home = |relocation: &kmend_object::Relocation| {
        let object = &delta.extract.object;
        object.symbol(relocation.symbol).section().map(|id| object.section(id).name.clone())
    };
    assert!(table.relocations.iter().all(|relocation| home(relocation).as_deref() == Some(".text.run")));
    assert!(delta.outlives.is_empty(), "{:?}", delta.outlives);
    assert!(diff(&source(""), &source("")).unwrap().is_empty());
}

#[test]
fn other_terms_of_an_export_are_passed_over() {
    // As EXPORT_SYMBOL() writes it before and since Linux 6.4 (include/linux/export.h).
    let old = |gpl: &str, namespace: &str| {
        format!(
            "asm(\".section \\\"__ksymtab_strings\\\",\\\"aMS\\\",%progbits,1; n: .asciz \\\"f\\\"; __kstrtabns_f: s: .asciz \\\"{namespace}\\\"; .previous; \
              .section \\\"___ksymtab{gpl}+f\\\", \\\"a\\\"; .balign 4; __ksymtab_f: .long f - .; .long n - .; .long s - .; .previous\");"
        )
    };
    let new = |gpl: &str, namespace: &str| {
        let licence = if gpl.is_empty() { "" } else { "GPL" };
        format!(
            "asm(\".section \\\".export_symbol\\\",\\\"a\\\"; __export_symbol_f: .asciz \\\"{licence}\\\"; .asciz \\\"{namespace}\\\"; \
              .balign 8; .quad f; .previous\");"
        )
    };
    let passed = |export: &dyn Fn(&str, &str) -> String, gpl: &str, namespace: &str| {
        let original = format!("int f(int x) {{ return x; }} {}", export("", ""));
        let patched = format!("int f(int x) {{ return x + 1; }} {}", export(gpl, namespace));
        let delta = diff(&original, &patched).unwrap();
        delta
            .passed_over
            .iter()
            .map(|refusal| format!("{}: {}", refusal.subject, refusal.why))
            .collect::<Vec<_>>()
    };
    for export in [&old as &dyn Fn(&str, &str) -> String, &new] {
        assert_eq!(passed(export, "", ""), [""; 0]);
        assert_eq!(
            passed(export, "_gpl", ""),
            [
                "f: it is exported to all modules and the patch exports it to modules under the GPL: the running \
              kernel goes on as before"
            ]
        );
        assert_eq!(
            passed(export, "_gpl", "OF_F"),
            [
                "f: it is exported to all modules and the patch exports it to modules under the GPL, in the namespace \
              OF_F: the running kernel goes on as before"
            ]
        );
    }
}

#[test]
fn a_function_may_become_notrace() {
    let source =
        |quality: &str, x: u32| format!("int ext(int); {quality} int f(int x) {{ return ext(x) + {x}; }}");
    let notrace = "__attribute__((no_instrument_function, patchable_function_entry(0)))";
    let delta = diff(&source("", 1), &source(notrace, 2)).unwrap();
    assert_eq!((functions(&delta), delta.functions[0].carried), (vec!["f".to_owned()], false));
    let refusals = diff(&source(notrace, 1), &source("", 2)).unwrap_err();
    assert!(refusals[0].why.starts_with("the running one has no call of __fentry__"), "{}", refusals[0].why);
}
