//! What the differ says of small C sources, compiled here with the machine's gcc.

mod alternatives;
mod author;
mod changes;
mod ends;
mod foreign;
mod jumps;
mod locals;
mod memory;
mod moves;
mod names;
mod outlives;
mod start;
mod state;
mod tables;
mod texts;
mod update;

use kmend_diff::{Context, Delta, Fentry, Moment, Reason, Reference};
use kmend_object::{Object, SymbolKind, elf};
use kmend_process::Command;
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeSet;
use std::fs;

/// The options that shape the kernel's code, as far as they matter here.
const OPTIONS: &[&str] = &[
    "-O2",
    "-c",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-pic",
    "-fno-pie",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-fno-stack-protector",
    "-pg",
    "-mfentry",
    "-mrecord-mcount",
    "-fno-jump-tables",
    "-fno-common",
    "-fno-strict-aliasing",
    "-w",
    "-g0",
];

fn object(source: &str) -> Object {
    object_with(source, &[])
}

fn object_with(source: &str, options: &[&str]) -> Object {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unit.c"), source).unwrap();
    Command::new("gcc")
        .args(OPTIONS)
        .args(options)
        .args(["unit.c", "-o", "unit.o"])
        .folder(folder.path())
        .run()
        .unwrap();
    Object::parse(&fs::read(folder.path().join("unit.o")).unwrap()).unwrap()
}

fn compare(original: &Object, patched: &Object) -> Result<Delta, Vec<Refusal>> {
    kmend_diff::compare(original, patched, Fentry::Required)
}

fn diff(original: &str, patched: &str) -> Result<Delta, Vec<Refusal>> {
    compare(&object(original), &object(patched))
}

/// The functions that go into the module, as `name`, `+name` for new ones and `~name` for those that go along.
fn functions(delta: &Delta) -> Vec<String> {
    let mark = |function: &kmend_diff::FunctionChange| match (&function.original, function.carried) {
        (Some(_), _) => "",
        (None, true) => "~",
        (None, false) => "+",
    };
    let mut names: Vec<String> =
        delta.functions.iter().map(|function| format!("{}{}", mark(function), function.name)).collect();
    names.sort();
    names
}

fn codes(result: Result<Delta, Vec<Refusal>>) -> Vec<Code> {
    result.expect_err("it should have been refused").iter().map(|refusal| refusal.code).collect()
}

fn originals(delta: &Delta) -> Vec<&str> {
    let is_original = |reference: &&Reference| matches!(reference, Reference::Original { .. });
    let mut names: Vec<&str> =
        delta.extract.references.values().filter(is_original).map(Reference::name).collect();
    names.sort_unstable();
    names
}

const TWO: &str = "int ext(const char *, int);
    int one(int x) { return ext(\"one\", x + 1); }
    int two(int x) { return ext(\"two\", x * 3); }";

/// What the macros of kmend.h write.
fn note(section: &str, text: &str) -> String {
    let name = format!("note_{}", text.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    format!(
        "static const char {name}[] __attribute__((used, aligned(1), section(\"{section}\"))) = \"{text}\";"
    )
}
