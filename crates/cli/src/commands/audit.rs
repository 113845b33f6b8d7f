//! `kmend audit`

pub(super) mod running;

use super::build;
use crate::failure::{End, Failure};
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::style::{GREEN, RED, paint};
use clap::Args;
use kmend_build::{Audit, Materials, NoMaterials, RefusalReport};
use kmend_compile::PatchFile;
use kmend_explain::visible;
use kmend_kernel::{LARGEST_MODULE, Packing, read_file};
use kmend_refusal::Code;
use kmend_store::Cache;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Hold a livepatch module against the kernel's own files once more
///
/// A second opinion by other means than those that built the module: another reader, another disassembler, another way to find what
/// is what. The units that the patches reach are compiled again, and shown to be so: each entry of the patch table leads to the
/// function that is meant; the module's code is the patched source's; every relocation leads to the right thing, by the
/// addresses that the kernel's image holds; nothing of the patch is left out; nothing leads to memory that is freed or cannot be
/// written. What nothing accounts for is refused.
///
/// `kmend build` does this before it writes a module. The kernel must be in the cache. The patches are those that were kept when
/// the module was built with this cache, or those that --patch names, in their order.
///
/// With --running the memory of this machine is held against the module's file, as root: every word that a relocation wrote, every
/// byte of code and constants, and the entry of each function that the livepatch replaces. Without FIX.ko it does so for every
/// installed livepatch that is loaded. No kernel has to be in the cache for that.
///
/// Exit codes: 0 nothing is wrong, 2 something is, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AuditModule {
    /// The livepatch module, packed or not
    #[arg(value_name = "FIX.ko", required_unless_present = "running")]
    module: Option<PathBuf>,
    /// Compare what this machine has in its memory
    #[arg(long, conflicts_with = "patches")]
    running: bool,
    /// A patch that it was built from, in the order they were applied; a series or a folder, as `kmend build` takes them
    #[arg(long = "patch", value_name = "FIX.patch")]
    patches: Vec<PathBuf>,
    /// The patches were undone (`kmend build --reverse`)
    #[arg(short = 'R', long, requires = "patches")]
    reverse: bool,
}

const EXAMPLES: &str = "\
Examples:
  kmend audit livepatch-fix.ko
  kmend audit livepatch-fix.ko --patch fix.patch
  kmend audit livepatch-fix.ko --json | jq -r '.refusals[].why'
  kmend audit --running";

/// What was found.
#[derive(Serialize)]
struct Document {
    name: String,
    kernel: String,
    right: bool,
    #[serde(flatten)]
    audit: Audit,
    refusals: Vec<RefusalReport>,
}

impl AuditModule {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        if self.running {
            return running::run(self.module.as_deref(), output);
        }
        let Some(module) = &self.module else {
            return Err(Failure::new(Code::Usage, "FIX.ko".to_owned(), "no module is named".to_owned()));
        };
        let inspected = kmend_inspect::inspect(module)?;
        let bytes = read_module(module)?;
        let given = if self.patches.is_empty() {
            Vec::new()
        } else {
            build::given_patches(&self.patches, self.reverse)?
        };
        let cache = Cache::open()?;
        let kernel = cache.kernel(&inspected.kernel)?;
        let kept = kmend_build::kept(&kernel, &bytes)?;
        let bytes_of =
            |patches: &[PatchFile]| patches.iter().map(|patch| patch.bytes.clone()).collect::<Vec<_>>();
        let are_others =
            kept.as_deref().is_some_and(|kept| !given.is_empty() && bytes_of(kept) != bytes_of(&given));
        let patches = match (given.is_empty(), kept) {
            (true, Some(kept)) => kept,
            (true, None) => return Err(Failure::refused(vec![kmend_build::nothing_kept(module)])),
            (false, _) => given,
        };
        let progress = Mutex::new(Progress::new());
        let say = |text: &str| progress.lock().unwrap_or_else(PoisonError::into_inner).detail(text);
        progress.lock().unwrap_or_else(PoisonError::into_inner).begin("compile");
        let materials = Materials::make(&cache, &kernel, &patches, &bytes, &say);
        progress.lock().unwrap_or_else(PoisonError::into_inner).end(None);
        let materials = match materials {
            Ok(materials) => materials,
            Err(NoMaterials::Refused(refusals)) => return Err(Failure::refused(refusals)),
            Err(NoMaterials::Failed(error)) => return Err((*error).into()),
        };
        let audit = materials.audit(&bytes)?;
        // What is wrong is then most likely the patches.
        if are_others && !audit.refusals.is_empty() {
            let why =
                "it was not built from these patches: this cache has kept others, which --patch leaves aside";
            return Err(Failure::new(Code::AuditLost, module.display().to_string(), why));
        }
        let refusals: Vec<RefusalReport> = audit.refusals.iter().cloned().map(Into::into).collect();
        let document = Document {
            name: inspected.name,
            kernel: inspected.kernel,
            right: refusals.is_empty(),
            audit,
            refusals,
        };
        output.document(&document, text)?;
        if !output.is_json() {
            output::reasons(&document.refusals);
        }
        Ok(End::of(document.refusals.iter().map(RefusalReport::code)))
    }
}

fn read_module(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read_file(path, LARGEST_MODULE).map_err(|error| Failure::io(path, &error))?;
    match Packing::detect(&bytes) {
        Some(packing) => packing
            .unpack(&bytes)
            .map_err(|why| Failure::new(Code::ModuleFormat, path.display().to_string(), why)),
        None => Ok(bytes),
    }
}

fn text(document: &Document) -> String {
    let audit = &document.audit;
    let mut text = format!("{} for {}\n", visible(&document.name), visible(&document.kernel));
    let (functions, references) = (audit.functions, audit.references);
    let _ = writeln!(text, "  {functions} functions compared, {references} references followed");
    if audit.exchanged > 0 {
        let _ = writeln!(text, "  {} bytes of living data exchanged", audit.exchanged);
    }
    for note in &audit.notes {
        let _ = writeln!(text, "  note {}", visible(note));
    }
    let verdict =
        if document.right { paint(GREEN, "nothing is wrong") } else { paint(RED, "something is wrong") };
    let _ = writeln!(text, "{verdict}");
    text
}
