//! `kmend diff`

use crate::explanation;
use crate::failure::{End, Failure};
use crate::output::Output;
use crate::style::{CYAN, GREEN, YELLOW, paint};
use clap::Args;
use kmend_diff::{Callback, Delta, Escape, Fentry, FunctionChange, VariableUpdate};
use kmend_explain::{Explainer, Explanation, NumberedLine, Sources, Unit};
use kmend_object::Object;
use kmend_refusal::Code;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The largest object that is read, in bytes. Units of the kernel have a few MiB with their debug information.
const LARGEST_OBJECT: u64 = 1 << 30;

/// Compare two objects: which functions changed, which are new
///
/// Compares the object of the original source with that of the patched one, function by function, and lists what
/// a livepatch would have to hold. Names are not trusted: functions and data pair up by their contents, so that the
/// compiler's numbering (foo.isra.0, __func__.12, CSWTCH.45) does not mislead. What objtool adds to an object is ignored.
///
/// Nothing is built of them, so that a function which could not be redirected is a remark and no refusal. Calls of
/// __fentry__ may be nops already, as recordmcount and objtool leave them; tables of older kernels and kpatch's own sections
/// (.kpatch.*) are known.
///
/// Both must be x86-64 relocatable ELF objects that one compiler made with -ffunction-sections and
/// -fdata-sections, and with the same options otherwise.
///
/// Exit codes: 0 something changed, 3 nothing changes, 2 refused (a livepatch could not hold the change), 1 a file
/// cannot be read or is no such object.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Diff {
    /// The object of the original source
    #[arg(value_name = "ORIG.o")]
    original: PathBuf,
    /// The object of the patched source
    #[arg(value_name = "PATCHED.o")]
    patched: PathBuf,
    /// Print for each function the first instruction that differs, disassembled before and after, with the source lines
    /// if the objects have debug information (-g) and this is the folder in which they were compiled
    #[arg(long)]
    explain: bool,
}

const EXAMPLES: &str = "\
Example:
  gcc -O2 -c -ffunction-sections -fdata-sections -o orig.o before.c
  gcc -O2 -c -ffunction-sections -fdata-sections -o patched.o after.c
  kmend diff orig.o patched.o";

/// The difference as `--json` prints it.
#[derive(Serialize)]
struct Difference<'a> {
    functions: &'a [FunctionChange],
    variables: &'a [String],
    updates: &'a [VariableUpdate],
    callbacks: &'a [Callback],
    outlives: &'a [Escape],
    notes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
}

impl Diff {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let (original, patched) = (read(&self.original)?, read(&self.patched)?);
        let delta = kmend_diff::compare(&original, &patched, Fentry::IfUsed).map_err(Failure::refused)?;
        if delta.is_empty() && !output.is_json() {
            let why = "every function and all data are the same in both objects";
            return Err(Failure::new(Code::NothingChanges, "", why));
        }
        let explanation = self.explain.then(|| explain(&original, &patched, &delta));
        let difference = Difference {
            functions: &delta.functions,
            variables: &delta.variables,
            updates: &delta.updates,
            callbacks: &delta.callbacks,
            outlives: &delta.outlives,
            notes: &delta.notes,
            explanation,
        };
        output.document(&difference, |difference| {
            text(&delta) + &difference.explanation.as_ref().map(explanation::text).unwrap_or_default()
        })?;
        Ok(if delta.is_empty() { End::Nothing } else { End::Done })
    }
}

fn read(path: &Path) -> Result<Object, Failure> {
    let bytes = kmend_kernel::read_file(path, LARGEST_OBJECT).map_err(|error| Failure::io(path, &error))?;
    Object::parse(&bytes).map_err(|error| Failure::about(path.display().to_string(), &error))
}

fn explain(original: &Object, patched: &Object, delta: &Delta) -> Explanation {
    let read = |file: &str| Some(NumberedLine::of_file(&std::fs::read(file).ok()?));
    let mut explainer = Explainer::default();
    explainer.add(&Unit {
        source: "",
        object: "",
        original,
        patched,
        functions: &delta.functions,
        sources: Sources { original: &read, patched: &read },
    });
    explainer.finish()
}

fn text(delta: &Delta) -> String {
    let mut text = String::new();
    for function in &delta.functions {
        let (status, style) = if function.original.is_some() { ("changed", YELLOW) } else { ("new", GREEN) };
        line(&mut text, &paint(style, format!("{status:<8}")), &function.name, &reasons(&function.reasons));
    }
    for variable in &delta.variables {
        line(&mut text, &paint(CYAN, "variable"), variable, "new");
    }
    for update in &delta.updates {
        line(&mut text, &paint(YELLOW, "updated "), &update.variable, &words(update));
    }
    for callback in &delta.callbacks {
        line(&mut text, &paint(CYAN, "callback"), &callback.function, callback.moment.name());
    }
    for escape in &delta.outlives {
        let leads: Vec<&str> =
            escape.functions.iter().filter(|name| **name != escape.name).map(String::as_str).collect();
        let leads =
            if leads.is_empty() { String::new() } else { format!(", and it leads to {}", leads.join(", ")) };
        let what = if escape.ends { "ends    " } else { "outlives" };
        line(&mut text, &paint(YELLOW, what), &escape.name, &format!("{}{leads}", escape.how));
    }
    for note in &delta.notes {
        let _ = writeln!(text, "  note      {note}");
    }
    text
}

/// One thing that goes into a module.
pub(crate) fn line(text: &mut String, status: &str, name: &str, reasons: &str) {
    let _ = writeln!(text, "  {status}  {name:<40} {reasons}");
}

/// What becomes of a variable's value, in words.
pub(crate) fn words(update: &VariableUpdate) -> String {
    let stays = if update.pins { ", which lead to new code" } else { "" };
    format!("{} word{} of its value{stays}", update.words, if update.words == 1 { "" } else { "s" })
}

/// Why, in words.
pub(crate) fn reasons(reasons: &[kmend_diff::Reason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
