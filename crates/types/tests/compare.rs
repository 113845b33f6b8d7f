//! What is said of the types of small C sources, compiled here with the machine's gcc.

use kmend_object::Object;
use kmend_process::Command;
use kmend_refusal::Code;
use kmend_types::{Changes, ExportChange, Surroundings, TypesError, Verdict, accepted, compare};
use std::collections::BTreeSet;
use std::fs;

fn object(source: &str, debug: &str) -> Object {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unit.c"), source).unwrap();
    let options =
        ["-O2", "-c", "-w", "-ffunction-sections", debug, "-fno-var-tracking", "unit.c", "-o", "unit.o"];
    Command::new("gcc").args(options).folder(folder.path()).run().unwrap();
    Object::parse(&fs::read(folder.path().join("unit.o")).unwrap()).unwrap()
}

/// A kernel that exports `exported` and calls `called` from code that is not replaced.
struct Kernel;

impl Surroundings for Kernel {
    fn is_replaced(&self, function: &str) -> bool {
        function != "kept"
    }

    fn is_exported(&self, function: &str) -> bool {
        function == "exported"
    }

    fn callers_outside(&self, function: &str) -> Vec<String> {
        if ["called", "kept"].contains(&function) { vec!["somebody".to_owned()] } else { Vec::new() }
    }
}

fn verdict(original: &str, patched: &str) -> Verdict {
    let (original, patched) = (object(original, "-g"), object(patched, "-g"));
    compare(&original, &patched).unwrap().judge(&accepted(&patched), &Kernel)
}

/// The codes and subjects of the refusals, and the subjects of the advice.
fn check(original: &str, patched: &str, refusals: &[(Code, &str)], advice: &[&str]) {
    let verdict = verdict(original, patched);
    let found: Vec<_> =
        verdict.refusals.iter().map(|refusal| (refusal.code, refusal.subject.as_str())).collect();
    assert_eq!(found, refusals, "{:#?}", verdict.refusals);
    let found: Vec<&str> = verdict.advice.iter().map(|advice| advice.subject.as_str()).collect();
    assert_eq!(found, advice, "{:#?}", verdict.advice);
}

/// A structure `s` with these fields, used by a function through a pointer.
fn structure(fields: &str) -> String {
    format!(
        "struct other {{ int x; }};\nstruct s {{ {fields} }};\nlong use(struct s *s) {{ return *(char *)s; }}\n"
    )
}

fn check_structure(before: &str, after: &str, refusals: &[(Code, &str)], advice: &[&str]) {
    check(&structure(before), &structure(after), refusals, advice);
}

#[test]
fn names_and_qualifiers_are_no_change() {
    check_structure("int a; long b;", "int a; long b;", &[], &[]);
    check_structure("int a; long b;", "const int a; volatile long renamed;", &[], &[]);
    check_structure("unsigned long a;", "unsigned long long a;", &[], &[]);
    check_structure("int n; int a[0];", "int n; int a[];", &[], &[]);
    check_structure("struct { int n; } t; int m;", "struct { int n; } t; int m;", &[], &[]);
    check(
        "typedef int number; struct s { number n; }; int f(struct s *s) { return s->n; }",
        "typedef int amount; struct s { amount n; }; int f(struct s *s) { return s->n; }",
        &[],
        &[],
    );
    check(
        "struct a { int x; struct a *next; }; struct s { struct a *a; }; int f(struct s *s) { return s->a->next->x; }",
        "struct b { int x; struct b *next; }; struct s { struct b *a; }; int f(struct s *s) { return s->a->next->x; }",
        &[],
        &[],
    );
}

#[test]
fn fields_that_move_are_refused() {
    let refused = [(Code::ChangedStructure, "struct s")];
    check_structure("int a; long b;", "int new; int a; long b;", &refused, &[]);
    check_structure("int a; int b;", "int b;", &refused, &[]);
    check_structure("int a; int b;", "int b; int a;", &refused, &[]);
    check_structure("int a; long b;", "int a; int b;", &refused, &[]);
    check_structure("int a:3; int b:4;", "int a:4; int b:4;", &refused, &[]);
    check_structure("int a[4]; long z;", "int a[5]; long z;", &refused, &[]);
    check_structure("struct other *a;", "long *a;", &refused, &[]);
    check_structure("union { int a; long b; }; int c;", "union { int a; int b; }; int c;", &refused, &[]);
}

#[test]
fn a_field_at_the_end_is_refused_as_such() {
    let refused = [(Code::GrownStructure, "struct s")];
    check_structure("int a; int b;", "int a; int b; int c;", &refused, &[]);
    let verdict = verdict(&structure("int a; int b;"), &structure("int a; int b; long c;"));
    assert_eq!(
        verdict.refusals[0].details,
        [
            "c: new, long int of 8 bytes at 8",
            "size: 8 bytes, then 16",
            "in parameters and local variables of: use"
        ]
    );
}

