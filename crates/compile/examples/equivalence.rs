//! Holds what this crate takes for granted against the compiler, on many units of a kernel:
//!
//! - the plain object, assembled from rewritten assembly, is what a plain compile gives: same sections, same
//!   bytes, same relocations;
//! - a patch that adds comments and blank lines changes no byte of the object.
//!
//! `equivalence RELEASE SOURCE CONFIG HEADERS COMPILER DERIVED SCRATCH COUNT`; it ends with 1 if one differs.

mod target;

use kmend_compile::{CompiledUnit, Failure, PatchFile, Prepared, Target, Unit, patch_and_compile, prepare};
use kmend_object::Object;
use kmend_process::Command;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> Fallible<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = || format!("usage: equivalence {} SCRATCH COUNT", target::USAGE);
    let target = target::read(&mut arguments).ok_or_else(usage)?;
    let scratch = arguments.next().ok_or_else(usage)?;
    let count: usize = arguments.next().ok_or_else(usage)?.parse()?;
    let prepared = prepare(&target, &|line| eprintln!("  {line}"))?;
    let scratch = Path::new(&scratch);
    std::fs::create_dir_all(scratch)?;
    let (mut good, mut bad) = (0, 0);
    for unit in chosen(&prepared, count) {
        match check(&target, &prepared, &unit, scratch) {
            Ok(differences) if differences.is_empty() => good += 1,
            Ok(differences) => {
                bad += 1;
                println!("{}:\n  {}", unit.source, differences.join("\n  "));
            }
            Err(error) => {
                bad += 1;
                println!("{}: {error}", unit.source);
            }
        }
    }
    println!("{good} units are equal, {bad} differ");
    if bad == 0 { Ok(()) } else { Err("the plain object is not what a plain compile gives".into()) }
}

/// `count` units, evenly from all over the kernel.
fn chosen(prepared: &Prepared, count: usize) -> Vec<Unit> {
    let units = prepared.database.units();
    let there: Vec<&Unit> = units.iter().filter(|unit| prepared.tree.join(&unit.source).is_file()).collect();
    let step = (there.len() / count.max(1)).max(1);
    there.into_iter().step_by(step).take(count).cloned().collect()
}

fn check(target: &Target, prepared: &Prepared, unit: &Unit, scratch: &Path) -> Fallible<Vec<String>> {
    let source = std::fs::read(prepared.tree.join(&unit.source))?;
    let patches = [PatchFile::new("null.patch", null_patch(&unit.source, &source))];
    let outcome = match patch_and_compile(target, prepared, &patches, scratch, &|_| (), &|_| Vec::new()) {
        Ok(outcome) => outcome,
        // A unit of the vdso or of the EFI stub: its kind is refused.
        Err(Failure::Refused { refusals })
            if refusals.iter().all(|r| r.code == kmend_refusal::Code::UnsupportedFile) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    let mut differences = Vec::new();
    for compiled in &outcome.units {
        differences.extend(plain_differences(target, prepared, compiled, scratch)?);
        if compiled.patched != compiled.original {
            let patched = Object::parse(&compiled.patched)?;
            let found = compare(&Object::parse(&compiled.original)?, &patched);
            differences.extend(found.into_iter().map(|line| format!("null patch: {line}")));
        }
    }
    Ok(differences)
}

/// A patch that adds a comment at the top, and a blank line after every tenth line that no backslash continues.
fn null_patch(path: &str, source: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = source.split_inclusive(|&byte| byte == b'\n').collect();
    let mut patch =
        format!("--- a/{path}\n+++ b/{path}\n@@ -0,0 +1,2 @@\n+/* a comment\n+   of two lines */\n")
            .into_bytes();
    let mut added = 2;
    for (number, line) in (1..).zip(&lines) {
        if number % 10 == 0 && !line.trim_ascii_end().ends_with(b"\\") && line.ends_with(b"\n") {
            added += 1;
            let header = format!("@@ -{number},1 +{},2 @@\n ", number + added - 1);
            patch.extend_from_slice(header.as_bytes());
            patch.extend_from_slice(line);
            patch.extend_from_slice(b"+\n");
        }
    }
    patch
}

fn plain_differences(
    target: &Target,
    prepared: &Prepared,
    compiled: &CompiledUnit,
    scratch: &Path,
) -> Fallible<Vec<String>> {
    let output = std::path::absolute(scratch.join("direct.o"))?;
    let unit = &compiled.unit;
    Command::new(&target.compiler)
        .args(unit.arguments.iter().filter(|argument| !argument.starts_with("-g")))
        .args(["-c", "-o"])
        .arg(&output)
        .arg(&unit.named)
        .folder(&prepared.tree)
        .run()?;
    Ok(compare(&Object::parse(&std::fs::read(output)?)?, &Object::parse(&compiled.plain)?))
}

/// What differs between two objects in the sections' contents, relocations and symbols.
fn compare(wanted: &Object, found: &Object) -> Vec<String> {
    let (wanted, found) = (contents(wanted), contents(found));
    let names: std::collections::BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let differs = names.into_iter().filter(|name| wanted.get(*name) != found.get(*name));
    differs
        .map(|name| match (wanted.get(name), found.get(name)) {
            (Some(wanted), Some(found)) => format!("{name}: {}", first_difference(wanted, found)),
            (Some(_), None) => format!("{name} is missing"),
            _ => format!("{name} is too much"),
        })
        .collect()
}

fn first_difference(wanted: &str, found: &str) -> String {
    let pair = wanted.lines().zip(found.lines()).find(|(wanted, found)| wanted != found);
    pair.map_or_else(
        || "one is longer".to_owned(),
        |(wanted, found)| format!("wanted {wanted}, found {found}"),
    )
}

/// Every section as text: its form, its bytes, its relocations, the symbols in it.
fn contents(object: &Object) -> BTreeMap<String, String> {
    let mut sections = BTreeMap::new();
    for (index, section) in object.sections.iter().enumerate() {
        let text: &mut String = sections.entry(section.name.clone()).or_default();
        let _ = writeln!(text, "size {} align {} flags {:x}", section.size, section.align, section.flags);
        for (line, bytes) in section.data.chunks(16).enumerate() {
            let _ = writeln!(text, "{:x}: {bytes:02x?}", line * 16);
        }
        for relocation in &section.relocations {
            let symbol = object.symbol(relocation.symbol);
            let name = match symbol.place {
                kmend_object::Place::Section(id) if symbol.name.is_empty() => object.section(id).name.clone(),
                _ => symbol.name.clone(),
            };
            let _ = writeln!(
                text,
                "{:x}: relocation {} {name} {:x}",
                relocation.offset, relocation.kind, relocation.addend
            );
        }
        let here = |symbol: &&kmend_object::Symbol| matches!(symbol.place, kmend_object::Place::Section(id) if id.0 as usize == index);
        let mut symbols: Vec<String> = object
            .symbols
            .iter()
            .filter(here)
            .filter(|symbol| !symbol.name.is_empty())
            .map(|symbol| format!("symbol {} {:x} {:x}", symbol.name, symbol.value, symbol.size))
            .collect();
        symbols.sort();
        text.push_str(&symbols.join("\n"));
    }
    sections
}
