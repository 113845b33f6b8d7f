//! A unit compiled in other ways that come to the same.

use crate::database::{Unit, asks_for_debug_information};
use crate::error::{CompileError, Failure, io_error};
use crate::live_text::live_part;
use crate::prepare::Prepared;
use crate::target::Target;
use crate::unit::{Compiled, sectioned, to_assembly};
use kmend_process::Command;
use kmend_refusal::{Code, Refusal};
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
    Ok((whole, compile_text(target, unit, &live_part(&text).join(&b'\n'), work)?))
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
