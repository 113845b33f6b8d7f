//! Compiling one unit: once to assembly, from which the objects are assembled.

use crate::assembly;
use crate::database::{Owner, Unit};
use crate::error::{CompileError, io_error};
use crate::own_sections::with_own_sections;
use crate::shadow::dependencies;
use crate::static_keys::test_keys_of_modules;
use kmend_process::Command;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Types, and the source line of every instruction. What is left out (which variable lives where at which
/// instruction, statement boundaries) nothing asks for, and it takes longer than all the rest; code is
/// the same with and without (gcc's manual: -fcompare-debug).
const DEBUG_INFORMATION: &[&str] = &[
    "-gdwarf-5",
    "-g2",
    "-fno-var-tracking",
    "-fno-var-tracking-assignments",
    "-gno-variable-location-views",
    "-gno-statement-frontiers",
];

/// How many of the compiler's lines a failure keeps.
const MESSAGE_LINES: usize = 60;

/// A unit's assembly, with a section of its own for every function and datum and with debug information; and what the
/// compiler read, from the tree's root, without its own files.
pub type Assembly = (Vec<u8>, Vec<String>);

/// What a compile comes to.
#[derive(Debug)]
pub enum Compiled<T> {
    /// It compiled.
    Done(T),
    /// The compiler declined the source, with these words.
    Failed(Vec<String>),
}

/// Compiles `unit` in the tree at `root` to assembly, with options of its own. `stem` is where to write: `STEM.s`
/// and `STEM.d`.
pub fn to_assembly(
    compiler: &str,
    root: &Path,
    unit: &Unit,
    options: &[&str],
    stem: &Path,
) -> Result<Compiled<Assembly>, CompileError> {
    let (output, list) = (stem.with_extension("s"), stem.with_extension("d"));
    let run = unit
        .compiler(compiler)
        .args(DEBUG_INFORMATION)
        .args(options)
        // Names from the tree's root, so that nothing of where this ran can get into the object.
        .arg(format!("-fdebug-prefix-map={}=.", root.display()))
        .args(["-ffunction-sections", "-fdata-sections", "-MMD", "-MT", "unit", "-MF"])
        .arg(&list)
        .args(["-S", "-o"])
        .arg(&output)
        .arg(&unit.named)
        .folder(root)
        .output()?;
    if !run.success {
        return Ok(Compiled::Failed(message(&run.error_text(), root)));
    }
    let text = fs::read(&output).map_err(io_error("read", &output))?;
    let read = fs::read(&list).map_err(io_error("read", &list))?;
    let read = dependencies(&String::from_utf8_lossy(&read));
    Ok(Compiled::Done((text, read)))
}

/// The object for the differ: every function and datum in a section of its own, and in a module's unit no jump
/// labels of a module's keys. `exported` are the symbols that vmlinux exports.
pub fn sectioned(
    compiler: &str,
    unit: &Unit,
    text: &[u8],
    exported: &HashSet<String>,
    stem: &Path,
) -> Result<Vec<u8>, CompileError> {
    let text = with_own_sections(text);
    let text = match unit.owner {
        Owner::Module { .. } => test_keys_of_modules(&text, |key| exported.contains(key)),
        Owner::Vmlinux => text,
    };
    assemble(compiler, unit, &text, stem)
}

/// The assembly of a module's unit with tests of modules' keys in the place of their jump labels; `None` if it has none.
pub fn with_tested_keys(unit: &Unit, text: &[u8], exported: &HashSet<String>) -> Option<Vec<u8>> {
    if unit.owner == Owner::Vmlinux {
        return None;
    }
    let tested = test_keys_of_modules(text, |key| exported.contains(key));
    (tested != text).then_some(tested)
}

/// The object of an assembly's text as the kernel's build would make it.
pub fn plain_of_text(compiler: &str, unit: &Unit, text: &[u8], stem: &Path) -> Result<Vec<u8>, CompileError> {
    assemble(compiler, unit, &assembly::without_own_sections(text), stem)
}

/// Assembles `text`; `stem` is where to write.
fn assemble(compiler: &str, unit: &Unit, text: &[u8], stem: &Path) -> Result<Vec<u8>, CompileError> {
    let (input, output) = (stem.with_extension("s"), stem.with_extension("o"));
    fs::write(&input, text).map_err(io_error("write", &input))?;
    let folder = stem.parent().unwrap_or(Path::new("."));
    Command::new(compiler)
        .args(unit.arguments.iter().filter(|argument| is_for_the_assembler(argument)))
        // Names without a folder, so that nothing of where this ran can get into the object.
        .args(["-c".as_ref(), "-o".as_ref(), output.file_name().unwrap_or_default()])
        .arg(input.file_name().unwrap_or_default())
        .folder(folder)
        .run()?;
    fs::read(&output).map_err(io_error("read", &output))
}

/// The object as the kernel's build makes it, without a section for every function and datum and without debug
/// information: assembled from the same text, or compiled once more if the assembler does not take it.
pub fn plain(
    compiler: &str,
    root: &Path,
    unit: &Unit,
    text: &[u8],
    stem: &Path,
) -> Result<Vec<u8>, CompileError> {
    if let Ok(object) = assemble(compiler, unit, &assembly::without_own_sections(text), stem) {
        return Ok(object);
    }
    let output = stem.with_extension("o");
    unit.compiler(compiler).args(["-g0", "-c", "-o"]).arg(&output).arg(&unit.named).folder(root).run()?;
    fs::read(&output).map_err(io_error("read", &output))
}

fn is_for_the_assembler(argument: &str) -> bool {
    argument.starts_with("-Wa,") || argument == "-m64" || argument == "-m32"
}

/// The compiler's words, with paths from the tree's root and not too many.
pub fn message(text: &str, root: &Path) -> Vec<String> {
    let root = format!("{}/", root.display());
    let mut lines: Vec<String> = text.lines().map(|line| line.replace(&root, "")).collect();
    if lines.len() > MESSAGE_LINES {
        let more = lines.len() - MESSAGE_LINES;
        lines.truncate(MESSAGE_LINES);
        lines.push(format!("({more} more lines)"));
    }
    lines
}

/// Whether a file was missing that the build system may be able to make.
pub fn misses_a_file(message: &[String]) -> bool {
    message.iter().any(|line| line.contains("fatal error:") && line.ends_with("No such file or directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_include_is_told_from_other_errors() {
        let missing = "lib/crc32.c:30:10: fatal error: crc32table.h: No such file or directory".to_owned();
        assert!(misses_a_file(&[missing]));
        assert!(!misses_a_file(&["a.c:1:1: error: expected ';'".to_owned()]));
    }

    #[test]
    fn messages_name_files_from_the_root_and_are_bounded() {
        let text = "/scratch/a/fs/x.c:1: error\n".repeat(100);
        let lines = message(&text, Path::new("/scratch/a"));
        assert_eq!(lines.len(), MESSAGE_LINES + 1);
        assert_eq!(lines[0], "fs/x.c:1: error");
        assert_eq!(lines[MESSAGE_LINES], "(40 more lines)");
    }
}
