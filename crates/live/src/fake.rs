//! A tree that looks like /sys and /proc, and a kernel that changes it, for the tests of this crate and of those above.

use crate::modules::ModuleCalls;
use crate::system::System;
use crate::transition::{Decision, Waiting};
use kmend_inspect::ENGINE;
use kmend_kernel::Module;
use kmend_object::{Object, Section};
use rustix::io::Errno;
use std::cell::RefCell;
use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tempfile::TempDir;

/// The release of the fake kernel.
pub const RELEASE: &str = "6.1.0-test";

/// A fake system.
pub struct Fake {
    root: TempDir,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    calls: Vec<String>,
    refusal: Option<Errno>,
    stalls: bool,
}

impl Fake {
    /// A kernel with livepatch support and without livepatches.
    pub fn new() -> Fake {
        let fake = Fake { root: tempfile::tempdir().unwrap(), state: Rc::default() };
        fake.folder("sys/kernel/livepatch");
        fake.folder("proc");
        fake.write("proc/sys/kernel/osrelease", &format!("{RELEASE}\n"));
        fake.write("proc/sys/kernel/random/boot_id", "5a6e6f2c-2b39-4a5e-8f0e-7f1b1d2f6f3a\n");
        fake
    }

    /// The system to look at.
    pub fn system(&self) -> System {
        let calls = FakeKernel { root: self.root.path().to_owned(), state: self.state.clone() };
        System::with_calls(self.root.path(), Box::new(calls))
    }

    /// A path below its root.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// Makes a folder.
    pub fn folder(&self, below: &str) {
        fs::create_dir_all(self.path(below)).unwrap();
    }

    /// Writes a file.
    pub fn write(&self, below: &str, text: &str) {
        write(&self.path(below), text);
    }

    /// Reads a file.
    pub fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap()
    }

    /// A file outside of the fake kernel's folders.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A livepatch, as sysfs shows it.
    pub fn patch(&self, name: &str, enabled: bool, transition: bool) {
        write_patch(self.root.path(), name, enabled, transition);
    }

    /// The consistency engine, as sysfs shows it.
    pub fn engine(&self) {
        write_engine(self.root.path(), "0123");
    }

    /// A patch of the engine.
    pub fn engine_patch(&self, name: &str, enabled: bool, transition: bool) {
        self.engine();
        write_engine_patch(self.root.path(), name, enabled, transition);
    }

    /// A module, as sysfs shows it.
    pub fn module(&self, name: &str, references: u32) {
        self.write(&format!("sys/module/{name}/refcnt"), &format!("{references}\n"));
    }

    /// A task of procfs.
    pub fn task(&self, pid: u32, tid: u32, comm: &str, flags: u64, patch_state: &str, stack: &str) {
        let task = format!("proc/{pid}/task/{tid}");
        self.write(&format!("{task}/comm"), &format!("{comm}\n"));
        self.write(&format!("{task}/stat"), &format!("{tid} ({comm}) S 2 0 0 0 -1 {flags} 0 0\n"));
        self.write(&format!("{task}/patch_state"), patch_state);
        self.write(&format!("{task}/stack"), stack);
    }

    /// From now on transitions do not end.
    pub fn stall(&self) {
        self.state.borrow_mut().stalls = true;
    }

    /// The next transition back of this livepatch ends, as soon as `enabled` is written.
    pub fn reverses(&self, name: &str) {
        let folder = self.path("sys/kernel/livepatch").join(name);
        std::thread::spawn(move || {
            for _ in 0..500 {
                std::thread::sleep(std::time::Duration::from_millis(10));
                if fs::read_to_string(folder.join("enabled")).is_ok_and(|text| text.starts_with('0')) {
                    let module =
                        folder.join("../../../module").join(folder.file_name().unwrap()).join("refcnt");
                    fs::write(module, "0\n").unwrap();
                    return fs::remove_dir_all(&folder).unwrap();
                }
            }
        });
    }

    /// From now on modules are refused.
    pub fn refuse(&self, errno: Errno) {
        self.state.borrow_mut().refusal = Some(errno);
    }

    /// The system calls so far.
    pub fn calls(&self) -> Vec<String> {
        self.state.borrow().calls.clone()
    }
}

