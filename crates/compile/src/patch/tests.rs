use super::*;

fn read(text: &str) -> Result<Vec<FileDiff>, Refusal> {
    parse(&PatchFile::new("x.patch", text)).map(|parsed| parsed.diffs)
}

fn names(diff: &FileDiff) -> (Option<&str>, Option<&str>) {
    (
        diff.old.as_ref().map(|name| name.stripped.as_str()),
        diff.new.as_ref().map(|name| name.stripped.as_str()),
    )
}

fn refused(text: &str, line: u32, why: &str) {
    let refusal = read(text).unwrap_err();
    assert_eq!(refusal.code, Code::PatchFormat);
    assert_eq!(refusal.place.unwrap().line, Some(line), "{}", refusal.why);
    assert!(refusal.why.contains(why), "{}", refusal.why);
}

#[test]
fn a_mail_with_two_files_is_read() {
    let text = "From 1234 Mon Sep 17\nSubject: x\n\n---\n a.c | 2 +-\n\ndiff --git a/fs/a.c b/fs/a.c\n\
        index 1..2 100644\n--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1,2 +1,2 @@ int f(void)\n int a;\n-int b;\n+int c;\n\
        diff --git a/fs/b.c b/fs/b.c\n--- a/fs/b.c\n+++ b/fs/b.c\n@@ -5 +5,2 @@\n x\n+y\n-- \n2.39.2\n\n";
    let diffs = read(text).unwrap();
    assert_eq!(diffs.len(), 2);
    assert_eq!(names(&diffs[0]), (Some("fs/a.c"), Some("fs/a.c")));
    assert_eq!(diffs[0].hunks[0].header, "@@ -1,2 +1,2 @@ int f(void)");
    assert_eq!(diffs[0].hunks[0].patch_line, 11);
    assert_eq!(
        diffs[1].hunks[0].lines,
        [HunkLine::Context(b"x\n".to_vec()), HunkLine::Added(b"y\n".to_vec())]
    );
}

#[test]
fn plain_diffs_carry_times_and_folders_of_any_name() {
    let text = "--- linux-6.1.orig/fs/a b.c\t2026-11-01 10:00:00\n+++ linux-6.1/fs/a b.c\t2026-11-02\n@@ -1 +1 @@\n-a\n+b\n";
    assert_eq!(names(&read(text).unwrap()[0]), (Some("fs/a b.c"), Some("fs/a b.c")));
}

#[test]
fn new_deleted_renamed_and_binary_files_are_told_apart() {
    let new = read(
        "diff --git a/x/n.c b/x/n.c\nnew file mode 100644\n--- /dev/null\n+++ b/x/n.c\n@@ -0,0 +1 @@\n+a\n",
    );
    assert_eq!(names(&new.unwrap()[0]), (None, Some("x/n.c")));
    let empty = read("diff --git a/x/n.c b/x/n.c\nnew file mode 100644\nindex 0000000..e69de29\n");
    assert_eq!(names(&empty.unwrap()[0]), (None, Some("x/n.c")));
    let deleted = read("--- a/x/n.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n");
    assert_eq!(names(&deleted.unwrap()[0]), (Some("x/n.c"), None));
    let renamed =
        read("diff --git a/x/n.c b/x/m.c\nsimilarity index 100%\nrename from x/n.c\nrename to x/m.c\n");
    assert!(renamed.unwrap()[0].is_rename);
    let binary = read("diff --git a/x/n.bin b/x/n.bin\nindex 1..2\nGIT binary patch\nliteral 3\nabc\n\n");
    assert!(binary.unwrap()[0].is_binary);
}

#[test]
fn a_diff_that_ends_before_its_hunks_is_no_diff() {
    let header = "diff --git a/x/n.c b/x/n.c\n";
    let names = "--- a/x/n.c\n+++ b/x/n.c\n";
    for rest in [
        String::new(),
        "index 1111111..2222222 100644\n".to_owned(),
        "new file mode 100644\nindex 0000000..2222222\n".to_owned(),
        "deleted file mode 100644\nindex 2222222..0000000\n".to_owned(),
        "old mode 100644\nnew mode 100755\nindex 1111111..2222222\n".to_owned(),
        "similarity index 90%\nrename from x/n.c\nrename to x/m.c\n".to_owned(),
        format!("index 1111111..2222222 100644\n{names}"),
        format!("index 1111111..2222222 100644\n{names}@@-1 +1 @@\n-a\n+b\n"),
        format!("{names} @@ -1 +1 @@\n-a\n+b\n"),
        format!("{names}@@ -1 +1 @@\n-a\n+b\n@@ x @@\n"),
    ] {
        assert!(read(&format!("{header}{rest}")).is_err(), "{rest}");
    }
    let mode = read(&format!("{header}old mode 100644\nnew mode 100755\n")).unwrap();
    assert!(mode[0].hunks.is_empty());
}

#[test]
fn what_diff_says_and_does_not_show_is_refused() {
    let diff = "--- a/x/n.c\n+++ b/x/n.c\n@@ -1 +1 @@\n-a\n+b\n";
    for line in ["Only in b/fs/proc: new.c", "Binary files a/x/logo.ppm and b/x/logo.ppm differ"] {
        assert!(read(&format!("{line}\n{diff}")).is_err(), "{line}");
        assert!(read(&format!("{diff}{line}\n")).is_err(), "{line}");
    }
    assert!(read(&format!("Only in this case: do nothing\n{diff}")).is_ok());
}

