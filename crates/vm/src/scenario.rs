//! A guest with things in it, and what happens there.

use crate::console::Fault;
use crate::disk::Disk;
use crate::error::VmError;
use crate::initramfs::{Device, Initramfs};
use crate::machine::{Machine, find_program};
use crate::program::{Program, read_program};
use crate::protocol::{Protocol, StepOutcome};
use crate::script::{AUDITOR, GuestStep, init_script, system_script};
use kmend_kernel::{KernelError, Module, Packing};
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Taint flags that mean a complaint (Linux, Documentation/admin-guide/tainted-kernels.rst): bad page, died,
/// warned, soft lockup.
const COMPLAINTS: [(u32, &str); 4] = [(5, "bad page"), (7, "oops"), (9, "warning"), (14, "soft lockup")];

/// One thing that happens in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Runs a command by `sh` with `/` as its folder. Its status and its output are for the caller to judge.
    Run {
        /// How the transcript calls it.
        name: String,
        /// The shell's text.
        command: String,
    },
    /// Hands over a file of the guest, packed on the way: for outputs of megabytes such as /proc/kallsyms.
    Fetch {
        /// How the transcript calls it.
        name: String,
        /// The path in the guest.
        path: String,
    },
    /// Loads a module of this machine, packed or not. Must succeed.
    LoadModule(PathBuf),
    /// Loads a module of this machine, packed or not, if that can be done. Its status is for the caller to judge.
    TryModule(PathBuf),
    /// Loads kmend's consistency engine. Must succeed.
    LoadEngine(PathBuf),
    /// Unloads a module by its name. Must succeed.
    UnloadModule(String),
    /// Loads a livepatch and waits for its transition. Must succeed.
    Load(PathBuf),
    /// Compares a loaded livepatch's memory with its module's file, with [`Scenario::auditor`]. Must succeed.
    Audit(PathBuf),
    /// Disables a livepatch by its module's name, waits for its transition, and unloads it. Must succeed.
    Unload(String),
}

impl Step {
    /// How the transcript calls it.
    pub fn name(&self) -> String {
        match self {
            Step::Run { name, .. } | Step::Fetch { name, .. } => name.clone(),
            Step::LoadModule(path) => format!("load the module {}", file_name(path)),
            Step::TryModule(path) => format!("try to load the module {}", file_name(path)),
            Step::LoadEngine(path) => format!("load the consistency engine {}", file_name(path)),
            Step::UnloadModule(name) => format!("unload the module {name}"),
            Step::Load(path) => format!("load the livepatch {}", file_name(path)),
            Step::Audit(path) => format!("compare the memory of {}", file_name(path)),
            Step::Unload(name) => format!("unload the livepatch {name}"),
        }
    }
}

/// A file of this machine that the guest shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFile {
    /// The path here.
    pub host: PathBuf,
    /// The path in the guest.
    pub guest: String,
    /// Whether it is a program, which comes with its shared libraries.
    pub program: bool,
}

/// Whether the guest's kernel may warn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Warnings {
    /// A WARN ends the scenario.
    #[default]
    Fail,
    /// WARNs are listed in the transcript.
    Allow,
}

/// A kernel, what its guest holds, and what happens there.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The machine with the kernel.
    pub machine: Machine,
    /// A static busybox, looked up in `PATH` if it holds no slash.
    pub busybox: PathBuf,
    /// The `kmend` that loads and unloads livepatches in the guest; without one the guest's script does.
    pub kmend: Option<PathBuf>,
    /// The `kmend` that compares memory in the guest.
    pub auditor: Option<PathBuf>,
    /// The system that runs the steps; without one busybox does, and nothing else runs.
    pub disk: Option<Disk>,
    /// Further files.
    pub files: Vec<GuestFile>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// Whether the kernel may warn.
    pub warnings: Warnings,
}

/// What was said and seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transcript {
    /// The guest's `uname -r`.
    pub release: String,
    /// From the start of QEMU to the first step.
    pub boot: Duration,
    /// From the start of QEMU to its end.
    pub total: Duration,
    /// How each step ended, in order.
    pub steps: Vec<StepOutcome>,
    /// What the kernel complained of that did not end the guest: warnings, and what it died of if it had to be booted twice.
    pub warnings: Vec<Fault>,
    /// The last lines of the console.
    pub console: Vec<String>,
}

