//! `kmend diff` on objects that the compiler has just made.

mod command;

use command::Place;

const SECTIONS: &[&str] = &["-ffunction-sections", "-fdata-sections"];

const ORIGINAL: &str = r#"
    int limit = 3;
    int printf(const char *, ...);
    int show(int n) { return printf("frob %d\n", n); }
    int check(int n) { return n > limit; }
"#;

/// Compiles the original and the original with one text replaced, and compares them.
#[track_caller]
fn place(from: &str, to: &str) -> Place {
    assert!(ORIGINAL.contains(from));
    let place = Place::new();
    place.compile("orig.o", ORIGINAL, SECTIONS);
    place.compile("patched.o", &ORIGINAL.replace(from, to), SECTIONS);
    place
}

#[test]
fn changed_and_new_things_are_listed_with_their_reasons() {
    let added = "static int bar; __attribute__((noinline)) int twice(int n) { return bar += n; }\nint check(int n) { return twice(n) > limit; }";
    let place = place("int check(int n) { return n > limit; }", added);
    let ended = place.kmend(&["diff", "orig.o", "patched.o"]);
    ended.expect(0, &["  changed   check ", "  new       twice ", "  variable  bar "], &[""]);
    assert_eq!(ended.stdout.lines().count(), 3, "{}", ended.stdout);
}

#[test]
fn a_string_is_a_reason() {
    let place = place("frob %d", "Frob %d");
    let text = r#"string, "frob %d\n" to "Frob %d\n""#;
    place.kmend(&["diff", "orig.o", "patched.o"]).expect(0, &["  changed   show ", text], &[""]);
    let json = place.kmend(&["diff", "orig.o", "patched.o", "--json"]).json();
    assert_eq!(json["functions"][0]["name"], "show");
    assert_eq!(json["functions"][0]["reasons"][0]["kind"], "text");
    assert_eq!(json["variables"], serde_json::json!([]));
}

#[test]
fn the_first_difference_is_explained() {
    let place = Place::new();
    let options = [SECTIONS, &["-g"]].concat();
    place.compile("orig.o", &ORIGINAL.replace("n > limit", "n >= limit"), &options);
    place.compile("patched.o", ORIGINAL, &options);
    let ended = place.kmend(&["diff", "orig.o", "patched.o", "--explain"]);
    let [old, new] = ["  -    ", "  +    "];
    ended.expect(
        0,
        &["changed check\n", "source.c:5", "    int check(int n) { return n > limit; }", old, new],
        &[""],
    );
    let names = ended.stdout.lines().filter(|line| line.contains("limit,%e") || line.contains(",limit"));
    assert!(names.count() > 0, "the variable has its name:\n{}", ended.stdout);
    let json = place.kmend(&["diff", "orig.o", "patched.o", "--explain", "--json"]).json();
    let function = &json["explanation"]["functions"][0];
    assert_eq!((&function["name"], &function["status"]), (&"check".into(), &"changed".into()));
    assert_eq!(function["pieces"][0]["stretches"][0]["kind"], "differs");
}

#[test]
fn nothing_to_do_is_said_and_has_its_exit_code() {
    let place = place("int limit = 3;", "int limit = 3; /* a comment */");
    place.kmend(&["diff", "orig.o", "patched.o"]).expect(
        3,
        &[""],
        &["nothing to do[KM0407]: nothing changes"],
    );
    let ended = place.kmend(&["diff", "orig.o", "patched.o", "--json"]);
    ended.expect(3, &[], &[""]);
    assert_eq!(ended.json()["functions"], serde_json::json!([]));
}

#[test]
fn all_refusals_are_printed() {
    let place = Place::new();
    let source =
        |one, two| format!("int one = {one}; int two = {two}; int sum(void) {{ return one + two; }}");
    place.compile("orig.o", &source(1, 2), SECTIONS);
    place.compile("patched.o", &source(3, 4), SECTIONS);
    let ended = place.kmend(&["diff", "orig.o", "patched.o"]);
    ended.expect(2, &[""], &["static data: one\n", "static data: two\n", "\n  way out: "]);
    assert_eq!(ended.stderr.matches("refused[KM0401]").count(), 2);
    let json = place.kmend(&["diff", "orig.o", "patched.o", "--json"]);
    json.expect(2, &[], &[""]);
    let subjects: Vec<_> =
        json.json()["refusals"].as_array().unwrap().iter().map(|it| it["subject"].clone()).collect();
    assert_eq!(subjects, ["one", "two"]);
}

#[test]
fn objects_of_another_kind_are_refused_or_errors() {
    let place = place("limit = 3", "limit = 3");
    place.compile("joined.o", ORIGINAL, &[]);
    place.kmend(&["diff", "joined.o", "joined.o"]).expect(2, &[""], &["refused[KM0409]"]);
    place.write("text.o", "no object").write("empty.o", "");
    place.kmend(&["diff", "orig.o", "text.o"]).expect(1, &[""], &["error[KM0408]", "text.o"]);
    place.kmend(&["diff", "empty.o", "orig.o"]).expect(1, &[""], &["error[KM0408]", "empty.o"]);
    place.kmend(&["diff", "orig.o", "none.o"]).expect(1, &[""], &["error[KM0002]", "none.o"]);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let place = place("frob %d", "Frob %d");
    let ended = place.shell("kmend diff orig.o patched.o | true; echo ${PIPESTATUS[0]}");
    ended.expect(0, &["0\n"], &[""]);
    let ended = place.shell("kmend diff orig.o patched.o > /dev/full");
    ended.expect(1, &[""], &["error[KM0002]", "standard output"]);
}

#[test]
fn there_are_no_colours_in_a_pipe() {
    let place = place("frob %d", "Frob %d");
    let ended = place.kmend(&["diff", "orig.o", "patched.o"]);
    assert!(!ended.stdout.contains('\x1b'), "{}", ended.stdout);
    let forced = place.shell("CLICOLOR_FORCE=1 kmend diff orig.o patched.o");
    assert!(forced.stdout.contains('\x1b'), "{}", forced.stdout);
    let refused = place.shell("CLICOLOR_FORCE=1 NO_COLOR=1 kmend diff orig.o none.o");
    assert!(!refused.stderr.contains('\x1b'), "{}", refused.stderr);
}
