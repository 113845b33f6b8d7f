//! `kmend prove`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::style::{BOLD, GREEN, paint};
use clap::Args;
use kmend_inspect::Inspection;
use kmend_kernel::ModuleTree;
use kmend_refusal::{Code, Refusal};
use kmend_store::{Cache, Kernel};
use kmend_vm::{Accelerator, Presence, Proof, ProofReport, StepOutcome};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Boot the kernel a livepatch is for, and load, check and unload it there
///
/// Starts the very kernel that the module was built for in a virtual machine (QEMU, with hardware support where it
/// works), loads the module, unloads it, and does both again. An oops, a warning, a lockup or a hang of the guest fails
/// the proof, and the end of its console is shown. This machine's own kernel is not touched, and root is not needed.
///
/// While the livepatch is loaded its memory is compared with its file, as `kmend audit --running` does: what the kernel resolved, the
/// code, and the entry of each function that is replaced.
///
/// Modules that the livepatch patches are loaded before it, with all that they depend on; if the guest cannot start one
/// (its device is missing), after it, which shows that the livepatch takes the module. For a patch that was built with --engine
/// kmend's consistency engine is loaded first.
///
/// qemu-system-x86 and busybox-static must be installed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Prove {
    /// The livepatch module
    #[arg(value_name = "FIX.ko")]
    module: PathBuf,
    /// The kernel to boot, by its release; the one that the module was built for if not given
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<String>,
    #[command(flatten)]
    checks: Checks,
}

const EXAMPLES: &str = "\
Examples:
  kmend prove livepatch-fix.ko
  kmend prove livepatch-fix.ko --before 'grep VmallocChunk /proc/meminfo' --after 'grep VMALLOCChunk /proc/meminfo'
  kmend prove livepatch-fix.ko --module zram --timeout 300";

/// What is checked in the guest.
#[derive(Debug, Args)]
pub(crate) struct Checks {
    /// A shell command that must succeed in the guest while the livepatch is not loaded: before it is, and after it was
    #[arg(long, value_name = "CMD")]
    before: Option<String>,
    /// A shell command that must succeed in the guest while the livepatch is loaded
    #[arg(long, value_name = "CMD")]
    after: Option<String>,
    /// A further module to load first, with all that it depends on
    #[arg(long = "module", value_name = "NAME", value_parser = crate::arguments::module_name)]
    modules: Vec<String>,
    /// From the start of the guest to its end, in seconds [default: 90]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
}

impl Checks {
    /// Whether nothing is asked for.
    pub(crate) fn is_default(&self) -> bool {
        self.before.is_none() && self.after.is_none() && self.modules.is_empty() && self.timeout.is_none()
    }
}

impl Prove {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let cache = Cache::open()?;
        let release = match &self.kernel {
            Some(release) => release.clone(),
            None => kmend_inspect::inspect(&self.module)?.kernel,
        };
        let kernel = cache.kernel(&release)?;
        let report = prove(&cache, &kernel, &self.module, &self.checks)?;
        output.document(&report, text)?;
        Ok(End::Done)
    }
}

