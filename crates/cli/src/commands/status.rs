//! `kmend status`

use super::audit::running;
use super::list;
use crate::failure::{End, Failure};
use crate::output::Output;
use crate::style::{BOLD, DIM, GREEN, YELLOW, paint};
use clap::Args;
use indicatif::HumanDuration;
use kmend_explain::visible;
use kmend_install::{Overview, Store};
use kmend_live::{
    Effective, EngineStatus, FunctionStatus, KernelStatus, LiveError, PatchStatus, Since, Status, Switching,
    System,
};
use kmend_refusal::Code;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Show how the running kernel and its livepatches stand
///
/// The kernel: release, build, what taints it, and what livepatches depend on. The livepatches: state, since when, what
/// each fixes, and every patched function with the livepatch whose code runs. Where two livepatches patch one function and
/// the kernel does not tell which is above (before Linux 6.14; its log may), that is said and not guessed.
///
/// What is installed: whether it is loaded at the next boot, and why not. NAME alone leaves out other livepatches.
///
/// --effective shows what is in force: the kernel's own version, which no livepatch changes, and the fixes on top of it. A
/// livepatch that is in transition, or of which another one overrides a function, does not count.
///
/// --memory also compares what each installed livepatch has in memory with its file, as `kmend audit --running` does, and needs root.
///
/// Needs no root otherwise, but sees more with it. Exit codes: 0 shown, 2 --memory found something wrong, 3 no livepatch of this
/// name is loaded, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowStatus {
    /// Show this livepatch alone
    #[arg(value_name = "NAME", value_parser = crate::arguments::loaded_name)]
    name: Option<String>,
    /// Show the kernel's version with the fixes that are in force
    #[arg(long, conflicts_with = "name")]
    effective: bool,
    /// Compare the livepatches' memory with their files
    #[arg(long, conflicts_with = "effective")]
    memory: bool,
    /// Print metrics in Prometheus's text format; or write them to this file, all at once, for node_exporter's textfile
    /// collector, which reads those that end in `.prom`; `-` is standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    #[arg(conflicts_with_all = ["name", "effective", "memory"])]
    prometheus: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  kmend status
  kmend status livepatch_fix
  kmend status --prometheus /var/lib/prometheus/node-exporter/kmend.prom
  kmend status --effective --json | jq -e '.fixes | index(\"CVE-2026-1234\")'";

/// The running system, and what is installed.
#[derive(Serialize)]
struct Standing {
    #[serde(flatten)]
    status: Status,
    #[serde(flatten)]
    overview: Overview,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<running::Document>,
}

impl ShowStatus {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        if let Some(file) = &self.prometheus {
            if output.is_json() {
                return Err(Failure::new(Code::Usage, "--prometheus", "metrics are no JSON"));
            }
            return metrics(&system, file, output);
        }
        let mut status = system.status()?;
        if self.effective {
            output.document(&status.effective(), effective)?;
            return Ok(End::Done);
        }
        let loaded: Vec<_> = status.livepatches.iter().map(|patch| patch.patch.clone()).collect();
        let mut overview = Store::of(&system).overview(&status.kernel.release, &loaded);
        if let Some(name) = &self.name {
            status.livepatches.retain(|patch| patch.patch.name == *name);
            overview.installed.retain(|place| place.module.name == *name);
            status.rests.retain(|rest| rest.name == *name);
            status.functions.retain(|function| function.livepatches.contains(name));
            if status.livepatches.is_empty() && status.rests.is_empty() && overview.installed.is_empty() {
                return Err(LiveError::NotLoaded(name.clone()).into());
            }
        }
        let wanted = |name: &str| self.name.as_ref().is_none_or(|wanted| wanted == name);
        let memory = self.memory.then(|| running::of_installed(&system, wanted)).transpose()?;
        let standing = Standing { status, overview, memory };
        output.document(&standing, |all| {
            let memory = all.memory.as_ref().map(|memory| format!("\n{}", running::text(memory)));
            text(&all.status) + &list::installed(&all.overview) + &memory.unwrap_or_default()
        })?;
        let Some(memory) = &standing.memory else { return Ok(End::Done) };
        if !output.is_json() {
            memory.show_reasons();
        }
        Ok(memory.end())
    }
}

