//! `kmend build`

mod patches;
mod report;

use super::kernel::OwnKernel;
use super::prove::{self, Checks};
use crate::arguments;
use crate::explanation;
use crate::failure::{End, Failure};
use crate::kernel_choice;
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::signing::Signing;
use clap::Args;
use kmend_build::{Built, EngineRequest, Event, RefusalReport, Report, Request, Stage};
use kmend_explain::Explanation;
use kmend_refusal::Code;
use kmend_store::{Cache, Kernel};
use kmend_vm::ProofReport;
use patches::Patches;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The longest identifier of what a patch fixes, in bytes.
const LONGEST_FIX: usize = 64;

/// Build a livepatch module from source patches
///
/// Applies the patches, in their order, to a copy of the kernel's source; compiles what they reach, before and after;
/// makes sure that the compiled originals equal the kernel's image; finds what changed; and builds a module that holds
/// just the changed functions and what they need. The kernel's source tree is never written to.
///
/// A hunk applies where its lines stand. If that is more than one place, the function that its header names decides, and if
/// that does not, it is refused. No line of context is left out unless --fuzz says so.
///
/// Writes livepatch-NAME.ko, its manifest livepatch-NAME.kmend.json, and NAME.json, the report, into the output folder. The
/// same inputs give the same bytes.
/// What cannot be patched safely is refused with all the reasons at once, and then no module is written.
///
/// With --engine the module is for kmend's consistency engine, a kernel module that offers more ways to switch a patch than the
/// kernel's own livepatch does (docs/consistency.md). Which model suits the patch is told as advice.
///
/// The kernel is the one that --kernel names; else the one that runs, if it is in the cache; else the only one in the
/// cache. With --source, --config and --image it is one of your own, taken into the cache on the way as `kmend kernel
/// import` does.
///
/// Exit codes: 0 built, 3 the patches change no code of this kernel, 2 refused, 1 something failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Build {
    #[command(flatten)]
    patches: Patches,
    /// The release of a kernel in the cache
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<String>,
    /// The source tree of a kernel of your own
    #[arg(long, value_name = "DIR", conflicts_with = "kernel", requires_all = ["config", "image"])]
    source: Option<PathBuf>,
    /// Its configuration
    #[arg(long, value_name = "FILE", requires = "source")]
    config: Option<PathBuf>,
    /// Its image: a bzImage (vmlinuz) or an ELF vmlinux
    #[arg(long, value_name = "FILE", requires = "source")]
    image: Option<PathBuf>,
    /// Where modules for it are built, if not in its source tree
    #[arg(long, value_name = "DIR", requires = "source")]
    headers: Option<PathBuf>,
    /// The folder for the module and the report
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// The livepatch's name; that of the first patch's file if not given
    #[arg(long, value_name = "NAME", value_parser = arguments::module_name)]
    name: Option<String>,
    /// What the patches fix, such as CVE-2026-1234: the module says so in its file and while it is loaded
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = fix)]
    fixes: Vec<String>,
    /// Replace all livepatches that are loaded before it (the default): the kernel is then its source and these patches
    #[arg(long, overrides_with = "no_replace")]
    replace: bool,
    /// Add to the livepatches that are loaded before it
    #[arg(long)]
    no_replace: bool,
    #[command(flatten)]
    engine: ForEngine,
    /// Boot the kernel in a virtual machine and load, check and unload the module, as `kmend prove` does
    #[arg(long)]
    prove: bool,
    #[command(flatten)]
    checks: Checks,
    #[command(flatten)]
    explain: Explain,
    #[command(flatten)]
    sign: Sign,
}

/// Who switches the patch, and how.
#[derive(Debug, Args)]
struct ForEngine {
    /// Build for kmend's consistency engine (`kmend engine`) instead of the kernel's own livepatch
    #[arg(long)]
    engine: bool,
    /// The consistency model that the patch begins with [default: the engine's]
    #[arg(long, value_name = "MODEL", requires = "engine")]
    model: Option<String>,
    /// How callers are redirected to begin with [default: the engine's]
    #[arg(long, value_name = "HOW", requires = "engine")]
    redirect: Option<String>,
}

/// Who signs what is built.
#[derive(Debug, Args)]
struct Sign {
    /// Sign the module and its manifest with this private key (PEM), as `kmend sign` does
    #[arg(long = "sign", id = "sign", value_name = "KEY", requires = "cert")]
    key: Option<PathBuf>,
    /// The key's certificate, in PEM or DER
    #[arg(long, value_name = "CERT", requires = "sign")]
    cert: Option<PathBuf>,
    #[command(flatten)]
    how: Signing,
}

/// What is told beside the report.
#[derive(Debug, Args)]
struct Explain {
    /// Print what each hunk comes to, and for each function why it is in the livepatch: the first instruction that differs, disassembled before and
    /// after, with the source lines. With --json all instructions that differ
    #[arg(long)]
    explain: bool,
    /// Write all instructions that differ, side by side, and what the module holds, into one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  kmend build fix.patch
  kmend build fix.patch --kernel 6.1.0-56-cloud-amd64 -o out --prove
  kmend build fix.patch --explain --html fix.html
  kmend build fix.patch --fixes CVE-2026-1234
  kmend build fix.patch --sign signing.key --cert signing.crt
  kmend build fix.patch --engine --model stop-machine
  kmend build --reverse bad-change.patch
  kmend build 0001-first.patch 0002-second.patch --name both --no-replace
  kmend build patches/series --name all
  curl https://example.org/fix.mbox.gz | kmend build - --name fix
  kmend build fix.patch --prove --before 'grep -q Chunk /proc/meminfo' --after 'grep -q CHUNK /proc/meminfo'
  kmend build fix.patch --source ~/linux --config ~/linux/.config --image ~/linux/vmlinux";

/// A build as `--json` prints it: the report, and what belongs to this run alone.
#[derive(Serialize)]
struct Run<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<&'a Explanation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<ProofReport>,
}