#[test]
fn a_field_in_a_hole_is_advice() {
    check_structure("int a; long b;", "int a; int new; long b;", &[], &["struct s"]);
    check_structure("int a:3; int b;", "int a:3; int new:2; int b;", &[], &["struct s"]);
    check_structure("int a; int gone; long b;", "int a; long b;", &[], &["struct s"]);
    check_structure("int a; long b;", "unsigned a; long b;", &[], &["struct s"]);
    check_structure("int (*f)(int);", "int (*f)(int, int);", &[], &["struct s"]);
    check_structure("void *p;", "struct other *p;", &[], &["struct s"]);
}

#[test]
fn what_holds_a_changed_structure_is_told_only_if_it_changes_too() {
    let source = |fields: &str, after: &str| {
        format!(
            "struct s {{ {fields} }}; struct holder {{ struct s s; {after} }}; struct pointer {{ struct s *s; }};\n\
             int use(struct holder *h, struct pointer *p) {{ return *(char *)h + *(char *)p; }}\n"
        )
    };
    check(&source("int a; long b;", ""), &source("int a; int new; long b;", ""), &[], &["struct s"]);
    check(
        &source("int a;", "int z;"),
        &source("int a; int b;", "int z;"),
        &[(Code::ChangedStructure, "struct holder"), (Code::GrownStructure, "struct s")],
        &[],
    );
}

#[test]
fn a_changed_value_of_an_enumeration_is_refused() {
    let source =
        |names: &str, name: &str| format!("enum {name} {{ {names} }}; int f(int x) {{ return x == B; }}");
    let refused = |name| vec![(Code::ChangedEnumeration, name)];
    check(&source("A, B", "e"), &source("A, NEW, B", "e"), &refused("enum e"), &[]);
    check(&source("A, B", ""), &source("A, NEW, B", ""), &refused("enumerator B"), &[]);
    check(&source("A, B, NR_E", "e"), &source("A, B, C, NR_E", "e"), &[], &["enum e"]);
    check(&source("A, B", "e"), &source("A, B, C", "e"), &[], &[]);
}

#[test]
fn variables_keep_their_types() {
    check("long v;", "int v;", &[(Code::ChangedGlobal, "v")], &[]);
    check("int v = 1;", "unsigned v = 1;", &[], &["v"]);
    check(
        "static int v; int *f(void) { return &v; }",
        "static int v[2]; int *f(void) { return v; }",
        &[(Code::ChangedStatic, "v")],
        &[],
    );
    check(
        "int f(void) { static int n; return ++n; }",
        "int f(void) { static long n; return ++n; }",
        &[(Code::ChangedStatic, "n")],
        &[],
    );
}

#[test]
fn a_message_of_netlink_may_get_longer() {
    let source = "const char *f(void) { static const char __msg[] = \"one\"; return __msg; }";
    check(source, &source.replace("one", "another"), &[], &[]);
}

#[test]
fn numbers_of_the_preprocessor_identify_nothing() {
    let text = "static const char __UNIQUE_ID_info7[] __attribute__((used))";
    check(&format!("{text} = \"a\";"), &format!("{text} = \"longer\";"), &[], &[]);
}

#[test]
fn a_type_that_lives_in_one_frame_may_change() {
    let source = |fields: &str, rest: &str| {
        format!(
            "void fill(void *, int);\nint f(void) {{ struct frame {{ {fields} }} s; {rest} return *(char *)&s; }}"
        )
    };
    let fill = "fill(&s, sizeof(s));";
    check(&source("int a;", fill), &source("int a; int b;", fill), &[], &[]);
    let keep = "static struct frame *last; fill(&s, sizeof(s)); last = &s; fill(last, 1);";
    check(
        &source("int a;", keep),
        &source("int a; int b;", keep),
        &[(Code::GrownStructure, "struct frame")],
        &[],
    );
}

#[test]
fn signatures_are_kept_for_those_who_call() {
    let source = |what: &str, parameters: &str| format!("{what}({parameters}) {{ return 0; }}");
    let check = |what: &str, refusals: &[(Code, &str)]| {
        check(&source(what, "int a"), &source(what, "int a, int b"), refusals, &[]);
    };
    check("int exported", &[(Code::ChangedExportType, "exported")]);
    check("int called", &[(Code::ChangedSignature, "called")]);
    check("int lonely", &[]);
    check("int kept", &[]);
    check("static int __attribute__((used)) local", &[]);
}

#[test]
fn the_author_can_vouch_for_a_type() {
    let accept =
        "\n__attribute__((section(\".kmend.accept\"), used)) static const char word[] = \"type:struct s\";";
    let patched = [&structure("int new; int a;"), accept].concat();
    check(&structure("int a;"), &patched, &[], &["struct s"]);
}

#[test]
fn an_object_without_debug_information_is_an_error() {
    let bare = object("int a;", "-g0");
    assert!(matches!(compare(&bare, &bare), Err(TypesError::Missing)));
}

