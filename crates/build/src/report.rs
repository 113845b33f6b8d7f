//! What a build found and made: the one value that the terminal, `NAME.json` and `--json` show.

use crate::consistency::Recommendation;
use kmend_audit::Audit;
use kmend_compile::Steps;
use kmend_diff::{Callback, Reason, VariableUpdate};
use kmend_refusal::{Code, Refusal};
use kmend_sign::CertificateFacts;
use serde::Serialize;

/// The version of the report's shape. It grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// Everything about one build but the time it took: the same inputs give the same report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of kmend that wrote it.
    pub kmend: &'static str,
    /// The livepatch's name, without `livepatch-` and `.ko`.
    pub name: String,
    /// The kernel it is for.
    pub kernel: KernelReport,
    /// What it fixes, as whoever built it said: identifiers such as `CVE-2026-1234`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<String>,
    /// The patches, in the order they were applied.
    pub patches: Vec<PatchReport>,
    /// Every unit whose source is patched, and those that a patched header changes.
    pub units: Vec<UnitReport>,
    /// The units that were looked at for the patched headers; `None` if no header is patched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reach: Option<Steps>,
    /// What each hunk of the patches comes to, in their order; empty if it did not come to comparing objects.
    pub hunks: Vec<HunkReport>,
    /// Symbols that the module takes from the running kernel by livepatch relocations.
    pub symbols: Vec<SymbolReport>,
    /// What a reader should know: skipped hunks, offsets, warnings of the tools.
    pub notes: Vec<Note>,
    /// Which consistency model suits the patch, as far as can be seen: advice. `None` if no module was made, or the
    /// model was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recommended: Option<Recommendation>,
    /// What the audit looked at; `None` if no module was made, or it found something wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Why no module was made; empty if one was.
    pub refusals: Vec<RefusalReport>,
    /// The module; `None` if it was refused or nothing changes.
    pub module: Option<ModuleReport>,
}

/// The kernel that a module is for.
#[derive(Debug, Clone, Serialize)]
pub struct KernelReport {
    /// `uname -r`.
    pub release: String,
    /// The package version, or `imported`.
    pub version: String,
    /// The image's build id in hexadecimal, if it has one.
    pub build_id: Option<String>,
    /// The compiler that built it, in its own words.
    pub compiler: String,
}

/// One patch file.
#[derive(Debug, Clone, Serialize)]
pub struct PatchReport {
    /// The file's name.
    pub name: String,
    /// BLAKE3 of its bytes, in hexadecimal.
    pub blake3: String,
    /// Its subject, if it is a mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// What became of one hunk.
#[derive(Debug, Clone, Serialize)]
pub struct HunkReport {
    /// The patch's name.
    pub patch: String,
    /// The line of the patch that holds the hunk's header, from 1.
    pub line: u32,
    /// The file that it changes, from the tree's root.
    pub file: String,
    /// Its number among those of its file, from 1.
    pub hunk: usize,
    /// Its header.
    pub header: String,
    /// What it comes to.
    pub effect: Effect,
    /// The functions of the livepatch that change by it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<String>,
    /// The variables that are exchanged or new by it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// Why it has no effect, or has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a hunk comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Functions change.
    Changed,
    /// Data is exchanged, or new.
    Data,
    /// Nothing of this kernel changes by it.
    None,
    /// It is refused.
    Refused,
    /// Nothing that changes is found, and no reason either.
    Unexplained,
}

impl Effect {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Effect::Changed => "changed",
            Effect::Data => "data",
            Effect::None => "nothing",
            Effect::Refused => "refused",
            Effect::Unexplained => "unexplained",
        }
    }
}

/// What became of one translation unit.
#[derive(Debug, Clone, Serialize)]
pub struct UnitReport {
    /// Its source, from the tree's root.
    pub source: String,
    /// `vmlinux` or a module's name.
    pub object: String,
    /// How many of its functions the image holds just as they were compiled.
    pub functions_matched: usize,
    /// How many it has that are not in force there: overridden by another unit, or dropped by the linker.
    pub functions_elsewhere: usize,
    /// What goes into the module.
    pub functions: Vec<FunctionReport>,
    /// New variables that go into the module.
    pub variables: Vec<String>,
    /// Callbacks of the unit's object that the patch brings.
    pub callbacks: Vec<Callback>,
    /// Variables of the running kernel whose values are exchanged.
    pub updates: Vec<VariableUpdate>,
}

/// One function that goes into the module.
#[derive(Debug, Clone, Serialize)]
pub struct FunctionReport {
    /// Its name.
    pub name: String,
    /// Whether it replaces one of the running kernel.
    pub status: Status,
    /// Why it is there.
    pub reasons: Vec<Reason>,
    /// Its position among the symbols of its name, counted from 1; `None` where the name is unique or the function is
    /// new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
}

/// Whether a function replaces another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It replaces a function of the running kernel.
    Changed,
    /// It is new.
    New,
}

/// A symbol that the kernel's livepatch loader resolves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SymbolReport {
    /// Its name.
    pub name: String,
    /// `vmlinux` or the module that has it.
    pub object: String,
    /// Its position among the symbols of its name, counted from 1; 0 where it is unique.
    pub position: usize,
}

/// Something a reader should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// Whether it says what is, or what should be looked at.
    pub kind: NoteKind,
    /// What it is about.
    pub subject: String,
    /// The note, one sentence.
    pub text: String,
}

impl From<kmend_compile::Note> for Note {
    fn from(note: kmend_compile::Note) -> Note {
        Note { kind: NoteKind::Fact, subject: note.file.unwrap_or_default(), text: note.text }
    }
}

/// How certain a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// It is so.
    Fact,
    /// It may be so: names and rules of thumb led to it. It proves nothing, and neither does its absence.
    Advice,
}

/// A refusal with what its code stands for.
#[derive(Debug, Clone, Serialize)]
pub struct RefusalReport {
    /// The refusal.
    #[serde(flatten)]
    pub refusal: Refusal,
    /// The code's title.
    pub title: &'static str,
    /// What the user can do.
    pub way_out: &'static str,
}

impl From<Refusal> for RefusalReport {
    fn from(refusal: Refusal) -> Self {
        let (title, way_out) = (refusal.code.title(), refusal.way_out());
        RefusalReport { refusal, title, way_out }
    }
}

impl RefusalReport {
    /// The stable code.
    pub fn code(&self) -> Code {
        self.refusal.code
    }
}

/// The module that was made.
#[derive(Debug, Clone, Serialize)]
pub struct ModuleReport {
    /// Its file name.
    pub file: String,
    /// BLAKE3 of its bytes, in hexadecimal.
    pub blake3: String,
    /// Its size in bytes.
    pub size: usize,
    /// Whether it replaces all livepatches that are loaded before it.
    pub replace: bool,
    /// What it says to the consistency engine; `None` if it is for the kernel's own livepatch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineReport>,
    /// The certificate of the key that signed it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<CertificateFacts>,
}

/// What a module says to the consistency engine.
#[derive(Debug, Clone, Serialize)]
pub struct EngineReport {
    /// The id of what it and the engine must agree on.
    pub interface: String,
    /// The model that it begins with; `None` for the engine's default.
    pub model: Option<String>,
    /// How callers are redirected to begin with; `None` for the engine's default.
    pub redirect: Option<String>,
    /// Functions that ftrace does not know: only that redirect, and a model that stops the machine, can switch them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub untraced: Vec<String>,
}
