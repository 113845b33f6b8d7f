//! What is said of small C sources, compiled here with the machine's gcc.

use kmend_diff::Fentry;
use kmend_explain::{Explainer, Explanation, Function, NumberedLine, Row, Sources, Status, Stretch, Unit};
use kmend_object::Object;
use kmend_process::Command;
use std::fs;

const OPTIONS: &[&str] = &[
    "-O2",
    "-c",
    "-g",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-pic",
    "-fno-pie",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-fno-stack-protector",
    "-fno-jump-tables",
    "-fno-common",
    "-w",
];

fn object(source: &str, more: &[&str]) -> Object {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unit.c"), source).unwrap();
    let gcc = Command::new("gcc").args(OPTIONS).args(more).args(["unit.c", "-o", "unit.o"]);
    gcc.folder(folder.path()).run().unwrap();
    Object::parse(&fs::read(folder.path().join("unit.o")).unwrap()).unwrap()
}

fn explain_objects(original: &Object, patched: &Object, texts: [&str; 2]) -> Explanation {
    let functions = kmend_diff::compare(original, patched, Fentry::IfUsed).unwrap().functions;
    let [before, after] = texts;
    let read =
        |text: &'static str, file: &str| (file == "unit.c").then(|| NumberedLine::of_file(text.as_bytes()));
    let (before, after): (&'static str, &'static str) = (before.to_owned().leak(), after.to_owned().leak());
    let sources = Sources { original: &|file| read(before, file), patched: &|file| read(after, file) };
    let mut explainer = Explainer::default();
    explainer.add(&Unit {
        source: "unit.c",
        object: "vmlinux",
        original,
        patched,
        functions: &functions,
        sources,
    });
    explainer.finish()
}

fn explain(original: &str, patched: &str) -> Explanation {
    explain_objects(&object(original, &[]), &object(patched, &[]), [original, patched])
}

#[track_caller]
fn only(explanation: &Explanation) -> &Function {
    assert_eq!(explanation.functions.len(), 1, "{explanation:#?}");
    &explanation.functions[0]
}

fn first_changed(function: &Function) -> &Row {
    function.first.iter().find(|row| row.differs).unwrap()
}

