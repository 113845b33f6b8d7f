use super::*;
use crate::patch::{PatchFile, parse};

fn run(file: &str, hunks: &str) -> Applied {
    let bytes = format!("--- a/f/x.c\n+++ b/f/x.c\n{hunks}").into_bytes();
    let diffs = parse(&PatchFile { name: "x.patch".to_owned(), bytes }).unwrap();
    apply("f/x.c", "x.patch", original_lines(file.as_bytes()), &diffs[0].hunks)
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| String::from_utf8_lossy(&line.bytes)).collect()
}

fn check(file: &str, hunks: &str, expect: &str) {
    let applied = run(file, hunks);
    assert_eq!(applied.refusals, []);
    assert_eq!(text(&applied.lines), expect);
}

const FILE: &str = "one\ntwo\nthree\nfour\nfive\nsix\n";

#[test]
fn hunks_apply_where_they_say() {
    check(
        FILE,
        "@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n@@ -5,2 +5,3 @@\n five\n+5.5\n six\n",
        "one\nTWO\nthree\nfour\nfive\n5.5\nsix\n",
    );
    check(FILE, "@@ -2,0 +3 @@\n+new\n", "one\ntwo\nnew\nthree\nfour\nfive\nsix\n");
    check(FILE, "@@ -0,0 +1 @@\n+new\n", "new\none\ntwo\nthree\nfour\nfive\nsix\n");
    check("", "@@ -0,0 +1,2 @@\n+a\n+b\n", "a\nb\n");
    check("a\nb\n", "@@ -1,2 +0,0 @@\n-a\n-b\n", "");
    check("a", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n", "a\n");
}

#[test]
fn context_lines_keep_their_origin_and_added_ones_have_none() {
    let applied = run(FILE, "@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n");
    let origins: Vec<Option<u32>> = applied.lines.iter().map(|line| line.origin).collect();
    assert_eq!(origins, [Some(1), None, Some(3), Some(4), Some(5), Some(6)]);
}

#[test]
fn a_hunk_that_moved_applies_at_the_nearest_place_with_a_note() {
    let file = "x\n".repeat(3) + FILE + FILE;
    let applied = run(&file, "@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n");
    assert_eq!(text(&applied.lines), "x\n".repeat(3) + &FILE.replace("two", "TWO") + FILE);
    assert_eq!(applied.notes, ["hunk 1 of x.patch applied at line 4, 3 lines later than it says"]);
    let second = run(&file, "@@ -9,3 +9,3 @@\n one\n-two\n+TWO\n three\n");
    assert_eq!(text(&second.lines), "x\n".repeat(3) + FILE + &FILE.replace("two", "TWO"));
    let beyond = run(FILE, "@@ -2000000000,2 +1,2 @@\n five\n-six\n+SIX\n");
    assert_eq!(text(&beyond.lines), FILE.replace("six", "SIX"));
}

#[test]
fn a_moved_hunk_moves_those_after_it() {
    let file = format!("x\nx\n{FILE}");
    let applied = run(&file, "@@ -1,2 +1,2 @@\n one\n-two\n+TWO\n@@ -5,2 +5,2 @@\n five\n-six\n+SIX\n");
    assert_eq!(applied.refusals, []);
    assert_eq!(applied.notes.len(), 1);
}

#[test]
fn context_is_never_ignored_and_every_failing_hunk_is_told() {
    let applied = run(
        FILE,
        "@@ -1,3 +1,3 @@\n one\n-2\n+TWO\n three\n@@ -3,2 +3,2 @@\n three\n-four\n+FOUR\n@@ -5,2 +5,2 @@\n 5\n-six\n+SIX\n",
    );
    assert_eq!(text(&applied.lines), FILE.replace("four", "FOUR"));
    let [first, second] = applied.refusals.as_slice() else { panic!("{:?}", applied.refusals) };
    assert_eq!(first.code, Code::PatchDoesNotApply);
    assert_eq!((first.subject.as_str(), first.place.as_ref().unwrap().line), ("hunk 1 of f/x.c", Some(2)));
    assert_eq!(
        first.details,
        [
            "x.patch:3: @@ -1,3 +1,3 @@",
            "nearest match at line 1; the first difference is in line 2",
            "expected: 2",
            "found:    two",
        ]
    );
    assert_eq!(second.subject, "hunk 3 of f/x.c");
}

#[test]
fn a_hunk_that_is_already_applied_is_recognised() {
    let applied = run("one\nTWO\nthree\n", "@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n");
    assert!(applied.refusals[0].why.contains("already"), "{}", applied.refusals[0].why);
}

#[test]
fn hunks_do_not_overlap() {
    let applied = run("a\nb\n", "@@ -1,2 +1,2 @@\n a\n-b\n+c\n@@ -1,1 +1,1 @@\n-a\n+d\n");
    assert_eq!((text(&applied.lines).as_str(), applied.refusals.len()), ("a\nc\n", 1));
}
