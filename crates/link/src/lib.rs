//! One livepatch module from the changed functions, their relocations and the patch table.
//!
//! Three steps. [`link`] is pure: it decides how every undefined symbol of the units' extracts is resolved
//! (`plan`), and merges the extracts into one object (`merge`). [`make_module`] writes that object and a
//! small C file with the patch table (`table`) into a scratch folder and lets the kernel's own build system
//! make a module of them (`kbuild`), which runs objtool exactly as it would for any module of that kernel.
//! Last, pure again, `finish` turns the planned symbols of the module into livepatch symbols and relocations.
//! The consistency engine is C written by hand, and goes the same way from the second step on (`written`).
//!
//! Architecture invariant: up to the finish every symbol keeps its source name, because objtool knows
//! functions that do not return by name; and no step asks for a kernel's version.

mod callbacks;
mod clear;
#[cfg(test)]
mod double;
mod engine;
mod error;
mod finish;
mod kbuild;
mod kernel;
mod merge;
mod names;
mod neighbours;
mod pins;
mod plan;
mod table;
mod updates;
mod written;

pub use engine::{ENGINE, ForEngine, JUMP};
pub use error::LinkError;
pub use kbuild::{BuiltModule, Paths, Times, make_module};
pub use kernel::TargetKernel;
pub use names::{LONGEST_NAME, check_patch_name};
pub use neighbours::{Candidate, Exported, KernelSymbols, Locate, Location};
pub use pins::Pin;
pub use plan::Resolution;
pub use written::{Written, WrittenModules, make_written};

use callbacks::ObjectCallback;
use kmend_diff::Delta;
use kmend_object::Object;
use kmend_refusal::Refusal;
use serde::Serialize;
use std::collections::BTreeMap;
use updates::Words;

/// One unit's part of the patch.
pub struct UnitInput<'a> {
    /// The source file, from the kernel tree's root.
    pub source: &'a str,
    /// The object that holds the unit: `vmlinux` or a module's name.
    pub owner: &'a str,
    /// What changed.
    pub delta: &'a Delta,
    /// Where the original's symbols live.
    pub matched: &'a dyn Locate,
}

/// All that goes into one livepatch module.
pub struct LinkInput<'a> {
    /// The patch's name: the module will be `livepatch-NAME.ko`.
    pub name: &'a str,
    /// Whether it replaces all livepatches that are loaded before it.
    pub replace: bool,
    /// The units.
    pub units: &'a [UnitInput<'a>],
    /// The kernel's symbols.
    pub kernel: &'a dyn KernelSymbols,
    /// The kernel's build id in lower-case hexadecimal digits; empty if it has none.
    pub build_id: &'a str,
    /// What it mends.
    pub mends: &'a Mends,
    /// What is to be known of the consistency engine, if the module is for that and not for the kernel's livepatch.
    pub engine: Option<&'a ForEngine>,
}

/// What a livepatch mends, in its author's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mends {
    /// Identifiers such as `CVE-2026-1234`.
    pub fixes: Vec<String>,
    /// The subjects of the patches that have one.
    pub subjects: Vec<String>,
}

/// One function that the module puts in place of a living one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatchedFunction {
    /// The living function.
    pub target: Location,
    /// The new function's symbol in the module.
    pub replacement: String,
}

/// One undefined symbol of the merged object, and how it is to be resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedSymbol {
    /// The symbol's name until the finish, unique among undefined symbols.
    pub placeholder: String,
    /// The name in the sources.
    pub name: String,
    /// How it is resolved.
    pub resolution: Resolution,
    /// Whether it is a function that is only called where the call does not come back. Until the finish it is defined, as
    /// one without a return: so objtool can see it, whatever it is called.
    pub ends: bool,
}

/// The result of [`link`]: all that is needed to make the module, and for the report.
#[derive(Debug, Clone)]
pub struct Linked {
    /// The module's file name without `.ko`.
    pub stem: String,
    /// Whether it replaces earlier livepatches.
    pub replace: bool,
    /// The kernel's build id in hexadecimal digits.
    pub build_id: String,
    /// What it mends.
    pub mends: Mends,
    /// The consistency engine that it is for, if not the kernel's livepatch.
    pub engine: Option<ForEngine>,
    /// The functions to patch, ordered by object.
    pub functions: Vec<PatchedFunction>,
    /// The callbacks of the patch's author, in the units' order.
    pub(crate) callbacks: Vec<ObjectCallback>,
    /// The words of the running kernel's data that are exchanged.
    pub(crate) words: Vec<Words>,
    /// What of the livepatch may be in use when it is disabled.
    pub pins: Vec<Pin>,
    /// How the undefined symbols are resolved.
    pub symbols: Vec<PlannedSymbol>,
    /// What a user should know of the module.
    pub warnings: Vec<String>,
    /// The placeholders of the symbols that the livepatch clears late relocations with, if it has to.
    pub(crate) clearing: Option<[String; 3]>,
    /// The merged object.
    pub(crate) object: Object,
    /// Functions whose names had to be made unique for objtool, by that name; the value is the true name.
    pub(crate) renamed: BTreeMap<String, String>,
}

/// Decides how every symbol is resolved and merges the units, or says why that cannot be done safely: all
/// the reasons, not the first.
pub fn link(input: &LinkInput<'_>) -> Result<Linked, Vec<Refusal>> {
    let mut refusals = names::check_patch_name(input.name);
    let merged = merge::merge(input, &mut refusals);
    let functions = table::patched_functions(input, &merged, &mut refusals);
    if !refusals.is_empty() {
        refusals.sort();
        refusals.dedup();
        return Err(refusals);
    }
    let mut symbols = merged.symbols.clone();
    if input.engine.is_some() {
        symbols.extend(engine::living(&functions));
    }
    let linked = Linked {
        stem: format!("livepatch-{}", input.name),
        replace: input.replace,
        build_id: input.build_id.to_owned(),
        mends: input.mends.clone(),
        engine: input.engine.cloned(),
        functions,
        callbacks: callbacks::collect(input, &merged),
        words: updates::collect(input, &merged),
        pins: pins::collect(input),
        symbols,
        warnings: merged.warnings,
        clearing: merged.clearing,
        object: merged.object,
        renamed: merged.renamed,
    };
    engine::check(&linked).map_or(Ok(linked), |refusal| Err(vec![refusal]))
}