const SOURCE: &str = "int ext(const char *, int);
int one(int x)
{
	if (x > 3)
		return ext(\"small\", x);
	ext(\"first\", x);
	return ext(\"one\", x + 1);
}
";

#[test]
fn the_first_differing_instruction_is_shown_with_names_and_lines() {
    let explanation = explain(SOURCE, &SOURCE.replace("\"first\"", "\"other\""));
    let function = only(&explanation);
    assert_eq!((function.name.as_str(), function.status), ("one", Status::Changed));
    assert_eq!(function.causes[0].text, "string, \"first\" to \"other\"");
    let row = first_changed(function);
    let (before, after) = (row.original.as_ref().unwrap(), row.patched.as_ref().unwrap());
    assert_eq!(
        (before.text.as_str(), after.text.as_str()),
        ("mov     $\"first\",%rdi", "mov     $\"other\",%rdi")
    );
    let (old, new) = (before.place.as_ref().unwrap(), after.place.as_ref().unwrap());
    assert_eq!((old.file.as_str(), old.line, new.line), ("unit.c", 6, 6));
    assert_eq!(
        (old.text[0].as_str(), new.text[0].as_str()),
        ("\text(\"first\", x);", "\text(\"other\", x);")
    );
    assert!(function.first.iter().any(|row| !row.differs), "with context");
    let all = format!("{function:?}");
    assert!(all.contains("call    ext") || all.contains("jmp     ext"), "{all}");
}

#[test]
fn code_that_only_moved_is_the_same() {
    let patched = SOURCE.replace("	if (x > 3)", "	if (x == 77)\n\t\treturn -5;\n	if (x > 3)");
    let explanation = explain(SOURCE, &patched);
    let piece = &only(&explanation).pieces[0];
    assert!(piece.patched > piece.original);
    assert!(piece.differing <= 2 * (piece.patched - piece.original), "{piece:#?}");
}

#[test]
fn a_branch_to_another_instruction_differs() {
    let body = |to: &str| {
        format!(
            "int f(void); int one(int x) {{ asm goto(\"jmp %l0\" :::: {to}); f(); a: f(); b: f(); return 1; }}"
        )
    };
    let source = body("a, b");
    let explanation = explain(&source, &body("b, a"));
    let row = first_changed(only(&explanation));
    let text = |side: &Option<kmend_explain::Instruction>| side.as_ref().unwrap().text.clone();
    assert!(text(&row.original).starts_with("jmp     one+0x"), "{row:?}");
    assert_ne!(text(&row.original), text(&row.patched));
    assert_eq!(only(&explanation).pieces[0].differing, 1);
}

#[test]
fn a_new_function_says_who_uses_it() {
    let patched = SOURCE
        .replace(
            "int one",
            "static __attribute__((noinline)) int two(int x) { return ext(\"two\", x); }\nint one",
        )
        .replace("return ext(\"one\", x + 1)", "return two(x)");
    let explanation = explain(SOURCE, &patched);
    let new = explanation.functions.iter().find(|function| function.status == Status::New).unwrap();
    assert_eq!(new.causes[0].text, "new");
    let used = &new.causes[0].details[0];
    assert!(used.starts_with("used by one+0x") && used.ends_with(": return two(x);"), "{used}");
    assert!(new.first.is_empty() && new.pieces[0].original == 0 && new.pieces[0].patched > 0);
}

#[test]
fn a_changed_table_entry_is_shown() {
    let source = |line: u32| {
        format!(
            "char file[] = \"a.c\"; int ext(int);
             int f(int x) {{ if (ext(x)) {{ asm volatile(\"1: ud2\\n.pushsection __bug_table,\\\"aw\\\"\\n.long 1b-.\\n\
             .long file-.\\n.word {line}\\n.word 0\\n.popsection\"); }} return x; }}"
        )
    };
    let explanation = explain(&source(10), &source(11));
    let cause = &only(&explanation).causes[0];
    assert_eq!(cause.text, "entry of __bug_table");
    assert!(
        cause.details[0].starts_with("was f+0x") && cause.details[0].ends_with(", file, 0a000000"),
        "{cause:?}"
    );
    assert!(cause.details[1].ends_with(", file, 0b000000"), "{cause:?}");
    assert!(only(&explanation).first.is_empty());
}

#[test]
fn without_debug_information_there_are_no_lines() {
    let patched = SOURCE.replace("first", "other");
    let explanation =
        explain_objects(&object(SOURCE, &["-g0"]), &object(&patched, &["-g0"]), [SOURCE, &patched]);
    assert!(first_changed(only(&explanation)).original.as_ref().unwrap().place.is_none());
}

#[test]
fn older_line_tables_are_read_too() {
    let patched = SOURCE.replace("first", "other");
    let old = |source: &str| object(source, &["-gdwarf-4", "-gno-as-locview-support"]);
    let explanation = explain_objects(&old(SOURCE), &old(&patched), [SOURCE, &patched]);
    let row = first_changed(only(&explanation));
    assert_eq!(row.patched.as_ref().unwrap().place.as_ref().unwrap().line, 6);
}

/// `count` calls, of which every tenth has another number in the patched source.
fn long(count: usize, patched: bool) -> String {
    let call = |n: usize| format!("ext({});", if patched && n.is_multiple_of(10) { n + 100_000 } else { n });
    format!("void ext(int); void one(void) {{ {} }}", (0..count).map(call).collect::<String>())
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let (before, after) = (long(12_000, false), long(12_000, true));
    let explanation = explain(&before, &after);
    let piece = &only(&explanation).pieces[0];
    assert!(piece.patched > 24_000 && piece.differing == 1_200, "{}", piece.differing);
    let (mut all, mut kept) = (0, 0);
    for stretch in &piece.stretches {
        let (Stretch::Differs { count, rows } | Stretch::Same { count, rows }) = stretch;
        (all, kept) = (all + count, kept + rows.len());
    }
    assert_eq!(all, piece.patched);
    assert!(kept < all && kept <= 16_000, "{kept}");
}

#[test]
fn damaged_line_tables_do_no_harm() {
    let object = object(SOURCE, &[]);
    let patched = self::object(&SOURCE.replace("first", "other"), &[]);
    for name in [".debug_line", ".debug_line_str"] {
        let id = object.section_named(name).unwrap();
        for at in 0..object.section(id).data.len() {
            let mut damaged = object.clone();
            damaged.sections[id.index()].data[at] ^= 0xff;
            explain_objects(&damaged, &patched, [SOURCE, SOURCE]);
            let mut cut = object.clone();
            cut.sections[id.index()].data.truncate(at);
            explain_objects(&cut, &patched, [SOURCE, SOURCE]);
        }
    }
}
