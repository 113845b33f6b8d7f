//! `kmend inspect`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::signing::{self, Trusting};
use crate::style::{BOLD, DIM, paint};
use clap::Args;
use kmend_explain::visible;
use kmend_inspect::{EngineUse, Inspection, LivepatchSymbol, ObjectRelocations, PatchedObject};
use kmend_sign::{SignatureFinding, Trust};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;

/// Show what a livepatch module patches, and for which kernel
///
/// Reads the module's file alone: no kernel is needed. Shows the kernel it was built for, the functions it
/// replaces by object (vmlinux or a module) with their positions among the symbols of one name, the callbacks, and
/// the symbols that the kernel's livepatch loader resolves. It reads livepatches that other tools made, too; if
/// such a module makes its patch table at run time, the functions cannot be shown. Of a patch for kmend's consistency engine, the
/// model and the redirect that it begins with are shown, too.
///
/// The signer that a signature names is shown, and whether the signature is valid if certificates are given or
/// /etc/kmend/trusted has some. Whether the kernel takes it, only the kernel with its own keys can tell.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// The livepatch module, packed or not
    #[arg(value_name = "FIX.ko")]
    module: PathBuf,
    #[command(flatten)]
    trusting: Trusting,
}

/// What the module says, and what its signature does.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    module: Inspection,
    signature: Option<SignatureFinding>,
}

const EXAMPLES: &str = "\
Examples:
  kmend inspect livepatch-fix.ko
  kmend inspect livepatch-fix.ko --cert signing.crt
  kmend inspect livepatch-fix.ko --json | jq -r '.objects[].functions[].name'";

impl Inspect {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let trust = self.trusting.trust()?;
        let module = kmend_inspect::inspect(&self.module)?;
        let signature = kmend_sign::of_file(&self.module, trust.as_ref().map_or(&[], Trust::certificates))?;
        output.document(&Document { module, signature }, text)?;
        Ok(End::Done)
    }
}

fn text(document: &Document) -> String {
    let module = &document.module;
    let mut text = head(module, signing::signature(document.signature.as_ref()));
    for object in &module.objects {
        let _ = write!(text, "\n{}\n", paint(BOLD, format!("patches {}", visible(&object.name))));
        add_object(&mut text, object);
    }
    if module.replace.is_none() {
        text.push_str("\nThe patch table is made at run time: its functions cannot be read from the file.\n");
    }
    if !module.updates.is_empty() {
        let title = paint(BOLD, "values that it exchanges, by object");
        let _ = writeln!(text, "\n{title}\n  {}", lines(&module.updates));
    }
    for (names, title) in [
        (&module.outlives, "what may be in use when it is disabled, so that it stays in memory"),
        (&module.ends, "what its callbacks end when it is disabled"),
    ] {
        if !names.is_empty() {
            let _ = writeln!(text, "\n{}\n  {}", paint(BOLD, title), lines(names));
        }
    }
    for relocations in &module.relocations {
        add_relocations(&mut text, relocations);
    }
    if !module.exports.is_empty() {
        let title = paint(BOLD, "exported symbols that it uses");
        let _ = writeln!(text, "\n{title}\n  {}", lines(&module.exports));
    }
    text
}

/// One a line. Whatever a module says must not look like a line of kmend's own.
fn lines(names: &[String]) -> String {
    names.iter().map(|name| visible(name)).collect::<Vec<_>>().join("\n  ")
}

fn head(module: &Inspection, signature: String) -> String {
    let unknown = || "unknown".to_owned();
    let depends = if module.depends.is_empty() { "nothing".into() } else { module.depends.join(", ") };
    let rows = [
        ("name", module.name.clone()),
        ("kernel", module.kernel.clone()),
        ("vermagic", module.vermagic.clone()),
        ("build id", module.build_id.clone().unwrap_or_else(unknown)),
        ("made by", module.kmend.as_ref().map_or_else(unknown, |version| format!("kmend {version}"))),
        ("engine", module.engine.as_ref().map(engine).unwrap_or_default()),
        ("fixes", module.fixes.join(", ")),
        ("subject", module.subjects.join("; ")),
        ("replaces", replaces(module.replace).into()),
        ("signature", signature),
        ("depends on", depends),
        ("unloads", if module.stays { "no: disabled, it stays in memory" } else { "yes" }.into()),
    ];
    // Few modules say what they are for.
    rows.iter().filter(|(_, value)| !value.is_empty()).fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<10}  {}", visible(value));
        text
    })
}

/// That it is for the consistency engine, and what it begins with.
fn engine(engine: &EngineUse) -> String {
    let default = "the engine's default";
    let model = engine.model.as_deref().unwrap_or(default);
    let redirect = engine.redirect.as_deref().unwrap_or(default);
    let interface = engine.interface.as_deref().unwrap_or("unknown");
    format!("kmend's consistency engine, interface {interface}: model {model}, redirect {redirect}")
}

fn replaces(replace: Option<bool>) -> &'static str {
    match replace {
        Some(true) => "all livepatches that are loaded before it",
        Some(false) => "nothing: it is added to those that are loaded",
        None => "unknown",
    }
}

fn add_object(text: &mut String, object: &PatchedObject) {
    for function in &object.functions {
        text.push_str("  ");
        text.push_str(&visible(&function.name));
        if function.replacement != function.name {
            let _ = write!(text, " by {}", visible(&function.replacement));
        }
        add_position(text, function.position);
        text.push('\n');
    }
    for callback in &object.callbacks {
        let _ = writeln!(text, "  callback {}: {}", callback.when, visible(&callback.function));
    }
}

fn add_relocations(text: &mut String, relocations: &ObjectRelocations) {
    let title = format!("resolved with {}", visible(&relocations.object));
    let _ = writeln!(text, "\n{} {} relocations", paint(BOLD, title), relocations.count);
    for symbol in &relocations.symbols {
        let _ = writeln!(text, "  {}", symbol_text(symbol, &relocations.object));
    }
}

fn symbol_text(symbol: &LivepatchSymbol, object: &str) -> String {
    let mut text = visible(&symbol.name);
    if symbol.object != object {
        let _ = write!(text, " of {}", visible(&symbol.object));
    }
    add_position(&mut text, symbol.position);
    text
}

/// A position, where the name alone is not enough.
fn add_position(text: &mut String, position: u64) {
    if position != 0 {
        let _ = write!(text, " {}", paint(DIM, format!("position {position}")));
    }
}