impl Scenario {
    /// A scenario without files and steps, for an image.
    pub fn new(image: &Path) -> Self {
        Self {
            machine: Machine::new(image),
            busybox: "busybox".into(),
            kmend: None,
            auditor: None,
            disk: None,
            files: Vec::new(),
            steps: Vec::new(),
            warnings: Warnings::default(),
        }
    }

    /// Boots and runs all the steps.
    ///
    /// QEMU lives no longer than the calling thread.
    pub fn run(&self) -> Result<Transcript, VmError> {
        let nonce = nonce();
        let initramfs = self.initramfs(&nonce)?;
        let names = self.steps.iter().map(Step::name).collect();
        let protocol = Protocol::new(&nonce, names);
        let disk = self.disk.as_ref().map(|disk| disk.image.as_path());
        let run = self.machine.run(&initramfs, disk, &protocol, self.warnings == Warnings::Fail)?;
        if self.warnings == Warnings::Fail
            && let Some(why) = new_complaints(run.said.taint)
        {
            return Err(VmError::Protocol { why, step: None, tail: run.console.tail() });
        }
        Ok(Transcript {
            release: run.said.release,
            boot: run.said.boot,
            total: run.time,
            steps: run.said.steps,
            warnings: run.faults,
            console: run.console.into_lines(),
        })
    }

    /// The guest's root file system.
    fn initramfs(&self, nonce: &str) -> Result<Vec<u8>, VmError> {
        let mut initramfs = Initramfs::new();
        add_busybox(&mut initramfs, &self.busybox)?;
        initramfs.add_device("/dev/console", 0o600, Device { major: 5, minor: 1 })?;
        if let Some(kmend) = &self.kmend {
            initramfs.add_program("/bin/kmend", kmend)?;
        }
        if let Some(auditor) = &self.auditor {
            initramfs.add_program(AUDITOR, auditor)?;
        }
        for file in &self.files {
            if file.program {
                initramfs.add_program(&file.guest, &file.host)?;
            } else {
                let contents = fs::read(&file.host).map_err(VmError::io(&file.host))?;
                initramfs.add_file(&file.guest, 0o644, &contents)?;
            }
        }
        let mut steps = Vec::new();
        let mut modules = BTreeMap::new();
        for (number, step) in self.steps.iter().enumerate() {
            steps.push(guest_step(&mut initramfs, &mut modules, number, step)?);
        }
        // The guest reports a stalled transition before the machine's time is over.
        let patience = (self.machine.timeout.as_secs() * 2 / 3).max(1);
        if let Some(disk) = &self.disk {
            disk.add_to(&mut initramfs, &system_script(nonce, &steps))?;
        } else {
            let script = init_script(nonce, &steps, self.kmend.is_some(), patience);
            initramfs.add_file("/init", 0o755, script.as_bytes())?;
        }
        Ok(initramfs.finish())
    }
}

/// Puts what a step needs into the guest. `modules` has the name of the module that a file holds.
fn guest_step(
    initramfs: &mut Initramfs,
    modules: &mut BTreeMap<PathBuf, String>,
    number: usize,
    step: &Step,
) -> Result<GuestStep, VmError> {
    Ok(match step {
        Step::Run { command, .. } => {
            let script = format!("/kmend/steps/{number}");
            initramfs.add_file(&script, 0o644, command.as_bytes())?;
            GuestStep::Run { script }
        }
        Step::Fetch { path, .. } => GuestStep::Fetch { path: path.clone() },
        Step::LoadModule(host) | Step::LoadEngine(host) => {
            let module = add_module(initramfs, modules, host)?;
            GuestStep::Insert { path: module_path(&module), must_succeed: true }
        }
        Step::TryModule(host) => {
            let module = add_module(initramfs, modules, host)?;
            GuestStep::Insert { path: module_path(&module), must_succeed: false }
        }
        Step::UnloadModule(module) => GuestStep::Remove { module: module.clone() },
        Step::Load(host) => {
            let module = add_module(initramfs, modules, host)?;
            GuestStep::Load { path: module_path(&module), module }
        }
        Step::Audit(host) => {
            let module = add_module(initramfs, modules, host)?;
            GuestStep::Audit { path: module_path(&module) }
        }
        Step::Unload(module) => GuestStep::Unload { module: module.clone() },
    })
}

fn module_path(module: &str) -> String {
    format!("/kmend/modules/{module}.ko")
}