#[test]
fn quoted_names_are_unquoted() {
    let text = "--- \"a/fs/\\303\\274.c\"\n+++ \"b/fs/\\303\\274.c\"\n@@ -1 +1 @@\n-a\n+b\n";
    assert_eq!(names(&read(text).unwrap()[0]), (Some("fs/ü.c"), Some("fs/ü.c")));
}

#[test]
fn carriage_returns_of_the_whole_patch_go_but_those_of_a_line_stay() {
    let text = "--- a/f/x.c\r\n+++ b/f/x.c\r\n@@ -1,2 +1,2 @@\r\n a\r\n\r\n-b\r\n+c\r\n"
        .replace("-1,2 +1,2", "-1,3 +1,3");
    let lines = read(&text).unwrap()[0].hunks[0].lines.clone();
    assert_eq!(lines[0], HunkLine::Context(b"a\n".to_vec()));
    assert_eq!(lines[1], HunkLine::Context(b"\n".to_vec()));
    let kept = read("--- a/f/x.c\n+++ b/f/x.c\n@@ -1 +1 @@\n-a\r\n+b\r\n").unwrap();
    assert_eq!(kept[0].hunks[0].lines[0], HunkLine::Removed(b"a\r\n".to_vec()));
}

#[test]
fn a_missing_line_end_is_kept() {
    let text = "--- a/f/x.c\n+++ b/f/x.c\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n";
    let diffs = read(text).unwrap();
    let lines = &diffs[0].hunks[0].lines;
    assert_eq!(lines[..], [HunkLine::Removed(b"a".to_vec()), HunkLine::Added(b"b\n".to_vec())]);
}

#[test]
fn what_is_no_patch_is_refused_with_its_line() {
    refused("hello\n", 1, "no unified diff");
    refused("", 1, "no unified diff");
    refused("--- a/f/x.c\n+++ b/f/x.c\n@@ -1 +1 @@\n-a\n+b\n+c\n", 6, "behind the lines");
    refused("--- a/f/x.c\n+++ b/f/x.c\n@@ -1 +1 @@\n-a\n+b\n-\n", 6, "behind the lines");
    for end in ["-- ", "- ", "+- "] {
        let diffs = read(&format!("--- a/f/x.c\n+++ b/f/x.c\n@@ -1 +1 @@\n-a\n+b\n{end}\n\n")).unwrap();
        assert_eq!(diffs[0].hunks[0].lines.len(), 2, "{end}");
    }
    refused("diff --cc a/f/x.c\n@@@ -1 -1 +1 @@@\n", 1, "combined");
    refused("*** a/f/x.c\n--- b/f/x.c\n***************\n*** 1 ****\n", 3, "context diff");
    refused("@@ -1 +1 @@\n-a\n+b\n", 1, "before the name");
    refused("--- a/f/x.c\n+++ b/f/x.c\nno hunk\n", 3, "no hunk");
    refused("--- a/f/x.c\n+++ b/f/x.c\n@@ -1,2 +1,2 @@\n a\n", 4, "ends inside");
    refused("--- a/f/x.c\n+++ b/f/x.c\n@@ -1,2 +1,2 @@\n a\nbad\n", 5, "none of");
    refused("--- a/f/x.c\n+++ b/f/x.c\n@@ -x +1 @@\n a\n", 3, "no hunk header");
    refused("--- a/f/x.c\n+++ b/f/x.c\n@@ -1,1 +1,2 @@\n-a\n-b\n", 5, "more lines");
}

#[test]
fn paths_out_of_the_tree_are_refused() {
    for path in ["a/../../etc/x.c", "/etc/x.c", "a//x.c", "a/./x.c", "a/x/..", ".."] {
        refused(&format!("--- {path}\n+++ {path}\n@@ -1 +1 @@\n-a\n+b\n"), 1, "no path inside");
    }
}

#[test]
fn each_mail_of_a_box_must_hold_a_diff_or_need_none() {
    let from = "From 0123 Mon Sep 17 00:00:00 2001\n";
    let mail = |subject: &str, body: &str| format!("{from}Subject: {subject}\n\n{body}\n");
    let diff = "--- a/f/x.c\n+++ b/f/x.c\n@@ -1 +1 @@\n-a\n+b\n-- \n2.39\n";
    let parsed = |text: &str| parse(&PatchFile::new("x.mbox", text));
    let all =
        mail("[PATCH 0/2] x", "words") + &mail("[PATCH 1/2] a", diff) + &mail("Re: [PATCH 1/2] a", "> yes");
    let both = parsed(&(all.clone() + &mail("[PATCH 2/2] b", diff))).unwrap();
    assert_eq!((both.diffs.len(), both.letters.len()), (2, 2));
    assert_eq!(both.diffs[1].hunks[0].lines.len(), 2);
    let lost = parsed(&(all + &mail("[PATCH 2/2] b", "words"))).unwrap_err();
    assert!(lost.why.contains("`[PATCH 2/2] b` in it holds no diff"), "{}", lost.why);
}