impl Build {
    pub(crate) fn run(self, output: &mut Output) -> Result<End, Failure> {
        self.require_proof_for_checks()?;
        let patches = self.patches.read()?;
        let cache = Cache::open()?;
        let kernel = self.kernel(&cache)?;
        let signer = self.sign.signer()?;
        let request = Request {
            cache: &cache,
            kernel: &kernel,
            patches,
            name: self.name.clone(),
            replace: !self.no_replace,
            fixes: self.fixes.clone(),
            engine: self.engine.request(),
            output: self.output.clone(),
            explain: self.explain.explain || self.explain.html.is_some(),
            signer: signer.as_ref(),
        };
        self.explain.empty_page()?;
        let built = build(&request)?;
        let explanation = built.explanation.as_ref().filter(|_| self.explain.explain);
        self.explain.write_page(&built)?;
        if !output.is_json() {
            output.text(&report::text(&built))?;
            if self.explain.explain {
                output.text(&report::hunks(&built.report))?;
            }
            if let Some(explanation) = explanation {
                output.text(&explanation::text(explanation))?;
            }
            output::reasons(&built.report.refusals);
        }
        let proof = match &built.module {
            Some(module) if self.prove => Some(prove::prove(&cache, &kernel, module, &self.checks)?),
            _ => None,
        };
        match &proof {
            Some(proof) if !output.is_json() => output.text(&prove::text(proof))?,
            _ if output.is_json() => {
                let (report, path) =
                    (&built.report, built.module.as_ref().map(|path| path.display().to_string()));
                let run = Run { report, path, explanation, proof };
                output.value(&run)?;
            }
            _ => {}
        }
        Ok(End::of(built.report.refusals.iter().map(RefusalReport::code)))
    }

    fn require_proof_for_checks(&self) -> Result<(), Failure> {
        if self.prove || self.checks.is_default() {
            return Ok(());
        }
        let why = "--before, --after, --module and --timeout are for the proof, and --prove is not given";
        Err(Failure::new(Code::Usage, "", why))
    }

    fn kernel(&self, cache: &Cache) -> Result<Kernel, Failure> {
        let (Some(source), Some(config), Some(image)) = (&self.source, &self.config, &self.image) else {
            return kernel_choice::choose(cache, self.kernel.as_deref());
        };
        let own = OwnKernel {
            source: source.clone(),
            config: config.clone(),
            image: image.clone(),
            headers: self.headers.clone(),
            release: None,
        };
        own.import(cache)
    }
}

impl ForEngine {
    fn request(&self) -> Option<EngineRequest> {
        self.engine.then(|| EngineRequest { model: self.model.clone(), redirect: self.redirect.clone() })
    }
}

impl Sign {
    fn signer(&self) -> Result<Option<kmend_sign::Signer>, Failure> {
        let (Some(key), Some(cert)) = (&self.key, &self.cert) else { return Ok(None) };
        self.how.signer(key, cert).map(Some)
    }
}

impl Explain {
    /// Makes sure that the page can be written, and that none of an earlier build is taken for this one's.
    fn empty_page(&self) -> Result<(), Failure> {
        let Some(path) = &self.html else { return Ok(()) };
        std::fs::write(path, "").map_err(|error| Failure::io(path, &error))
    }

    fn write_page(&self, built: &Built) -> Result<(), Failure> {
        let Some(path) = &self.html else { return Ok(()) };
        let module = built.module.as_deref().map(kmend_inspect::inspect).transpose()?;
        let none = Explanation::default();
        let explanation = built.explanation.as_ref().unwrap_or(&none);
        let page = kmend_page::page(&built.report, explanation, module.as_ref());
        std::fs::write(path, page).map_err(|error| Failure::io(path, &error))
    }
}

/// Patches that are applied in this order, or undone.
pub(super) fn given_patches(
    files: &[PathBuf],
    reverse: bool,
) -> Result<Vec<kmend_compile::PatchFile>, Failure> {
    Patches::given_as(files, reverse).read()
}

/// Builds and shows how far it is.
fn build(request: &Request<'_>) -> Result<Built, Failure> {
    let progress = Mutex::new(Progress::new());
    let locked = || -> MutexGuard<'_, Progress> { progress.lock().unwrap_or_else(PoisonError::into_inner) };
    let built = kmend_build::build(request, &|event| match event {
        Event::Started(stage) => locked().begin(stage_name(stage)),
        Event::Detail(stage, text) => {
            // Threads of a stage that is over may still speak.
            let mut progress = locked();
            if progress.stage() == Some(stage_name(stage)) {
                progress.detail(&text);
            }
        }
        Event::Finished(_, time) => locked().end(Some(time)),
    })?;
    Ok(built)
}

/// For clap: an identifier that stands in a list with commas, in sysfs.
fn fix(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:#/".contains(c);
    if (1..=LONGEST_FIX).contains(&text.len()) && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("an identifier consists of up to 64 letters, digits and `-._:#/`".into())
    }
}

/// One word for a progress line.
fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Prepare => "prepare",
        Stage::Compile => "compile",
        Stage::Match => "match",
        Stage::Diff => "diff",
        Stage::Explain => "explain",
        Stage::Engine => "engine",
        Stage::Link => "link",
        Stage::Module => "module",
        Stage::Audit => "audit",
    }
}