fn metrics(system: &System, file: &Path, output: &mut Output) -> Result<End, Failure> {
    if file == Path::new("-") {
        output.text(&system.metrics()?)?;
    } else {
        system.write_metrics(file)?;
    }
    Ok(End::Done)
}

fn text(status: &Status) -> String {
    let mut text = kernel(&status.kernel, status.trusted_certificates);
    text.push_str(&status.engine.as_ref().map(engine).unwrap_or_default());
    if status.kernel.livepatch && status.livepatches.is_empty() && status.rests.is_empty() {
        text.push_str("\nno livepatch is loaded\n");
    }
    for patch in &status.livepatches {
        add_patch(&mut text, patch, &status.functions);
    }
    for rest in &status.rests {
        let why = match (rest.pinned, rest.references) {
            (true, _) => match &rest.pinned_by {
                Some(by) => format!("{} may still be in use", visible(by)),
                None => "something of it may still be in use".to_owned(),
            },
            (false, Some(0)) => "nothing holds it: `kmend unload` removes it".to_owned(),
            (false, Some(count)) => format!("{count} references hold it: was its transition forced?"),
            (false, None) => "it is going".to_owned(),
        };
        let _ = writeln!(text, "\n{} {}: {why}", paint(BOLD, &rest.name), paint(DIM, "disabled, in memory"));
    }
    text
}

fn kernel(kernel: &KernelStatus, trusted: Option<usize>) -> String {
    let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    let flag = |value: Option<bool>| match value {
        Some(true) => "on",
        Some(false) => "off",
        None => "unknown",
    };
    let rows = [
        ("version", known(&kernel.version)),
        ("build id", known(&kernel.build_id)),
        ("livepatches", if kernel.livepatch { "supported" } else { "not supported" }.into()),
        ("ftrace", flag(kernel.ftrace_enabled).into()),
        ("lockdown", known(&kernel.lockdown)),
        (
            "signatures",
            if needs_signatures(kernel) { "needed" } else { "not needed, as far as it tells" }.into(),
        ),
        ("trusts", trusts(trusted)),
    ];
    let mut text = format!("{} {}\n", paint(BOLD, "kernel"), kernel.release);
    for (name, value) in rows {
        let _ = writeln!(text, "  {name:<12} {value}");
    }
    let Some(taint) = &kernel.taint else { return text };
    let none = if taint.flags.is_empty() { " (nothing)" } else { "" };
    let _ = writeln!(text, "  {:<12} {}{none}", "taint", taint.value);
    for flag in &taint.flags {
        let _ = writeln!(text, "    {} bit {:<2} {}", flag.letter, flag.bit, flag.meaning);
    }
    text
}

/// That the consistency engine is there, and what it has.
fn engine(engine: &EngineStatus) -> String {
    let words = |names: &[String]| visible(&names.join(", "));
    let (models, redirects) = (words(&engine.models), words(&engine.redirects));
    format!("  {:<12} loaded: models {models}; redirects {redirects}\n", "engine")
}

/// Whose livepatches kmend loads here.
fn trusts(certificates: Option<usize>) -> String {
    match certificates {
        Some(0) => "livepatches of anybody".into(),
        Some(1) => "livepatches that a certificate in /etc/kmend/trusted signed".into(),
        Some(count) => format!("livepatches that one of {count} certificates in /etc/kmend/trusted signed"),
        None => "nobody: /etc/kmend/trusted cannot be read".into(),
    }
}

/// Lockdown demands them as well.
fn needs_signatures(kernel: &KernelStatus) -> bool {
    let locked = kernel.lockdown.as_ref().is_some_and(|mode| mode != "none");
    locked || kernel.signatures_enforced == Some(true)
}