/// Proves a livepatch on a kernel.
pub(crate) fn prove(
    cache: &Cache,
    kernel: &Kernel,
    livepatch: &Path,
    checks: &Checks,
) -> Result<ProofReport, Failure> {
    let inspection = kmend_inspect::inspect(livepatch)?;
    if inspection.kernel != kernel.release {
        let why = format!("it is for {}, not for {}", inspection.kernel, kernel.release);
        return Err(Failure::new(Code::WrongKernel, livepatch.display().to_string(), why));
    }
    let mut proof = Proof::new(&kernel.image, livepatch);
    // Those that are asked for come first: a module may want them through request_module(), of which no dependency
    // tells.
    let wanted: Vec<String> = checks.modules.iter().chain(&inspection.modules()).cloned().collect();
    if !wanted.is_empty() {
        proof.modules = ModuleTree::open(&kernel.modules)?.load_order_of(&wanted)?;
    }
    if inspection.engine.is_some() {
        proof.engine = Some(engine(cache, kernel, livepatch, &inspection)?);
    }
    proof.auditor = Some(std::env::current_exe().map_err(|error| Failure::io(Path::new("kmend"), &error))?);
    proof.before.clone_from(&checks.before);
    proof.after.clone_from(&checks.after);
    proof.unloaded.clone_from(&checks.before);
    if let Some(seconds) = checks.timeout {
        proof.timeout = Duration::from_secs(seconds);
    }
    let mut progress = Progress::new();
    progress.begin("prove");
    proof.accelerator = Accelerator::choose(&kernel.image, Some(cache.root()));
    progress.detail(&format!("{} in a virtual machine", kernel.release));
    let report = kmend_vm::prove(&proof)?;
    let is_command = |step: &&StepOutcome| ["before", "loaded", "unloaded"].contains(&step.name.as_str());
    let failed = report.transcript.steps.iter().filter(is_command).filter(|step| step.status != 0);
    let refusals: Vec<Refusal> = failed.map(|step| refusal(step, checks)).collect();
    if refusals.is_empty() {
        progress.end(Some(report.transcript.total));
        Ok(report)
    } else {
        Err(Failure::refused(refusals))
    }
}

/// The consistency engine that the guest needs, if it is the one that the livepatch is for.
fn engine(
    cache: &Cache,
    kernel: &Kernel,
    livepatch: &Path,
    inspection: &Inspection,
) -> Result<PathBuf, Failure> {
    let ours = kmend_engine::interface_id();
    let named = inspection.engine.as_ref().and_then(|engine| engine.interface.as_ref());
    if let Some(other) = named.filter(|other| **other != ours) {
        let why = format!("it is for the engine interface {other}, and this kmend has {ours}");
        return Err(Failure::new(Code::EngineDiffers, livepatch.display().to_string(), why));
    }
    Ok(kmend_engine::keep(cache, kernel).map_err(super::engine::failure)?.module)
}

/// A command in the guest that did not succeed.
fn refusal(step: &StepOutcome, checks: &Checks) -> Refusal {
    let command = if step.name == "loaded" { &checks.after } else { &checks.before };
    let subject = command.clone().unwrap_or_else(|| step.name.clone());
    let why = format!("`{subject}` ended with status {} {}", step.status, moment(&step.name));
    Refusal::new(Code::ProofFailed, subject, why)
        .with_details(step.text().lines().map(str::to_owned).collect())
}

/// When a step is done, in words.
fn moment(step: &str) -> &str {
    match step {
        "before" => "before the livepatch was loaded",
        "loaded" => "while the livepatch was loaded",
        "unloaded" => "after the livepatch was unloaded",
        other => other,
    }
}

/// What the commands printed, and that all went well.
pub(crate) fn text(report: &ProofReport) -> String {
    let mut text = String::new();
    for name in ["before", "loaded", "unloaded"] {
        // The second load printed what the first did, or the command would have told.
        if let Some(step) = report.steps_named(name).next() {
            let _ = writeln!(text, "{}", paint(BOLD, moment(name)));
            text.extend(step.text().lines().map(|line| format!("  {line}\n")));
        }
    }
    let _ = match &report.modules {
        Presence::First => Ok(()),
        Presence::Late { why } => {
            writeln!(text, "modules were loaded after the livepatch, as far as the guest can ({why})")
        }
        Presence::Never { why } => writeln!(
            text,
            "modules were not loaded: the kernel complains in the guest without the livepatch ({why})"
        ),
    };
    let transcript = &report.transcript;
    let rounds = if report.rounds == 1 {
        "loaded and disabled (its code stays in memory)"
    } else {
        "loaded and unloaded twice"
    };
    let _ = writeln!(
        text,
        "{} {} on {}: booted in {:.1} s, {rounds}, its memory as its file says, no complaint of the kernel, {:.1} s in all",
        paint(GREEN, "proved"),
        report.module,
        transcript.release,
        transcript.boot.as_secs_f64(),
        transcript.total.as_secs_f64()
    );
    text
}
