use super::*;
use crate::patch::{PatchFile, parse};

fn run(file: &str, hunks: &str) -> Applied {
    let bytes = format!("--- a/f/x.c\n+++ b/f/x.c\n{hunks}").into_bytes();
    let diffs = parse(&PatchFile::new("x.patch", bytes)).unwrap().diffs;
    let subject = Subject { path: "f/x.c", patch: "x.patch", fuzz: 0, first: 0 };
    apply(subject, original_lines(file.as_bytes()), &diffs[0].hunks)
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
    check(FILE, "@@ -2,0 +3 @@ two\n+new\n", "one\ntwo\nnew\nthree\nfour\nfive\nsix\n");
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
fn a_hunk_that_moved_applies_with_a_note_where_it_fits() {
    let file = "x\n".repeat(3) + FILE;
    let applied = run(&file, "@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n");
    assert_eq!(text(&applied.lines), file.replace("two", "TWO"));
    assert_eq!(applied.notes, ["hunk 1 of x.patch applied at line 4, 3 lines later than it says"]);
    let beyond = run(FILE, "@@ -2000000000,2 +1,2 @@\n five\n-six\n+SIX\n");
    assert_eq!(text(&beyond.lines), FILE.replace("six", "SIX"));
}

#[test]
fn a_hunk_that_fits_twice_needs_its_heading_or_its_very_line() {
    let file = "f(a)\n{\n\tx;\n}\ng(a)\n{\n\tx;\n}\n";
    let hunk =
        |line: u32, heading: &str| run(file, &format!("@@ -{line},1 +{line},2 @@{heading}\n \tx;\n+\ty;\n"));
    let refused = hunk(5, "");
    let [refusal] = refused.refusals.as_slice() else { panic!("{refused:?}") };
    assert_eq!(refusal.code, Code::AmbiguousHunk);
    assert_eq!(refusal.details[1..], ["fits at line 3, in `f(a)`", "fits at line 7, in `g(a)`"]);
    assert_eq!(text(&hunk(5, " g(a)").lines), file.replace("g(a)\n{\n\tx;", "g(a)\n{\n\tx;\n\ty;"));
    assert_eq!(text(&hunk(3, "").lines), file.replacen("x;", "x;\n\ty;", 1));
    // A hunk before it that moved takes its certainty away.
    let moved = run(file, "@@ -2 +2 @@\n-f(a)\n+F(a)\n@@ -8,1 +8,2 @@\n \tx;\n+\ty;\n");
    assert_eq!(moved.refusals.len(), 2, "{moved:?}");
}

#[test]
fn white_space_that_differs_is_said_to_be_all_that_does() {
    let applied = run("f(a)\n\tx;  \n", "@@ -1,2 +1,2 @@\n f(a)\n-        x;\n+        y;\n");
    let refusal = &applied.refusals[0];
    assert!(refusal.why.contains("only white space differs"), "{refusal:?}");
    assert_eq!(refusal.details[1..], ["expected:         x;", "found:    \\tx;\\x20\\x20"]);
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
