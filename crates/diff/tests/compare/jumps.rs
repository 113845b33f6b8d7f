//! Functions that ftrace does not know, for kmend's consistency engine.

use super::*;

const UNTRACED: &str = "__attribute__((no_instrument_function))";

fn for_engine(original: &str, patched: &str) -> Result<Delta, Vec<Refusal>> {
    kmend_diff::compare(&object(original), &object(patched), Fentry::OrRoom)
}

/// The functions that go into the module, with whether a jump leads to them.
fn jumps(delta: &Delta) -> Vec<(&str, bool)> {
    delta.functions.iter().map(|function| (function.name.as_str(), function.jumps)).collect()
}

#[test]
fn a_function_that_ftrace_does_not_know_is_jumped_from() {
    let source = format!(
        "int ext(int); int traced(int x) {{ return ext(x); }}
         {UNTRACED} int f(int x) {{ return ext(x + 1) * 3; }} int (*pointer)(int) = f;"
    );
    let patched = source.replace("x + 1", "x + 2").replace("ext(x);", "ext(x) + 1;");
    assert_eq!(jumps(&for_engine(&source, &patched).unwrap()), [("f", true), ("traced", false)]);
    // What ftrace knows it redirects, though the new one is unknown to it.
    let source = "int ext(int); int f(int x) { return ext(x + 1); } int g(int x) { return ext(x); }";
    let hidden = source.replace("int f", &format!("{UNTRACED} int f"));
    assert_eq!(jumps(&for_engine(source, &hidden).unwrap()), [("f", false)]);
    assert_eq!(jumps(&for_engine(&hidden, source).unwrap()), [("f", true)]);
}

#[test]
fn callers_that_ftrace_knows_go_along_for_the_engine_too() {
    let source = format!(
        "int ext(int); static {UNTRACED} __attribute__((noinline)) int body(int x) {{ return ext(x + 1) * 3; }}
         int a(int x) {{ return body(x) + 1; }}"
    );
    let delta = for_engine(&source, &source.replace("x + 1)", "x + 2)")).unwrap();
    assert_eq!((functions(&delta), jumps(&delta).len()), (vec!["a".to_owned(), "~body".into()], 2));
    assert!(jumps(&delta).iter().all(|(_, jumps)| !jumps));
    // Else nothing is replaced but what changed.
    let untraced =
        source.replace("int a(", &format!("{UNTRACED} int a(")) + " int t(int x) { return ext(x); }";
    let delta = for_engine(&untraced, &untraced.replace("x + 1)", "x + 2)")).unwrap();
    assert_eq!(jumps(&delta), [("body", true)]);
}

#[test]
fn where_a_jump_has_no_room_the_reason_is_told() {
    let why = |source: &str, before: &str, after: &str| {
        let source = format!("int ext(int); int traced(int x) {{ return ext(x); }} {source}");
        assert!(source.contains(before));
        let refusals = for_engine(&source, &source.replace(before, after)).unwrap_err();
        assert_eq!(refusals[0].code, Code::NoRoom);
        refusals[0].why.clone()
    };
    let short = why(&format!("{UNTRACED} int f(void) {{ asm volatile(\"nop\"); }}"), "nop", "nop;nop");
    assert!(short.ends_with("it is shorter than a jump, which has 5 bytes"), "{short}");
    let noinstr = format!(
        "{UNTRACED} __attribute__((section(\".noinstr.text\"))) int f(int x) {{ return ext(x + 1) * 3; }}"
    );
    assert!(why(&noinstr, "x + 1", "x + 2").contains("in .noinstr.text"));
    let kept = format!(
        "{UNTRACED} int f(int x) {{ return ext(x + 1) * 3; }}
         static unsigned long __attribute__((used, section(\"_kprobe_blacklist\"))) no_f = (unsigned long)f;"
    );
    assert!(why(&kept, "x + 1", "x + 2").contains("NOKPROBE_SYMBOL"));
    let looped = format!(
        "{UNTRACED} int f(int x) {{ asm volatile(\"1: dec %0; jnz 1b\" : \"+r\"(x)); return ext(x + 1) * 3; }}"
    );
    assert!(why(&looped, "x + 1", "x + 2").contains("a place to which it branches is in its first 5 bytes"));
    let branch = format!(
        "{UNTRACED} int f(int x) {{ asm volatile(\"1: .byte 0x0f,0x1f,0x44,0,0\\n.pushsection __jump_table,\\\"aw\\\"\\n\"
         \".long 1b-., 1b-.\\n.quad key-.\\n.popsection\"); return ext(x + 1) * 3; }} long key;"
    );
    assert!(why(&branch, "x + 1", "x + 2").contains("a static branch is"));
    let called = format!(
        "{UNTRACED} __attribute__((naked)) void f(void) {{ asm(\"call *%rax; xor %eax, %eax; lea 1(%rax), %ecx; ret\"); }}"
    );
    assert!(why(&called, "lea 1", "lea 2").contains("a call is"));
}
