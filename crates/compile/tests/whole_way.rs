//! The whole way from a patch to objects, on a kernel of three units.

mod support;

use kmend_compile::{CompileError, Failure, Outcome, PatchFile, Steps, patch_and_compile, prepare};
use kmend_refusal::{Code, Coded, Refusal};
use std::fs;
use support::{Kernel, patch, write};

fn build(kernel: &Kernel, patches: &[PatchFile]) -> Result<Outcome, Failure> {
    let prepared = prepare(&kernel.target, &|_| ())?;
    patch_and_compile(&kernel.target, &prepared, patches, &kernel.scratch(), &|_| (), &|_| Vec::new())
}

fn refused(kernel: &Kernel, patches: &[PatchFile]) -> Vec<Refusal> {
    match build(kernel, patches) {
        Err(Failure::Refused { refusals }) => refusals,
        other => panic!("{other:?}"),
    }
}

const STEP_TWO: &str =
    "@@ -11,3 +11,3 @@\n int count(void)\n {\n-\tcounter += STEP;\n+\tcounter += STEP + 1;\n";

#[test]
fn one_unit_gives_three_objects_and_the_second_build_takes_the_original_from_the_cache() {
    let kernel = Kernel::new();
    let first = build(&kernel, &[patch("fs/main.c", STEP_TWO)]).unwrap();
    let [unit] = first.units.as_slice() else { panic!("{first:?}") };
    assert_eq!(unit.unit.source, "fs/main.c");
    assert!(!unit.original_was_cached && !unit.new_file);
    let patched = &unit.patched;
    assert!(
        unit.plain.starts_with(b"\x7fELF")
            && unit.original.starts_with(b"\x7fELF")
            && *patched != unit.original
    );
    assert!(contains(&unit.original, b".text.count") && !contains(&unit.plain, b".text.count"));
    let second = build(&kernel, &[patch("fs/main.c", STEP_TWO)]).unwrap();
    assert!(second.units[0].original_was_cached);
    assert_eq!(second.units[0].plain, unit.plain);
    assert_eq!(second.units[0].patched, unit.patched);
    drop((first, second));
    assert_eq!(fs::read_dir(kernel.scratch()).unwrap().count(), 0, "something is left in the scratch folder");
    assert_eq!(fs::read_to_string(kernel.target.source.join("fs/main.c")).unwrap(), support::MAIN);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn the_same_inputs_give_the_same_bytes_in_another_place() {
    let (one, two) = (Kernel::new(), Kernel::new());
    let build_one = build(&one, &[patch("fs/main.c", STEP_TWO)]).unwrap();
    let build_two = build(&two, &[patch("fs/main.c", STEP_TWO)]).unwrap();
    let (a, b) = (&build_one.units[0], &build_two.units[0]);
    assert_eq!((&a.plain, &a.original, &a.patched), (&b.plain, &b.original, &b.patched));
}

#[test]
fn added_lines_change_no_byte() {
    let kernel = Kernel::new();
    let outcome =
        build(&kernel, &[patch("fs/main.c", "@@ -3,0 +4,2 @@\n+/* a comment\n+ * of two lines */\n")])
            .unwrap();
    assert_eq!(outcome.units[0].patched, outcome.units[0].original);
}

#[test]
fn an_edited_header_makes_the_cached_original_void() {
    let kernel = Kernel::new();
    let first = build(&kernel, &[patch("fs/main.c", STEP_TWO)]).unwrap();
    write(&kernel.target.source, "fs/local.h", "#define STEP 1000\n");
    let second = build(&kernel, &[patch("fs/main.c", STEP_TWO)]).unwrap();
    assert!(!second.units[0].original_was_cached);
    assert_ne!(first.units[0].plain, second.units[0].plain);
}

#[test]
fn a_file_that_a_unit_includes_is_compiled_as_that_unit() {
    let kernel = Kernel::new();
    let outcome =
        build(&kernel, &[patch("fs/inner.c", "@@ -3 +3 @@\n-\treturn 1;\n+\treturn 2;\n")]).unwrap();
    let [unit] = outcome.units.as_slice() else { panic!("{outcome:?}") };
    assert_eq!(unit.unit.source, "fs/outer.c");
    assert_ne!(unit.patched, unit.original);
}

#[test]
fn a_header_reaches_the_units_whose_text_it_changes() {
    let kernel = Kernel::new();
    let outcome =
        build(&kernel, &[patch("fs/local.h", "@@ -1 +1 @@\n-#define STEP 1\n+#define STEP 2\n")]).unwrap();
    let [unit] = outcome.units.as_slice() else { panic!("{outcome:?}") };
    assert_eq!(unit.unit.source, "fs/main.c");
    // The unit whose include is not made yet is considered as well.
    let objects = |names: &[&str]| names.iter().map(|name| format!("fs/{name}.o")).collect::<Vec<_>>();
    let steps = |compiled: &[&str]| Steps {
        considered: objects(&["main", "table"]),
        preprocessed: objects(&["main"]),
        compiled: objects(compiled),
    };
    assert_eq!(outcome.reach, steps(&["main"]));
    let unused = patch(
        "fs/local.h",
        "@@ -1 +1,3 @@\n #define STEP 1\n+static inline int none(void) { return 1; }\n+/* */\n",
    );
    let outcome = build(&kernel, &[unused]).unwrap();
    assert!(outcome.units.is_empty());
    assert_eq!(outcome.reach, steps(&[]));
}

#[test]
fn an_include_that_was_added_to_the_source_is_seen() {
    let kernel = Kernel::new();
    let header = patch("fs/local.h", "@@ -1 +1 @@\n-#define STEP 1\n+#define STEP 2\n");
    assert_eq!(build(&kernel, std::slice::from_ref(&header)).unwrap().units.len(), 1);
    let text = "#include \"local.h\"\nstatic int inner(void)\n{\n\treturn STEP;\n}\n";
    write(&kernel.target.source, "fs/inner.c", text);
    assert_eq!(build(&kernel, &[header]).unwrap().units.len(), 2);
}

#[test]
fn a_missing_generated_header_is_made_by_the_build_system() {
    let kernel = Kernel::new();
    let hunk = "@@ -4 +4 @@\n-\treturn TABLE;\n+\treturn TABLE + 1;\n";
    let outcome = build(&kernel, &[patch("fs/table.c", hunk)]).unwrap();
    assert_eq!(outcome.units.len(), 1);
    assert!(!kernel.target.source.join("fs/table.h").exists());
}

#[test]
fn several_patches_apply_one_after_the_other_and_a_new_header_is_found() {
    let kernel = Kernel::new();
    let first = PatchFile::new(
        "first.patch",
        b"--- /dev/null\n+++ b/fs/new.h\n@@ -0,0 +1 @@\n+#define NEW 5\n".to_vec(),
    );
    let include = patch(
        "fs/main.c",
        "@@ -1,2 +1,3 @@\n #include \"fs/local.h\"\n+#include \"new.h\"\n #include <generated/autoconf.h>\n",
    );
    let both =
        build(&kernel, &[first, include, patch("fs/main.c", &STEP_TWO.replace("STEP + 1", "NEW"))]).unwrap();
    assert_eq!(both.units.len(), 1);
    assert_eq!(both.notes.len(), 1, "{:?}", both.notes);
    assert!(both.notes[0].text.contains("1 line later"), "{:?}", both.notes);
}

#[test]
fn all_reasons_are_told_at_once() {
    let kernel = Kernel::new();
    let refusals = refused(
        &kernel,
        &[
            patch(
                "fs/main.c",
                "@@ -6,2 +6,2 @@\n int lime(void)\n-{\n+{ \n@@ -11 +11 @@\n-int recount(void)\n+int x(void)\n",
            ),
            patch("fs/unbuilt.c", "@@ -1 +1 @@\n-int unbuilt;\n+int built;\n"),
            patch("fs/entry.S", "@@ -1 +1 @@\n-a\n+b\n"),
            patch("fs/none.c", "@@ -1 +1 @@\n-a\n+b\n"),
            PatchFile::new("no.patch".to_owned(), b"hello".to_vec()),
        ],
    );
    let mut codes: Vec<Code> = refusals.iter().map(|refusal| refusal.code).collect();
    codes.sort();
    assert_eq!(
        codes,
        [
            Code::PatchFormat,
            Code::PatchDoesNotApply,
            Code::PatchDoesNotApply,
            Code::PatchDoesNotApply,
            Code::Assembly,
        ]
    );
}

#[test]
fn a_source_that_is_not_built_is_left_out_if_anything_else_is() {
    let kernel = Kernel::new();
    let unbuilt = || patch("fs/unbuilt.c", "@@ -1 +1 @@\n-int unbuilt;\n+int built;\n");
    let removed = PatchFile::new(
        "removed.patch",
        b"--- a/fs/unbuilt.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-int unbuilt;\n".to_vec(),
    );
    for patches in [[unbuilt(), patch("fs/main.c", STEP_TWO)], [patch("fs/main.c", STEP_TWO), removed]] {
        let outcome = build(&kernel, &patches).unwrap();
        assert_eq!(outcome.units.len(), 1);
        assert!(outcome.notes.iter().any(|note| note.file.as_deref() == Some("fs/unbuilt.c")), "{outcome:?}");
    }
    let codes = |patches: &[PatchFile]| -> Vec<Code> {
        refused(&kernel, patches).iter().map(|refusal| refusal.code).collect()
    };
    assert_eq!(codes(&[unbuilt()]), [Code::NotInKernel]);
    let unread = patch("fs/local.h", "@@ -1 +1,2 @@\n #define STEP 1\n+#define NONE 1\n");
    assert_eq!(codes(&[unread, unbuilt()]), [Code::NotInKernel]);
}

#[test]
fn what_does_not_compile_is_refused_with_the_compilers_words() {
    let kernel = Kernel::new();
    let refusals = refused(
        &kernel,
        &[
            patch("fs/main.c", &STEP_TWO.replace("STEP + 1", "NONE")),
            patch("fs/inner.c", "@@ -3 +3 @@\n-\treturn 1;\n+\treturn nothing;\n"),
        ],
    );
    assert_eq!(refusals.len(), 2);
    assert!(refusals.iter().all(|refusal| refusal.code == Code::CompileFailed));
    let main = refusals.iter().find(|refusal| refusal.subject == "fs/main.c").unwrap();
    assert_eq!(main.place.as_ref().unwrap().to_string(), "fs/main.c:13");
    assert!(
        main.details.iter().any(|line| line.starts_with("fs/main.c:13:") && line.contains("NONE")),
        "{main:?}"
    );
}

#[test]
fn a_patch_to_what_no_kernel_depends_on_changes_nothing() {
    let kernel = Kernel::new();
    for path in ["Documentation/a.rst", "samples/b/Makefile", "samples/b/none.h"] {
        let refusals = refused(&kernel, &[patch(path, "@@ -1 +1 @@\n-a\n+b\n")]);
        assert_eq!((refusals[0].code, refusals.len()), (Code::NothingChanges, 1), "{path}: {refusals:?}");
    }
    // What it does not depend on need not even apply.
    let notes =
        build(&kernel, &[patch("samples/b/b.c", "@@ -1 +1 @@\n-x\n+b\n"), patch("fs/main.c", STEP_TWO)]);
    assert_eq!(notes.unwrap().notes.len(), 1);
}

#[test]
fn what_the_build_reads_beside_units_is_refused() {
    let kernel = Kernel::new();
    for (path, code, why) in [
        ("fs/words.txt", Code::GeneratedFrom, "tr a b"),
        ("fs/notes.awk", Code::UnsupportedFile, "fs/Makefile names it"),
        ("fs/entry.S", Code::Assembly, "ftrace"),
        ("Makefile", Code::BuildFile, "whole kernel"),
    ] {
        let refusals = refused(&kernel, &[patch(path, "@@ -1 +1 @@\n-a\n+b\n")]);
        assert_eq!((refusals[0].code, refusals.len()), (code, 1), "{path}: {refusals:?}");
        assert!(refusals[0].why.contains(why), "{path}: {refusals:?}");
    }
}

/// A diff that takes `fs/main.c` away.
fn without_main() -> PatchFile {
    let lines: String = support::MAIN.split_inclusive('\n').flat_map(|line| ["-", line]).collect();
    let bytes =
        format!("--- a/fs/main.c\n+++ /dev/null\n@@ -1,{} +0,0 @@\n{lines}", support::MAIN.lines().count());
    PatchFile::new("gone.patch".to_owned(), bytes.into_bytes())
}

#[test]
fn a_removed_unit_is_refused() {
    let kernel = Kernel::new();
    assert_eq!(refused(&kernel, &[without_main()])[0].code, Code::RemovedUnit);
}

fn renamed(from: &str, to: &str, rest: &str) -> PatchFile {
    let alike = if rest.is_empty() { 100 } else { 90 };
    let text = format!(
        "diff --git a/{from} b/{to}\nsimilarity index {alike}%\nrename from {from}\nrename to {to}\n{rest}"
    );
    PatchFile::new("renamed.patch".to_owned(), text.into_bytes())
}

#[test]
fn a_renamed_unit_is_compiled_under_its_old_name() {
    let kernel = Kernel::new();
    let edit = format!("--- a/fs/main.c\n+++ b/fs/first.c\n{STEP_TWO}");
    let outcome = build(&kernel, &[renamed("fs/main.c", "fs/first.c", &edit)]).unwrap();
    let [unit] = outcome.units.as_slice() else { panic!("{outcome:?}") };
    assert_eq!(unit.unit.source, "fs/main.c");
    assert_ne!(unit.patched, unit.original);
    let alone = build(&kernel, &[renamed("fs/main.c", "fs/first.c", "")]);
    assert!(matches!(alone, Err(Failure::Refused { refusals }) if refusals[0].code == Code::NothingChanges));
    let moved = refused(&kernel, &[renamed("fs/main.c", "mm/main.c", "")]);
    assert_eq!(moved[0].code, Code::RemovedUnit);
}

#[test]
fn a_renamed_header_is_found_where_it_is_now() {
    let kernel = Kernel::new();
    let user = patch("fs/main.c", "@@ -1,1 +1,1 @@\n-#include \"fs/local.h\"\n+#include \"fs/steps.h\"\n");
    let outcome = build(&kernel, &[renamed("fs/local.h", "fs/steps.h", ""), user]).unwrap();
    assert_eq!(outcome.units[0].patched, outcome.units[0].original);
}

#[test]
fn a_new_file_with_its_line_of_the_makefile_is_a_unit() {
    let kernel = Kernel::new();
    let makefile = "obj-y := main.o outer.o table.o\nobj-$(CONFIG_NONE) += off.o\n";
    write(&kernel.target.source, "fs/Makefile", makefile);
    let new = |line: &str| {
        PatchFile::new(
            "new.patch",
            format!(
                "--- /dev/null\n+++ b/fs/new.c\n@@ -0,0 +1 @@\n+int added(void) {{ return 5; }}\n\
             --- a/fs/Makefile\n+++ b/fs/Makefile\n@@ -1 +1,2 @@\n obj-y := main.o outer.o table.o\n+{line}\n"
            )
            .into_bytes(),
        )
    };
    let outcome = build(&kernel, &[new("obj-y += new.o")]).unwrap();
    let [unit] = outcome.units.as_slice() else { panic!("{outcome:?}") };
    assert!(unit.new_file && unit.unit.object == "fs/new.o");
    assert!(contains(&unit.patched, b".text.added") && !contains(&unit.original, b".text.added"));
    for line in ["obj-$(CONFIG_NONE) += new.o", "off-y := new.o"] {
        let outcome = build(&kernel, &[new(line), patch("fs/main.c", STEP_TWO)]);
        assert!(outcome.is_ok_and(|outcome| outcome.units.len() == 1), "{line}");
    }
    for (line, code) in [
        ("obj-m += new.o", Code::NewUnit),
        ("other-y += new.o", Code::NewUnit),
        ("obj-y += none.o", Code::BuildFile),
        ("ccflags-y += -DX", Code::BuildFile),
    ] {
        assert_eq!(refused(&kernel, &[new(line)])[0].code, code, "{line}");
    }
}

#[test]
fn a_tree_that_a_killed_run_left_is_made_anew() {
    let kernel = Kernel::new();
    assert!(!prepare(&kernel.target, &|_| ()).unwrap().was_ready);
    assert!(prepare(&kernel.target, &|_| ()).unwrap().was_ready);
    fs::remove_file(kernel.target.derived.join("database.json")).unwrap();
    fs::remove_dir_all(kernel.target.derived.join("tree/fs")).unwrap();
    assert!(!prepare(&kernel.target, &|_| ()).unwrap().was_ready);
    assert!(kernel.target.derived.join("tree/fs/main.c").exists());
}

#[test]
fn two_at_once_prepare_once() {
    let kernel = Kernel::new();
    let ready: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..2).map(|_| scope.spawn(|| prepare(&kernel.target, &|_| ()).unwrap().was_ready)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ready.iter().filter(|ready| **ready).count(), 1, "{ready:?}");
}

#[test]
fn another_compiler_is_refused() {
    let mut kernel = Kernel::new();
    kernel.target.compiler_text = "gcc-4 (Debian) 4.8.0".to_owned();
    let error = prepare(&kernel.target, &|_| ()).unwrap_err();
    assert!(matches!(error, CompileError::CompilerDiffers { .. }));
    assert_eq!(error.code(), Code::CompilerDiffers);
}

#[test]
fn headers_of_another_configuration_are_refused() {
    let mut kernel = Kernel::new();
    let headers = kernel.folder.path().join("headers");
    write(&headers, "include/generated/autoconf.h", "");
    write(&headers, "include/config/auto.conf", "CONFIG_STEP=y\nCONFIG_OTHER=y\n");
    kernel.target.headers = Some(headers);
    let error = prepare(&kernel.target, &|_| ()).unwrap_err();
    assert_eq!(error.code(), Code::ImportRefused);
    assert!(error.to_string().contains("CONFIG_NAME, CONFIG_OTHER"), "{error}");
}
