use super::*;
use crate::apply::original_lines;
use crate::apply::{Subject, apply};
use crate::edits::Edited;
use crate::patch::{PatchFile, parse};

const SOURCE: &str = "/* about */\nstatic int table[] = {\n\t1,\n};\n\nint one(int x)\n{\n#ifdef A\n\tx = f(x,\n\t      1);\n#else\n\tx--;\n#endif\n\treturn x;\n}\n";

fn traced(hunk: &str) -> Fate {
    let patch = PatchFile::new("x.patch", format!("--- a/f/x.c\n+++ b/f/x.c\n{hunk}"));
    let diffs = parse(&patch).unwrap().diffs;
    let subject = Subject { path: "f/x.c", patch: "x.patch", fuzz: 0, first: 0 };
    let applied = apply(subject, original_lines(SOURCE.as_bytes()), &diffs[0].hunks);
    assert_eq!(applied.refusals, []);
    let file = Edited { original: Some(SOURCE.into()), lines: Some(applied.lines) };
    let given = GivenHunk {
        patch: "x.patch".into(),
        patch_line: 3,
        number: 1,
        header: String::new(),
        file: "f/x.c".into(),
        passed: None,
    };
    let mut edits = Edits { removed: applied.removed, hunks: vec![given], ..Edits::default() };
    edits.files.insert("f/x.c".into(), file);
    trace(&edits, &BTreeMap::new()).remove(0).fate
}

fn change(hunk: &str) -> Change {
    match traced(hunk) {
        Fate::Changes(change) => change,
        Fate::Unseen(why) => panic!("{why}"),
    }
}

#[test]
fn lines_come_with_their_statement_and_function() {
    let found = change("@@ -10,1 +10,1 @@ int one(int x)\n-\t      1);\n+\t      2);\n");
    assert_eq!(found.functions, BTreeSet::from(["one".to_owned()]));
    assert_eq!((found.original, found.patched), (BTreeSet::from([9, 10]), BTreeSet::from([9, 10])));
    // Both sides are in that group; of the patched one, line 9 is left of the original.
    assert_eq!(found.branches, BTreeSet::from([vec![BTreeSet::from([9, 10])], vec![BTreeSet::from([9])]]));
    assert_eq!(found.bodies.0, (7..=15).collect());
}

#[test]
fn all_groups_of_a_hunk_are_seen_and_none_if_it_changes_them() {
    let both = "@@ -10,3 +10,3 @@ int one(int x)\n-\t      1);\n+\t      2);\n #else\n-\tx--;\n+\tx -= 2;\n";
    let found = change(both);
    assert!(found.branches.contains(&vec![BTreeSet::from([9, 10])]));
    assert!(found.branches.contains(&vec![BTreeSet::from([12])]));
    let other = "@@ -8,1 +8,1 @@ int one(int x)\n-#ifdef A\n+#ifdef B\n";
    assert!(change(other).branches.is_empty() && change(other).is_directive);
}

#[test]
fn what_is_outside_of_functions_has_words() {
    let found = change("@@ -3,1 +3,1 @@\n-\t1,\n+\t2,\n");
    assert!(found.functions.is_empty() && found.words.contains("table") && !found.is_directive);
    assert_eq!(found.names, BTreeSet::from(["table".to_owned()]));
    let found = change("@@ -5,1 +5,3 @@\n \n+#define TWO(x) \\\n+\tone(x)\n");
    assert_eq!((found.names, found.is_directive), (BTreeSet::from(["TWO".to_owned()]), true));
}

fn is_space(hunk: &str) -> bool {
    change(hunk).is_space
}

#[test]
fn comments_and_white_space_are_not_seen() {
    for hunk in [
        "@@ -1 +1,2 @@\n-/* about */\n+/* about\n+ * more */\n",
        "@@ -12,1 +12,1 @@ int one(int x)\n-\tx--;\n+\tx--; // less\n",
        "@@ -12,1 +12,2 @@ int one(int x)\n-\tx--;\n+\tx\n+\t\t--;\n",
        "@@ -9,2 +9,1 @@ int one(int x)\n-\tx = f(x,\n-\t      1);\n+\tx = f( x, 1 );\n",
        "@@ -12,1 +12,2 @@ int one(int x)\n-\tx--;\n+\tx--;\n+\n",
    ] {
        assert!(is_space(hunk), "{hunk}");
    }
}

#[test]
fn what_a_compiler_may_see_is_seen() {
    for hunk in [
        // A comment that takes code in.
        "@@ -11,2 +11,3 @@ int one(int x)\n #else\n+/*\n \tx--;\n",
        // The same lines in another order.
        "@@ -12,3 +12,3 @@ int one(int x)\n-\tx--;\n #endif\n \treturn x;\n+\tx--;\n",
        // Another token.
        "@@ -14,1 +14,1 @@ int one(int x)\n-\treturn x;\n+\treturnx;\n",
        "@@ -12,1 +12,1 @@ int one(int x)\n-\tx--;\n+\tx- -;\n",
        // A directive that ends elsewhere.
        "@@ -8,1 +8,1 @@ int one(int x)\n-#ifdef A\n+#ifdef A \\\n",
    ] {
        assert!(!is_space(hunk), "{hunk}");
    }
}

#[test]
fn blanks_in_a_text_are_seen() {
    let of = |text: &str| super::text::seen(&super::text::code(&original_lines(text.as_bytes())));
    assert_ne!(of("f(\"a b\");\n"), of("f(\"ab\");\n"));
    assert_ne!(of("f(\"a  b\");\n"), of("f(\"a b\");\n"));
    assert_ne!(of("f(\"a\\\n  b\");\n"), of("f(\"a\\\n b\");\n"));
    assert_ne!(of("a = b + ++c;\n"), of("a = b++ + c;\n"));
    assert_eq!(of("f( \"/* a */\" , '\"' ) ;\n"), of("f(\"/* a */\",'\"');\n"));
    assert_eq!(of("char *a,\n\t*b; /* x\n y */\n"), of("char * a, * b;\n"));
}

#[test]
fn a_hunk_that_another_undoes_has_no_effect() {
    let text = "--- a/f/x.c\n+++ b/f/x.c\n@@ -12,1 +12,2 @@ int one(int x)\n \tx--;\n+\tx++;\n";
    let patch = PatchFile::new("x.patch", text.to_owned());
    let diffs = parse(&patch).unwrap().diffs;
    let subject = Subject { path: "f/x.c", patch: "x.patch", fuzz: 0, first: 0 };
    let mut lines = apply(subject, original_lines(SOURCE.as_bytes()), &diffs[0].hunks).lines;
    lines.retain(|line| line.hunk.is_none());
    let file = Edited { original: Some(SOURCE.into()), lines: Some(lines) };
    assert!(super::sides::Sides::of(&file).change(0, &[]).is_none());
}
