//! What a patch asks for with kmend.h.

use super::*;

fn callback(kind: &str, function: &str) -> String {
    format!(
        "static void *const at_{function} __attribute__((used, section(\".kmend.callbacks.{kind}\"))) = {function};"
    )
}

#[test]
fn callbacks_come_along_with_what_they_need() {
    let added = format!(
        "static int ready; static int prepare(void *o) {{ return ext(\"up\", ready++); }} {}
         static void release(void *o) {{ living = ready; }} {}",
        callback("pre_patch", "prepare"),
        callback("post_unpatch", "release")
    );
    let source = format!("static int living = 4; int get(void) {{ return living++; }} {TWO}");
    let delta = diff(&source, &format!("{source} {added}")).unwrap();
    assert_eq!(functions(&delta), ["+prepare", "+release"]);
    assert_eq!(delta.variables, ["ready"]);
    assert!(!delta.is_empty(), "callbacks are enough for a livepatch");
    let moments: Vec<_> = delta.callbacks.iter().map(|it| (it.moment, it.function.as_str())).collect();
    assert_eq!(moments, [(Moment::PrePatch, "prepare"), (Moment::PostUnpatch, "release")]);
    for callback in &delta.callbacks {
        assert_eq!(delta.extract.object.symbol(callback.symbol).name, callback.function);
    }
    assert_eq!(originals(&delta), ["living"], "the running kernel's");
    let sections = &delta.extract.object.sections;
    assert!(sections.iter().all(|section| !section.name.starts_with(".kmend")), "requests stay behind");
}

#[test]
fn a_callback_must_be_a_new_function_of_the_source() {
    for function in ["one", "ext"] {
        let refusals = diff(TWO, &format!("{TWO} {}", callback("pre_patch", function))).unwrap_err();
        assert_eq!((refusals[0].code, refusals[0].subject.as_str()), (Code::Request, function));
    }
}

#[test]
fn what_the_author_ignores_stays_and_is_noted() {
    let source = TWO.replace("int one", "__attribute__((noipa)) int one");
    let patched = source.replace("x + 1", "x + 200").replace("x * 3", "one(x) * 300");
    let delta = diff(&source, &format!("{patched} {}", note(".kmend.ignore.functions", "one"))).unwrap();
    assert_eq!(functions(&delta), ["two"]);
    assert_eq!(originals(&delta), ["one"], "patched code calls the running one");
    assert!(delta.notes.len() == 1 && delta.notes[0].starts_with("one changes"), "{:?}", delta.notes);

    let table = "int table[2] __attribute__((section(\"odd_table\"))) = { 1, 2 };";
    let source = format!("{TWO} {table}");
    let patched = source.replace("{ 1, 2 }", "{ 1, 3 }");
    assert!(diff(&source, &patched).is_err());
    let delta = diff(&source, &format!("{patched} {}", note(".kmend.ignore.sections", "odd_table"))).unwrap();
    assert!(delta.is_empty() && delta.notes[0].starts_with("table changes"), "{:?}", delta.notes);

    let delta = diff(TWO, &format!("{TWO} {}", note(".kmend.ignore.functions", "three"))).unwrap();
    assert!(delta.notes[0].contains("three"), "a name that leads nowhere is told");
}
