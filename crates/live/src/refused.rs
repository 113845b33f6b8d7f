//! What it means when the kernel, or kmend's consistency engine, does not take a livepatch.

use crate::error::LiveError;
use crate::kernel_log::KernelLog;
use crate::system::{System, read_if_there};
use rustix::io::Errno;
use std::io;

/// Bit of `CAP_SYS_MODULE` in /proc/self/status (Linux, include/uapi/linux/capability.h).
const CAP_SYS_MODULE: u32 = 16;

impl System {
    /// What a failed load means.
    pub(crate) fn refused(&self, name: String, errno: Errno, log: &KernelLog) -> LiveError {
        let log = log.about(&name);
        let ftrace = self.ftrace_enabled() != Some(false);
        if errno == Errno::PERM && !self.may_load() {
            return LiveError::NotRoot(format!("loading {name}"));
        }
        if errno == Errno::EXIST {
            return LiveError::AlreadyLoaded(name);
        }
        match self.in_transition().unwrap_or_default() {
            Some(patch) if errno == Errno::BUSY => LiveError::TransitionBusy { name, other: patch.name },
            _ => match self.rejection(errno) {
                Some(why) => LiveError::SignatureRejected { name, why, errno: errno.into(), log },
                None => {
                    LiveError::KernelRefused { name, why: why(errno, ftrace, &log), errno: errno.into(), log }
                }
            },
        }
    }

    /// Why the kernel does not accept a signature, if an errno says so (Linux, kernel/module/signing.c, `module_sig_check`: what is
    /// wrong with a signature itself is told in any case, a missing signature or key only where the kernel demands one).
    fn rejection(&self, errno: Errno) -> Option<String> {
        let demand = self.demands_signatures();
        match errno {
            Errno::KEYREJECTED | Errno::NOKEY => Some(match demand {
                Some(demand) => format!("{demand}, and it has no key for this signature"),
                None => "the signature is not by the key that it names".to_owned(),
            }),
            Errno::BADMSG => Some("it cannot read the signature".to_owned()),
            // Lockdown answers for signing.c where the key is not known.
            Errno::PERM => {
                demand.map(|demand| format!("{demand}, and it may have no key for this signature"))
            }
            _ => None,
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

/// What lines of the kernel's log say of a load that failed, where the errno says less (Linux 6.12: kernel/livepatch/core.c and
/// patch.c, kernel/params.c).
const TOLD: [(&str, &str); 4] = [
    ("pre-patch callback failed", "one of its callbacks (pre_patch) declined"),
    (
        "is not compatible with the already installed",
        "a loaded livepatch changed states of the system that it does not know",
    ),
    ("' invalid for parameter `", "a parameter does not take this value"),
    ("' too large for parameter `", "a parameter does not take so long a value"),
];

/// Why the kernel refused a livepatch.
fn why(errno: Errno, ftrace: bool, log: &[String]) -> &'static str {
    let told = TOLD.iter().find(|(words, _)| log.iter().any(|line| line.contains(words)));
    match told {
        Some((_, meaning)) => meaning,
        None if errno == Errno::BUSY && !ftrace => "ftrace is off (kernel.ftrace_enabled is 0)",
        None => meaning(errno),
    }
}

/// What an errno of init_module(2) means for a livepatch (Linux 6.12: kernel/module/main.c,
/// kernel/livepatch/core.c, kernel/trace/ftrace.c).
fn meaning(errno: Errno) -> &'static str {
    match errno {
        Errno::BUSY => "a function of it is redirected by someone else, such as a kprobe or another tracer",
        Errno::INVAL => "the kernel finds a function or symbol of it not, or not only once",
        Errno::NOEXEC => "it does not fit this kernel: its format, its version or its symbols' versions",
        Errno::NOENT => "a symbol that it uses is not in this kernel",
        Errno::PERM => "this kernel allows no such module to be loaded",
        // Linux, security/integrity/ima/ima_main.c, `ima_load_data`: files are appraised, and this is memory.
        Errno::ACCESS => {
            "a policy of this kernel (IMA) takes modules only where it demands signatures as well"
        }
        Errno::NOMEM => "the kernel has no memory for it",
        _ => "the kernel refused it",
    }
}

/// Why the engine did not begin to enable or disable a patch.
pub(crate) fn engine_refused(name: &str, enable: bool, error: io::Error, log: &KernelLog) -> LiveError {
    let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::BUSY) if enable => "someone else redirects or probes one of its functions",
        Some(Errno::BUSY) => "a newer patch has a version of one of its functions: disable that first",
        Some(Errno::INVAL) => {
            "its model does not suit it: it does something when nothing runs the old code any more"
        }
        Some(Errno::OPNOTSUPP) => "this model and this redirect cannot switch all of its functions",
        Some(Errno::AGAIN) => "a module that it patches is just coming or going: try again",
        Some(Errno::NOENT) => "a module that it patches lacks one of its functions or symbols",
        _ => "the consistency engine refused it",
    };
    LiveError::KernelRefused { name: name.to_owned(), why, errno: error, log: log.about(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, RELEASE, module, patient};
    use crate::load::LoadOptions;

    fn load(fake: &Fake) -> Result<(), LiveError> {
        let path = fake.file("x.ko", &module("livepatch_x", RELEASE, true));
        let system = fake.system();
        let candidate = system.check(&[path]).remove(0).map_err(|mut errors| errors.remove(0))?;
        system.load(&candidate, LoadOptions::default(), &mut patient).map(|_| ())
    }

    #[test]
    fn the_log_says_more_than_the_errno() {
        let why = |errno, ftrace, line: &str| why(errno, ftrace, &[line.to_owned()]);
        assert_eq!(why(Errno::BUSY, false, ""), "ftrace is off (kernel.ftrace_enabled is 0)");
        assert!(why(Errno::BUSY, true, "").contains("someone else"));
        let line = "livepatch: pre-patch callback failed for object 'vmlinux'";
        assert!(why(Errno::NODEV, true, line).contains("callback"));
        let line = "livepatch: Livepatch patch (x) is not compatible with the already installed livepatches.";
        assert!(why(Errno::INVAL, true, line).contains("states of the system"));
        assert!(why(Errno::INVAL, true, "x: `a' invalid for parameter `replace'").contains("parameter"));
    }

    #[test]
    fn refusals_of_the_kernel_are_told_apart() {
        let fake = Fake::new();
        let refuse = |errno| {
            fake.refuse(errno);
            load(&fake).unwrap_err()
        };
        assert!(matches!(refuse(Errno::PERM), LiveError::NotRoot(_)));
        assert!(matches!(refuse(Errno::EXIST), LiveError::AlreadyLoaded(_)));
        assert!(refuse(Errno::BUSY).to_string().contains("redirected by someone else"));
        assert!(refuse(Errno::INVAL).to_string().contains("not only once"));
        fake.write("proc/self/status", "Name:\tx\nCapEff:\t0000000000010000\n");
        assert!(matches!(refuse(Errno::PERM), LiveError::KernelRefused { .. }));
        assert!(refuse(Errno::KEYREJECTED).to_string().contains("not by the key that it names"));
        assert!(matches!(refuse(Errno::BADMSG), LiveError::SignatureRejected { .. }));
        fake.write("sys/module/module/parameters/sig_enforce", "Y\n");
        for errno in [Errno::KEYREJECTED, Errno::PERM] {
            let why = fake.system().rejection(errno).unwrap();
            assert!(why.starts_with("module.sig_enforce is on"), "{why}");
        }
        assert_eq!(fake.system().rejection(Errno::INVAL), None);
    }
}
