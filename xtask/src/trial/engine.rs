//! The consistency engine in a guest: every model switches, takes back, and holds or breaks as it should.

mod bpf;
mod checks;
mod jumps;
mod litmus;
mod selftests;

use super::Bench;
use crate::built;
use anyhow::{Context, Result, bail};
use bpf::BPF;
pub(crate) use checks::PRELUDE;
use checks::{CHECKS, Check};
use jumps::JUMPS;
use kmend_engine::Workshop;
use kmend_store::Kernel;
use kmend_vm::{GuestFile, Machine, Scenario, Step};
use selftests::SELFTESTS;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The target, which is none of the engine's, and the test patches (engine/test).
const MODULES: [&str; 30] = [
    "kmend_target",
    "kmend_leaf2",
    "kmend_leaf3",
    "kmend_pair2",
    "kmend_carry2",
    "kmend_sleep2",
    "kmend_nap2",
    "kmend_thread2",
    "kmend_level2",
    "kmend_format2",
    "kmend_order2",
    "kmend_vmlinux2",
    "kmend_replace4",
    "kmend_mainline",
    "kmend_shapes",
    "kmend_plain2",
    "kmend_recur2",
    "kmend_tail2",
    "kmend_cold2",
    "kmend_loop2",
    "kmend_key2",
    "kmend_stay2",
    "kmend_crowd",
    "kmend_bpf3",
    "kmend_calls2",
    "kmend_calls3",
    "kmend_getpid2",
    "kmend_probe",
    "kmend_state2",
    "kmend_state3",
];

/// Programs that the guest has beside the modules.
const PROGRAMS: [&str; 2] = ["tests/engine/tracer.c", "tests/engine/getpid.c"];

/// Most of the time the guest waits for transitions.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Every model, and all that the engine promises.
pub(crate) fn run(bench: &Bench, kernel: &Kernel) -> Result<()> {
    see(bench, kernel, &CHECKS.iter().chain(JUMPS).collect::<Vec<_>>())
}

/// BPF programs at functions that jump.
pub(crate) fn bpf(bench: &Bench, kernel: &Kernel) -> Result<()> {
    see(bench, kernel, &BPF.iter().collect::<Vec<_>>())
}

/// What the kernel's own selftests for livepatch ask of it, asked of the engine.
pub(crate) fn selftests(bench: &Bench, kernel: &Kernel) -> Result<()> {
    see(bench, kernel, &SELFTESTS.iter().collect::<Vec<_>>())
}

/// What tells the models apart; it takes minutes.
pub(crate) fn litmus(bench: &Bench, kernel: &Kernel) -> Result<()> {
    see(bench, kernel, &litmus::checks().iter().collect::<Vec<_>>())
}

/// Builds the modules, boots the kernel with them and does the steps.
fn see(bench: &Bench, kernel: &Kernel, checks: &[&Check]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut files = modules(kernel, folder.path())?;
    for source in PROGRAMS {
        files.push(program(kernel, source, folder.path())?);
    }
    let mut scenario = Scenario::new(&kernel.image);
    scenario.machine =
        Machine { accelerator: bench.accelerator, timeout: TIMEOUT, ..Machine::new(&kernel.image) };
    scenario.files = files;
    let step = |check: &Check| Step::Run {
        name: check.name.to_string(),
        command: format!("{PRELUDE}\n{}\n", check.commands),
    };
    scenario.steps = checks.iter().copied().map(step).collect();
    let transcript = scenario.run()?;
    let mut complaints = Vec::new();
    for (step, check) in transcript.steps.iter().zip(checks) {
        let words = |text: &str| text.lines().map(words_of).collect::<Vec<_>>().join("\n");
        let (shown, wanted) = (words(&step.text()), words(&check.prints));
        if shown != wanted {
            complaints.push(format!("{}: it printed\n{shown}\ninstead of\n{wanted}", check.name));
        }
    }
    if complaints.is_empty() {
        return Ok(());
    }
    let console = transcript.console;
    let tail = console[console.len().saturating_sub(30)..].join("\n");
    bail!("{}\nthe console's end:\n{tail}", complaints.join("\n"))
}

/// The words of a line with one space between, so that columns may change their widths.
fn words_of(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The engine and the test modules, as files of the guest.
pub(crate) fn modules(kernel: &Kernel, folder: &Path) -> Result<Vec<GuestFile>> {
    let workshop = Workshop::open(kernel)?;
    let engine = workshop.engine(&folder.join("engine"))?;
    let sources = sources()?;
    let files: Vec<_> = sources.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let users = workshop.users(&MODULES, &files, &engine.symvers, &folder.join("test"))?;
    let names = [kmend_engine::ENGINE].into_iter().chain(MODULES);
    let modules = engine.modules.iter().chain(&users.modules);
    names.zip(modules).map(|(name, bytes)| guest_file(folder, name, bytes)).collect()
}

/// A program, built and named as its source is.
fn program(kernel: &Kernel, source: &str, folder: &Path) -> Result<GuestFile> {
    let host = built::program(&kernel.compiler, source, folder)?;
    let name = host.file_name().unwrap_or_default().to_string_lossy();
    Ok(GuestFile { guest: format!("/m/{name}"), program: true, host })
}

fn guest_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<GuestFile> {
    let host = folder.join(format!("{name}.ko"));
    fs::write(&host, bytes)?;
    Ok(GuestFile { host, guest: format!("/m/{name}.ko"), program: false })
}

/// The files of engine/test.
fn sources() -> Result<Vec<(String, String)>> {
    let folder = crate::root().join("engine/test");
    let mut sources = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        sources.push((entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?));
    }
    Ok(sources)
}
