//! The way of a patch, from its text to a livepatch module.
//!
//! ```text
//! compile ─ match ─ diff ─ link ─ module ─ audit
//! ```
//!
//! Each stage is a crate; this one runs them in their order, lets all of a patch's refusals come together, and
//! writes down what was found in one [`Report`].

mod audit;
mod callers;
mod consistency;
mod error;
mod explain;
mod exports;
mod facts;
mod hunks;
mod outset;
mod pipeline;
mod publish;
mod report;
mod scope;
mod subject;
mod types;
mod units;

pub use audit::{Materials, NoMaterials, kept, nothing_kept};
pub use consistency::{EngineRequest, Recommendation};
pub use error::BuildError;
pub use kmend_audit::{Audit, Machine, MachineError, Running, running};
pub use kmend_compile::Steps;
pub use pipeline::target;
pub use report::{
    Effect, EngineReport, FunctionReport, HunkReport, KernelReport, ModuleReport, Note, NoteKind,
    PatchReport, RefusalReport, Report, SCHEMA, Status, SymbolReport, UnitReport,
};

use kmend_compile::PatchFile;
use kmend_explain::Explanation;
use kmend_sign::Signer;
use kmend_store::{Cache, Kernel};
use std::path::PathBuf;
use std::time::Duration;

/// What to build.
pub struct Request<'a> {
    /// Where derived files are kept.
    pub cache: &'a Cache,
    /// The kernel to build for.
    pub kernel: &'a Kernel,
    /// The patches, in the order to apply them.
    pub patches: Vec<PatchFile>,
    /// The livepatch's name; the first patch's if `None`.
    pub name: Option<String>,
    /// Whether the module replaces all livepatches that are loaded before it.
    pub replace: bool,
    /// What it fixes: identifiers such as `CVE-2026-1234`, for whoever asks the module.
    pub fixes: Vec<String>,
    /// Builds for kmend's consistency engine instead of the kernel's livepatch.
    pub engine: Option<EngineRequest>,
    /// The folder for `livepatch-NAME.ko`, its manifest and `NAME.json`.
    pub output: PathBuf,
    /// Whether to explain the changed functions.
    pub explain: bool,
    /// Who signs the module and its manifest, if anybody.
    pub signer: Option<&'a Signer>,
}

/// Builds a livepatch module, or says why that cannot be done: all the reasons, in the report.
///
/// `events` is called from several threads.
pub fn build(request: &Request<'_>, events: &(dyn Fn(Event) + Sync)) -> Result<Built, BuildError> {
    pipeline::Pipeline::new(request, events).run()
}

/// What happens while a build goes on.
#[derive(Debug, Clone)]
pub enum Event {
    /// A stage begins.
    Started(Stage),
    /// A stage says how far it is.
    Detail(Stage, String),
    /// A stage has ended.
    Finished(Stage, Duration),
}

/// The stages of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The kernel's tree is prepared and its compile commands are listed; once per kernel.
    Prepare,
    /// Original and patched units are compiled.
    Compile,
    /// The originals are compared with the image.
    Match,
    /// Original and patched objects are compared.
    Diff,
    /// The changed functions are disassembled and set side by side, if that is asked for.
    Explain,
    /// The consistency engine is built, if the patch is for that; once per kernel.
    Engine,
    /// Symbols are planned and the objects merged.
    Link,
    /// objtool and the kernel's build system make the module.
    Module,
    /// The finished module is held against the kernel and the plain objects by other means.
    Audit,
}

/// A finished build.
#[derive(Debug)]
pub struct Built {
    /// What was found. If it has no refusals and a module, the module was written.
    pub report: Report,
    /// Why each function is in the livepatch, if that was asked for and it came to comparing functions. Where the
    /// livepatch was refused, the functions that differ.
    pub explanation: Option<Explanation>,
    /// `livepatch-NAME.ko`, if one was made.
    pub module: Option<PathBuf>,
    /// `NAME.json`.
    pub json: PathBuf,
    /// How long each stage took.
    pub times: Vec<(Stage, Duration)>,
}
