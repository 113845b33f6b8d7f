//! A unit compiled in other ways that come to the same.

use crate::database::{Unit, asks_for_debug_information};
use crate::droppable::{closing_quote, is_word};
use crate::error::{CompileError, Failure, io_error};
use crate::live_text::live_part;
use crate::prepare::Prepared;
use crate::target::Target;
use crate::unit::{Compiled, sectioned, to_assembly};
use kmend_process::Command;
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The object for the differ that comes of `unit` when the tree lies at `root` (the prepared tree itself by another
/// path, or a copy), the source is named by its whole path, and the compiler gets `more` arguments. `work` is a folder for
/// temporary files.
pub fn compile_at(
    target: &Target,
    prepared: &Prepared,
    unit: &Unit,
    root: &Path,
    more: &[String],
    work: &Path,
) -> Result<Vec<u8>, Failure> {
    let mut unit = unit.clone();
    unit.named = root.join(&unit.named).display().to_string();
    // __FILE__ as it is where the kernel is built (the kernel's Makefile, -fmacro-prefix-map=$(srctree)/=).
    unit.arguments.push(format!("-fmacro-prefix-map={}/=", root.display()));
    unit.arguments.extend_from_slice(more);
    let stem = work.join("elsewhere");
    match to_assembly(&target.compiler, root, &unit, &[], &stem)? {
        Compiled::Done((text, _)) => {
            Ok(sectioned(&target.compiler, &unit, &text, &prepared.exported, &stem)?)
        }
        Compiled::Failed(words) => {
            let why = "it does not compile in another folder";
            let refusal = Refusal::new(Code::CompileFailed, &unit.source, why).with_details(words);
            Err(Failure::Refused { refusals: vec![refusal] })
        }
    }
}

/// The object that comes of all of a unit's preprocessed text, and the one that comes of what is taken to count of it where
/// kmend decides whether a header changes the unit. Both are without debug information, and with a section for every function
/// and datum. `work` is a folder for temporary files.
pub fn compile_texts(
    target: &Target,
    prepared: &Prepared,
    unit: &Unit,
    work: &Path,
) -> Result<(Vec<u8>, Vec<u8>), CompileError> {
    let preprocess = unit.compiler(&target.compiler).args(["-E", "-P"]).arg(&unit.named);
    let text = preprocess.folder(&prepared.tree).run()?.stdout;
    let whole = compile_text(target, unit, &text, work)?;
    let mut part = tags(&text);
    part.extend(live_part(&text).join(&b'\n'));
    Ok((whole, compile_text(target, unit, &part, work)?))
}

/// Declarations of all tags of structures and unions in a text. Its first mention declares a tag (C11 6.7.2.3), which
/// may stand in what does not count, and the next one within a prototype, where it would declare it for that prototype alone.
fn tags(text: &[u8]) -> Vec<u8> {
    let (mut found, mut kind, mut at) = (BTreeSet::new(), &b""[..], 0);
    while let Some(&byte) = text.get(at) {
        let end = match byte {
            b'"' | b'\'' => closing_quote(text, at) + 1,
            _ => text
                .iter()
                .skip(at)
                .position(|&byte| !is_word(byte))
                .map_or(text.len(), |end| at + end.max(1)),
        };
        let word = text.get(at..end).unwrap_or_default();
        at = end;
        if word.trim_ascii().is_empty() {
            continue;
        }
        if is_word(byte) && !kind.is_empty() && !word.starts_with(b"__attribute") {
            found.insert([kind, b" ", word, b";\n"].concat());
        }
        kind = if matches!(word, b"struct" | b"union") { word } else { b"" };
    }
    found.into_iter().flatten().collect()
}

fn compile_text(target: &Target, unit: &Unit, text: &[u8], work: &Path) -> Result<Vec<u8>, CompileError> {
    let (source, object) = (work.join("text.i"), work.join("text.o"));
    fs::write(&source, text).map_err(io_error("write", &source))?;
    let mut arguments = unit.arguments.iter();
    let mut command = Command::new(&target.compiler);
    while let Some(argument) = arguments.next() {
        // What the command includes is in the text.
        if argument == "-include" {
            arguments.next();
        } else if !asks_for_debug_information(argument) {
            command = command.arg(argument);
        }
    }
    let options = ["-w", "-ffunction-sections", "-fdata-sections", "-c", "-o"];
    command.args(options).arg(&object).arg(&source).run()?;
    fs::read(&object).map_err(io_error("read", &object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_is_declared_once() {
        let text =
            b"struct s { union u *p; struct { int a; } v; }; char *t = \"struct x\"; int f(struct s *);\
            struct __attribute__((packed)) p { int a; }; int constructor;";
        assert_eq!(String::from_utf8_lossy(&tags(text)), "struct s;\nunion u;\n");
        assert!(tags(b"struct").is_empty() && tags(b"\"").is_empty() && tags(b"").is_empty());
    }
}