/// Puts a module into the guest, unpacked, unless it is there, and says its name.
fn add_module(
    initramfs: &mut Initramfs,
    modules: &mut BTreeMap<PathBuf, String>,
    host: &Path,
) -> Result<String, VmError> {
    if let Some(name) = modules.get(host) {
        return Ok(name.clone());
    }
    let bytes = fs::read(host).map_err(VmError::io(host))?;
    let damaged = |source| KernelError::File { path: host.to_owned(), source: Box::new(source) };
    let plain = match Packing::detect(&bytes) {
        Some(packing) => packing.unpack(&bytes).map_err(|why| damaged(KernelError::Module(why)))?,
        None => bytes,
    };
    let name = Module::parse(&plain).map_err(damaged)?.name().to_owned();
    if name.contains(|c: char| c.is_control() || c == '/') {
        return Err(VmError::Scenario(format!("{} has an impossible module name", host.display())));
    }
    initramfs.add_file(&module_path(&name), 0o644, &plain)?;
    modules.insert(host.to_owned(), name.clone());
    Ok(name)
}

/// Finds a busybox, by its path or by its name in `PATH`, that needs no shared library.
///
/// # Errors
/// It is not there, or is a dynamic one; the error names the package.
pub fn static_busybox(busybox: &Path) -> Result<PathBuf, VmError> {
    read_busybox(busybox).map(|(host, _)| host)
}

fn add_busybox(initramfs: &mut Initramfs, busybox: &Path) -> Result<(), VmError> {
    let (_, program) = read_busybox(busybox)?;
    initramfs.add_file("/bin/busybox", 0o755, &program.contents)?;
    initramfs.add_symlink("/bin/sh", "busybox")
}

fn read_busybox(busybox: &Path) -> Result<(PathBuf, Program), VmError> {
    let missing = |why: &str| VmError::ToolMissing {
        program: busybox.display().to_string(),
        why: why.into(),
        package: "busybox-static",
    };
    let host = find_program(busybox).ok_or_else(|| missing("is not in PATH"))?;
    let program = read_program(&host)?;
    if program.interpreter.is_some() {
        return Err(missing("is not a static program"));
    }
    Ok((host, program))
}

/// The complaints that the taint flags show at the end and did not at the start.
fn new_complaints((before, after): (u64, u64)) -> Option<String> {
    let new = after & !before;
    let words: Vec<&str> =
        COMPLAINTS.iter().filter(|(bit, _)| new >> bit & 1 == 1).map(|&(_, word)| word).collect();
    (!words.is_empty()).then(|| format!("the guest's kernel is tainted: {}", words.join(", ")))
}

/// Sixteen letters and digits that no command in the guest can guess.
fn nonce() -> String {
    // The standard library seeds this hasher from the system's source of randomness.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_complaints_only_if_they_are_new_and_bad() {
        assert_eq!(new_complaints((0, 0)), None);
        assert_eq!(new_complaints((0, 32768 | 4096 | 8192)), None, "livepatch, out of tree, unsigned");
        assert_eq!(new_complaints((512, 512)), None, "it warned while it booted");
        assert_eq!(new_complaints((0, 512 | 128)).unwrap(), "the guest's kernel is tainted: oops, warning");
    }

    #[test]
    fn a_nonce_is_new_each_time() {
        let (one, two) = (nonce(), nonce());
        assert_ne!(one, two);
        assert!(one.len() == 16 && one.chars().all(|c| c.is_ascii_hexdigit()), "{one}");
    }

    #[test]
    fn steps_have_names_for_people() {
        assert_eq!(Step::Load("/a/b/livepatch-x.ko".into()).name(), "load the livepatch livepatch-x.ko");
        assert_eq!(Step::UnloadModule("zram".into()).name(), "unload the module zram");
    }

    #[test]
    fn a_missing_busybox_is_told_with_its_package() {
        let scenario = Scenario { busybox: "kmend-no-such-busybox".into(), ..Scenario::new(Path::new("x")) };
        let error = scenario.run().unwrap_err();
        assert!(error.to_string().contains("package busybox-static"), "{error}");
    }

    #[test]
    fn a_module_must_be_one() {
        let here = std::env::current_exe().unwrap();
        let mut initramfs = Initramfs::new();
        let error = guest_step(&mut initramfs, &mut BTreeMap::new(), 0, &Step::LoadModule(here)).unwrap_err();
        assert!(matches!(error, VmError::Kernel(_)), "{error}");
    }
}
