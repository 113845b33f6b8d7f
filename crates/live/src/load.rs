//! Loading a livepatch and waiting for its transition.

use crate::error::LiveError;
use crate::kernel_log::KernelLog;
use crate::system::{System, check_name, read_if_there};
use kmend_kernel::{Module, Packing};
use rustix::io::Errno;
use serde::Serialize;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bit of `CAP_SYS_MODULE` in /proc/self/status (Linux, include/uapi/linux/capability.h).
const CAP_SYS_MODULE: u32 = 16;
/// The largest module that is read, in bytes.
const LARGEST_MODULE: u64 = 256 << 20;

/// How to load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// How long to wait for the transition.
    pub timeout: Duration,
}

impl Default for LoadOptions {
    /// The kernel signals the tasks that hold a transition after 15 s: twice that.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30) }
    }
}

/// A livepatch that every task runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// The name of its module.
    pub name: String,
    /// From the system call to the end of the transition.
    pub time: Duration,
}

impl System {
    /// Loads a livepatch from a module's file and waits until every task runs it.
    ///
    /// If the time runs out first, the error names the tasks, the livepatch stays loaded, and the transition
    /// goes on.
    pub fn load(&self, path: &Path, options: LoadOptions) -> Result<Loaded, LiveError> {
        let mut file = File::open(path).map_err(|source| LiveError::Io { path: path.to_owned(), source })?;
        let name = self.check_module(path, &mut file)?;
        self.make_room(&name)?;
        let start = Instant::now();
        let log = KernelLog::from_now(&self.path("dev/kmsg"));
        if let Err(errno) = self.calls.insert(&file) {
            return Err(self.refused(name, errno, &log));
        }
        self.await_transition(&name, options.timeout)?;
        Ok(Loaded { name, time: start.elapsed() })
    }

    /// Waits until a livepatch is in no transition.
    pub(crate) fn await_transition(&self, name: &str, timeout: Duration) -> Result<(), LiveError> {
        let over = |system: &System| Ok(system.patch(name)?.is_none_or(|patch| !patch.transition));
        if self.wait_until(timeout, over)? {
            return Ok(());
        }
        // Without the right to look at the tasks, the stall is still to be told.
        let blockers = self.blocking(name).unwrap_or_default();
        Err(LiveError::TransitionStalled { name: name.to_owned(), seconds: timeout.as_secs(), blockers })
    }

    /// Checks that a file is a livepatch for the running kernel and says its name.
    fn check_module(&self, path: &Path, file: &mut File) -> Result<String, LiveError> {
        let io = |source| LiveError::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        file.by_ref().take(LARGEST_MODULE).read_to_end(&mut bytes).map_err(io)?;
        file.rewind().map_err(io)?;
        let no_livepatch = |why| LiveError::NotALivepatch { what: path.display().to_string(), why };
        if Packing::detect(&bytes).is_some() {
            return Err(no_livepatch("it is packed; unpack it first"));
        }
        let module = Module::parse(&bytes)?;
        if module.modinfo("livepatch").next() != Some("Y") {
            return Err(no_livepatch("it is a module, but its .modinfo does not say `livepatch=Y`"));
        }
        check_name(module.name())?;
        let running = self.release()?;
        let built_for = module.release().unwrap_or("no kernel that it names");
        if built_for != running {
            let (name, built_for) = (module.name().to_owned(), built_for.to_owned());
            return Err(LiveError::WrongKernel { name, built_for, running });
        }
        Ok(module.name().to_owned())
    }

    /// Checks that a livepatch can be loaded now. A module of that name that was disabled and left is removed:
    /// a disabled livepatch cannot be enabled again (Linux 958ef1e39d24).
    fn make_room(&self, name: &str) -> Result<(), LiveError> {
        let patches = self.patches()?;
        if let Some(patch) = patches.iter().find(|patch| patch.name == name)
            && patch.enabled
        {
            return Err(LiveError::AlreadyLoaded(name.to_owned()));
        }
        if let Some(other) = patches.iter().find(|patch| patch.transition) {
            return Err(LiveError::TransitionBusy { name: name.to_owned(), other: other.name.clone() });
        }
        if self.module(name).exists() { self.remove_module(name, Duration::ZERO) } else { Ok(()) }
    }

    /// What a failed load means.
    fn refused(&self, name: String, errno: Errno, log: &KernelLog) -> LiveError {
        let log = log.about(&name);
        if errno == Errno::PERM && !self.may_load() {
            return LiveError::NotRoot(format!("loading {name}"));
        }
        if errno == Errno::EXIST {
            return LiveError::AlreadyLoaded(name);
        }
        let busy = self.patches().unwrap_or_default().into_iter().find(|patch| patch.transition);
        match busy {
            Some(patch) if errno == Errno::BUSY => LiveError::TransitionBusy { name, other: patch.name },
            _ => LiveError::KernelRefused { name, why: meaning(errno), errno: errno.into(), log },
        }
    }

