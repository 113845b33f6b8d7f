use super::*;
use crate::belongs::has_extension;

const FILES: &[(&str, &str)] =
    &[("fs/a.c", "int a;\nint b;\n"), ("fs/b.c", "int c;\n"), ("top.c", "int t;\n")];

struct Files;

impl Source for Files {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, CompileError> {
        Ok(FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| text.as_bytes().to_vec()))
    }

    fn part(&self, path: &str, _is_there: bool, _adds: bool) -> Result<Part, CompileError> {
        Ok(if has_extension(path, "rst") { Part::Nothing("no unit".to_owned()) } else { Part::Text })
    }
}

fn edited(patches: &[PatchFile]) -> Edits {
    edit(patches, &Files).unwrap()
}

fn patch(text: &str) -> PatchFile {
    PatchFile::new("x.patch", text)
}

fn text(edits: &Edits, path: &str) -> String {
    let lines = edits.files[path].lines.iter().flatten();
    lines.map(|line| String::from_utf8_lossy(&line.bytes)).collect()
}

fn why(edits: &Edits) -> &str {
    let [refusal] = edits.refusals.as_slice() else { panic!("{:?}", edits.refusals) };
    &refusal.why
}

const RENAME: &str =
    "diff --git a/fs/a.c b/fs/n.c\nsimilarity index 100%\nrename from fs/a.c\nrename to fs/n.c\n";
const AFTER: &str = "--- a/fs/n.c\n+++ b/fs/n.c\n@@ -1,2 +1,2 @@\n int a;\n-int b;\n+int x;\n";

#[test]
fn a_file_is_found_by_the_name_that_an_earlier_patch_gave_it() {
    let edits = edited(&[patch(RENAME), patch(AFTER)]);
    assert_eq!(edits.refusals, []);
    assert_eq!(text(&edits, "fs/a.c"), "int a;\nint x;\n");
    assert_eq!(edits.renamed["fs/a.c"], "fs/n.c");
    let again = RENAME.replace("fs/n.c", "fs/m.c").replace("fs/a.c", "fs/n.c");
    let twice = edited(&[
        patch(RENAME),
        patch(AFTER),
        patch(&again),
        patch(&AFTER.replace("fs/n.c", "fs/m.c").replace("int b", "int x").replace("+int x", "+int y")),
    ]);
    assert_eq!(twice.refusals, []);
    assert_eq!(
        (text(&twice, "fs/a.c").as_str(), twice.renamed["fs/a.c"].as_str()),
        ("int a;\nint y;\n", "fs/m.c")
    );
    let old = edited(&[patch(RENAME), patch(&AFTER.replace("fs/n.c", "fs/a.c"))]);
    assert!(why(&old).contains("no such file"));
    let taken = edited(&[patch(&RENAME.replace("fs/n.c", "fs/b.c"))]);
    assert!(why(&taken).contains("another file has"));
}

#[test]
fn the_depth_is_asked_for_or_hinted_at() {
    let deep = "--- debian/build/x.orig/fs/b.c\n+++ debian/build/x/fs/b.c\n@@ -1 +1 @@\n-int c;\n+int d;\n";
    let edits = edited(&[patch(deep)]);
    assert!(
        edits.refusals[0].details.iter().any(|line| line == "with -p3 it is fs/b.c"),
        "{:?}",
        edits.refusals
    );
    let given = PatchFile { depth: Some(3), ..patch(deep) };
    assert_eq!(text(&edited(&[given]), "fs/b.c"), "int d;\n");
    let too_deep = edited(&[PatchFile { depth: Some(9), ..patch(deep) }]);
    assert!(why(&too_deep).contains("less than 9 folders"));
    let none = deep.replace("debian/build/x.orig/", "").replace("debian/build/x/", "");
    assert_eq!(edited(&[PatchFile { depth: Some(0), ..patch(&none) }]).notes, []);
    assert!(!edited(&[PatchFile { depth: Some(1), ..patch(&none) }]).refusals.is_empty());
}

#[test]
fn a_new_file_lies_where_the_others_of_its_patch_do() {
    let whole = "--- fs/b.c\n+++ fs/b.c\n@@ -1 +1 @@\n-int c;\n+int d;\n--- /dev/null\n+++ fs/new.c\n@@ -0,0 +1 @@\n+int n;\n";
    let edits = edited(&[patch(whole)]);
    assert_eq!(edits.files.keys().collect::<Vec<_>>(), ["fs/b.c", "fs/new.c"]);
}

#[test]
fn letters_are_passed_over_if_there_is_more() {
    let letter = PatchFile::new("0000.patch", "Subject: [PATCH 0/1] x\n\nwords\n");
    let edits = edited(&[letter.clone(), patch(&AFTER.replace("fs/n.c", "fs/a.c"))]);
    assert_eq!((edits.refusals.as_slice(), edits.notes.len()), (&[][..], 1));
    assert!(why(&edited(&[letter])).contains("only letters"));
    let lost = PatchFile::new("1.patch", "Subject: [PATCH 1/2] x\n\nwords\n");
    assert!(why(&edited(&[lost])).contains("no unified diff"));
}

#[test]
fn fuzz_is_used_only_when_it_is_asked_for_and_each_line_is_told() {
    let fuzzy = "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1,2 +1,2 @@\n int A;\n-int b;\n+int x;\n";
    assert!(why(&edited(&[patch(fuzzy)])).contains("not in the file"));
    let edits = edited(&[PatchFile { fuzz: 1, ..patch(fuzzy) }]);
    assert_eq!(edits.refusals, []);
    assert_eq!(text(&edits, "fs/a.c"), "int a;\nint x;\n", "the file's own line stays");
    assert!(edits.notes[0].text.contains("line 1 should be `int A;` and is `int a;`"), "{:?}", edits.notes);
}

#[test]
fn modes_alone_are_nothing() {
    let edits = edited(&[patch("diff --git a/fs/a.c b/fs/a.c\nold mode 100644\nnew mode 100755\n")]);
    assert!(edits.only_modes && edits.files.is_empty() && edits.refusals.is_empty());
}