struct FakeKernel {
    root: PathBuf,
    state: Rc<RefCell<State>>,
}

impl ModuleCalls for FakeKernel {
    fn insert(&self, module: &[u8], parameters: &str) -> Result<(), Errno> {
        let module = Module::parse(module).unwrap();
        let mut state = self.state.borrow_mut();
        state.calls.push(format!("insert {} {parameters}", module.name()).trim_end().to_owned());
        if let Some(errno) = state.refusal {
            return Err(errno);
        }
        write(&self.root.join("sys/module").join(module.name()).join("refcnt"), "1\n");
        if module.name() == ENGINE {
            let interface = module.modinfo("version").next().unwrap_or_default();
            write_engine(&self.root, interface);
        } else if module.depends().any(|name| name == ENGINE) {
            write_engine_patch(&self.root, module.name(), false, false);
        } else {
            write_patch(&self.root, module.name(), true, state.stalls);
        }
        Ok(())
    }

    fn remove(&self, name: &CStr) -> Result<(), Errno> {
        let name = name.to_str().unwrap();
        self.state.borrow_mut().calls.push(format!("remove {name}"));
        let _ = fs::remove_dir_all(self.root.join("sys/kernel/kmend").join(name));
        fs::remove_dir_all(self.root.join("sys/module").join(name)).map_err(|_| Errno::NOENT)
    }

    fn stop(&self, pid: u32) -> Result<(), Errno> {
        self.state.borrow_mut().calls.push(format!("stop {pid}"));
        Ok(())
    }

    fn resume(&self, pid: u32) -> Result<(), Errno> {
        self.state.borrow_mut().calls.push(format!("continue {pid}"));
        Ok(())
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn write_patch(root: &Path, name: &str, enabled: bool, transition: bool) {
    let folder = root.join("sys/kernel/livepatch").join(name);
    write(&folder.join("enabled"), &format!("{}\n", u8::from(enabled)));
    write(&folder.join("transition"), &format!("{}\n", u8::from(transition)));
}

fn write_engine(root: &Path, interface: &str) {
    for (file, text) in [
        ("module/kmend_engine/refcnt", "1"),
        ("module/kmend_engine/version", interface),
        ("kernel/kmend/models", "hybrid\nimmediate"),
        ("kernel/kmend/redirects", "ftrace"),
    ] {
        write(&root.join("sys").join(file), &format!("{text}\n"));
    }
}

fn write_engine_patch(root: &Path, name: &str, enabled: bool, transition: bool) {
    let folder = root.join("sys/kernel/kmend").join(name);
    for (file, text) in [
        ("enabled", if enabled { "1" } else { "0" }),
        ("transition", if transition { "1" } else { "0" }),
        ("model", "hybrid"),
        ("redirect", "ftrace"),
        ("timeout_ms", "0"),
        ("functions", "vmlinux do_it living"),
        ("switch_ns", "1500"),
    ] {
        write(&folder.join(file), &format!("{text}\n"));
    }
}

/// Whoever waits for a transition as long as it takes.
pub fn patient(_: &Waiting<'_>) -> Decision {
    Decision::Wait
}

/// The bytes of a module.
pub fn module(name: &str, release: &str, livepatch: bool) -> Vec<u8> {
    module_with(name, release, livepatch, "")
}

/// The same, with more in its `.modinfo`.
pub fn module_with(name: &str, release: &str, livepatch: bool, more: &str) -> Vec<u8> {
    let mut modinfo = format!("name={name}\0vermagic={release} SMP mod_unload \0{more}");
    if livepatch {
        modinfo.push_str("livepatch=Y\0");
    }
    let mut object = Object::new();
    object.add_section(Section::allocated(".modinfo", 0, 1, modinfo.into_bytes()));
    object.write().unwrap()
}