#[test]
fn damaged_debug_information_never_panics() {
    let whole = object(&structure("int a:3; union { int b; long c[2][3]; }; int (*f)(int);"), "-g");
    let sections: Vec<usize> = (0..whole.sections.len())
        .filter(|&index| {
            [".debug_info", ".debug_abbrev", ".debug_str"].contains(&whole.sections[index].name.as_str())
        })
        .collect();
    assert_eq!(sections.len(), 3);
    for section in sections {
        let length = whole.sections[section].data.len();
        for at in 0..length {
            let mut damaged = whole.clone();
            damaged.sections[section].data[at] ^= 0x55 | (at as u8);
            let _ = compare(&whole, &damaged).map(|changes| changes.judge(&accepted(&damaged), &Kernel));
            let mut short = whole.clone();
            short.sections[section].data.truncate(at);
            let _ = compare(&short, &whole);
        }
    }
}

/// An exported symbol whose CRC changes because of these.
fn export(name: &str, causes: &[&str]) -> ExportChange {
    let causes = causes.iter().map(|&cause| cause.to_owned()).collect();
    ExportChange { name: name.to_owned(), crcs: (Some(1), Some(0xdead_beef)), causes }
}

/// The verdict on changed CRCs of symbols that use two forms of `struct s`.
fn exports(before: &str, after: &str, exports: &[ExportChange], accepted: &[&str]) -> Verdict {
    let (original, patched) = (object(&structure(before), "-g"), object(&structure(after), "-g"));
    let exports = exports.iter().cloned().collect();
    let changes = Changes { exports, ..compare(&original, &patched).unwrap() };
    changes.judge(&accepted.iter().map(|&name| name.to_owned()).collect(), &Kernel)
}

fn subjects(verdict: &Verdict) -> (Vec<&str>, Vec<&str>) {
    let refusals = verdict.refusals.iter().filter(|refusal| refusal.code == Code::ChangedExportType);
    let advice = verdict.advice.iter().filter(|advice| advice.text.contains("CRC"));
    (
        refusals.map(|refusal| refusal.subject.as_str()).collect(),
        advice.map(|advice| advice.subject.as_str()).collect(),
    )
}

#[test]
fn a_crc_changed_by_what_no_layout_shows_is_refused_with_all_its_symbols() {
    let changed = [export("f", &["struct s"]), export("g", &["struct s"]), export("h", &["typedef t"])];
    let verdict = exports("int a;", "int b;", &changed, &[]);
    assert_eq!(subjects(&verdict), (vec!["struct s", "typedef t"], vec![]));
    assert_eq!(
        verdict.refusals[0].details,
        ["f: CRC 0x00000001, then 0xdeadbeef", "g: CRC 0x00000001, then 0xdeadbeef"]
    );
    assert_eq!(subjects(&exports("int a;", "int b;", &changed, &["struct s", "t"])).0, [""; 0]);
}

#[test]
fn a_crc_changed_by_what_fits_is_advice() {
    let check = |before, after, cause: &str, expect: (Vec<&str>, Vec<&str>)| {
        let verdict = exports(before, after, &[export("f", &[cause])], &[]);
        assert_eq!(subjects(&verdict), expect, "{cause}");
    };
    check("int a; long b;", "int a; int new; long b;", "struct s", (vec![], vec!["struct s"]));
    check("int a; long b;", "int a; long b; long c;", "struct s", (vec!["struct s"], vec![]));
    check("int a;", "int a;", "struct t (became defined)", (vec![], vec!["struct t"]));
    check("int a;", "int a;", "enum e", (vec![], vec!["enum e"]));
    check("int a;", "int a;", "enum constant E", (vec!["enum constant E"], vec![]));
}

#[test]
fn all_that_is_behind_a_crc_must_fit() {
    let causes = ["struct t (became defined)", "struct s"];
    let verdict = exports("int a;", "int b;", &[export("f", &causes)], &[]);
    assert_eq!(subjects(&verdict), (vec!["struct s"], vec![]));
    // Where genksyms says nothing, nothing is known to fit.
    assert_eq!(subjects(&exports("int a;", "int a;", &[export("f", &[])], &[])).0, ["f"]);
}

#[test]
fn a_changed_declaration_counts_if_the_code_does_and_is_told_once() {
    let own = |name: &str| exports("int a;", "int a;", &[export(name, &[name])], &[]);
    assert_eq!(subjects(&own("f")), (vec!["f"], vec![]));
    assert_eq!(subjects(&own("kept")), (vec![], vec!["kept"]));
    let source = |parameters: &str| object(&format!("int exported({parameters}) {{ return 1; }}"), "-g");
    let found = compare(&source("int a"), &source("int a, int b")).unwrap();
    let changes = Changes { exports: BTreeSet::from([export("exported", &["exported"])]), ..found };
    let verdict = changes.judge(&BTreeSet::new(), &Kernel);
    let [refusal] = verdict.refusals.as_slice() else { panic!("{verdict:?}") };
    assert_eq!(refusal.details.len(), 3, "{refusal:?}");
}