fn add_patch(text: &mut String, status: &PatchStatus, functions: &[FunctionStatus]) {
    let name = &status.patch.name;
    let _ = write!(text, "\n{} {}", paint(BOLD, name), list::state(status.state));
    if let Some(order) = status.stack_order {
        let _ = write!(text, ", {order} in the stack");
    }
    if status.patch.replace == Some(true) {
        text.push_str(", replaces those before it");
    }
    if status.pinned {
        text.push_str(", stays in memory");
        if let Some(by) = &status.pinned_by {
            let _ = write!(text, " for {}", visible(by));
        }
    }
    if let Some(switching) = &status.patch.engine {
        text.push_str(&list::engine(switching));
    }
    text.push('\n');
    if let Some(switching) = status.patch.engine.as_ref().filter(|switching| switching.switch_ns > 0) {
        let _ = writeln!(text, "  {:<12} {}", "switched", times(switching));
    }
    if let Some(since) = status.since {
        let _ = writeln!(text, "  {:<12} {}", "since", ago(since));
    }
    if !status.fixes.is_empty() {
        let _ = writeln!(text, "  {:<12} {}", "fixes", paint(GREEN, visible(&status.fixes.join(", "))));
    }
    if let Some(subject) = &status.subject {
        let _ = writeln!(text, "  {:<12} {}", "subject", visible(subject));
    }
    for object in &status.patch.objects {
        let absent = if object.patched == Some(false) { " (not patched now)" } else { "" };
        let _ = writeln!(text, "  {}{absent}", object.name);
        for function in &object.functions {
            let owned = functions.iter().find(|owned| {
                (&owned.object, &owned.name, owned.position)
                    == (&object.name, &function.name, function.position)
            });
            let whose = match owned.map(|owned| &owned.owner) {
                Some(Some(owner)) if owner != name => format!(" {} {owner}", paint(YELLOW, "runs that of")),
                Some(None) => paint(YELLOW, " patched by others too, and which is above is not known"),
                _ => String::new(),
            };
            let position = if function.position > 1 {
                format!(" (position {})", function.position)
            } else {
                String::new()
            };
            let state =
                function.state.as_ref().map(|state| format!(" {}", visible(state))).unwrap_or_default();
            let _ = writeln!(text, "    {}{position}{state}{whose}", visible(&function.name));
        }
    }
}

/// How long the last transition took, and what it cost.
pub(super) fn times(switching: &Switching) -> String {
    let micros = |nanos: u64| nanos.div_ceil(1000);
    let (took, held) = (micros(switching.switch_ns), micros(switching.pause_ns));
    let reversed = if switching.error == 0 { "" } else { ", and was reversed" };
    format!("the last transition took {took} µs, held all CPUs for {held} µs{reversed}")
}

fn ago(since: Since) -> String {
    let words = |seconds: f64| HumanDuration(Duration::from_secs(seconds.max(0.0) as u64)).to_string();
    match since {
        Since::KernelLog { seconds_ago } => format!("{} ago (kernel log)", words(seconds_ago)),
        Since::Sysfs { at_least_seconds_ago } => {
            format!("at least {} ago (sysfs)", words(at_least_seconds_ago))
        }
    }
}

fn effective(effective: &Effective) -> String {
    let version = effective.version.as_deref().unwrap_or_default();
    let mut text = format!("{} {version}\n", paint(BOLD, &effective.release));
    for fix in &effective.fixes {
        let _ = writeln!(text, "{} {}", paint(GREEN, "fixed"), visible(fix));
    }
    for name in &effective.livepatches {
        let _ = writeln!(text, "{} {name}", paint(GREEN, "in force"));
    }
    for patch in &effective.not_in_force {
        let _ = writeln!(text, "{} {}: {}", paint(YELLOW, "not in force"), patch.name, patch.why);
    }
    text
}