    /// Whether this process has CAP_SYS_MODULE.
    fn may_load(&self) -> bool {
        let status = read_if_there(&self.path("proc/self/status")).ok().flatten().unwrap_or_default();
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        capabilities
            .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
            .is_some_and(|capabilities| capabilities >> CAP_SYS_MODULE & 1 == 1)
    }
}

/// What an errno of finit_module(2) means for a livepatch (Linux 6.12: kernel/module/main.c,
/// kernel/livepatch/core.c, kernel/trace/ftrace.c).
fn meaning(errno: Errno) -> &'static str {
    match errno {
        Errno::BUSY => "a function of it is redirected by someone else, such as a kprobe or another tracer",
        Errno::INVAL => "the kernel finds a function or symbol of it not, or not only once",
        Errno::NOEXEC => "it does not fit this kernel: its format, its version or its symbols' versions",
        Errno::NOENT => "a symbol that it uses is not in this kernel",
        Errno::PERM => "this kernel allows no such module to be loaded",
        Errno::NOKEY | Errno::KEYREJECTED | Errno::BADMSG => "its signature is missing or not accepted",
        Errno::NOMEM => "the kernel has no memory for it",
        _ => "the kernel refused it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, RELEASE, module};

    const NOW: LoadOptions = LoadOptions { timeout: Duration::ZERO };

    fn livepatch(fake: &Fake) -> std::path::PathBuf {
        fake.file("x.ko", &module("livepatch_x", RELEASE, true))
    }

    #[test]
    fn a_livepatch_is_loaded_and_seen() {
        let fake = Fake::new();
        let loaded = fake.system().load(&livepatch(&fake), NOW).unwrap();
        assert_eq!(loaded.name, "livepatch_x");
        assert_eq!(fake.calls(), ["insert livepatch_x"]);
        let error = fake.system().load(&livepatch(&fake), NOW).unwrap_err();
        assert!(matches!(error, LiveError::AlreadyLoaded(_)), "{error}");
    }

    #[test]
    fn what_is_no_livepatch_of_this_kernel_never_reaches_the_kernel() {
        let fake = Fake::new();
        let load = |bytes: &[u8]| fake.system().load(&fake.file("y.ko", bytes), NOW).unwrap_err();
        let plain = load(&module("y", RELEASE, false));
        assert!(matches!(plain, LiveError::NotALivepatch { .. }), "{plain}");
        let other = load(&module("y", "5.0.0", true));
        assert_eq!(other.to_string(), format!("y is for 5.0.0, but {RELEASE} is running"));
        assert!(matches!(load(b"\x1f\x8b packed"), LiveError::NotALivepatch { .. }));
        assert!(matches!(load(b"text"), LiveError::Kernel(_)));
        assert!(matches!(load(&module("../y", RELEASE, true)), LiveError::Name(_)));
        assert!(fake.calls().is_empty());
    }

    #[test]
    fn a_stalled_transition_names_its_tasks() {
        let fake = Fake::new();
        fake.stall();
        fake.task(84, 84, "cat", 0, "0\n", "[<0>] slow_read+0x1a/0x30\n");
        let error = fake.system().load(&livepatch(&fake), NOW).unwrap_err();
        assert!(error.to_string().ends_with("after 0 s\n  task 84 (cat) is in slow_read"), "{error}");
    }

    #[test]
    fn a_transition_of_another_livepatch_is_told() {
        let fake = Fake::new();
        fake.patch("other", true, true);
        let error = fake.system().load(&livepatch(&fake), NOW).unwrap_err();
        assert_eq!(error.to_string(), "livepatch_x must wait: other is in transition");
    }

    #[test]
    fn a_disabled_rest_is_removed_first() {
        let fake = Fake::new();
        fake.module("livepatch_x", 0);
        fake.system().load(&livepatch(&fake), NOW).unwrap();
        assert_eq!(fake.calls(), ["remove livepatch_x", "insert livepatch_x"]);
    }

    #[test]
    fn refusals_of_the_kernel_are_told_apart() {
        let fake = Fake::new();
        let refuse = |errno| {
            fake.refuse(errno);
            fake.system().load(&livepatch(&fake), NOW).unwrap_err()
        };
        assert!(matches!(refuse(Errno::PERM), LiveError::NotRoot(_)));
        assert!(matches!(refuse(Errno::EXIST), LiveError::AlreadyLoaded(_)));
        assert!(refuse(Errno::BUSY).to_string().contains("redirected by someone else"));
        assert!(refuse(Errno::INVAL).to_string().contains("not only once"));
        fake.write("proc/self/status", "Name:\tx\nCapEff:\t0000000000010000\n");
        assert!(matches!(refuse(Errno::PERM), LiveError::KernelRefused { .. }));
    }
}
