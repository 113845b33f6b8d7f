//! Facts about the running kernel that livepatches depend on.

use crate::system::{LARGEST, System, read};
use std::fs::File;
use std::io::Read;
use std::time::Duration;

impl System {
    /// A name for the time since the machine was started, which no other such time has; `None` where the kernel tells none.
    pub fn boot_id(&self) -> Option<String> {
        let id = read(&self.path("proc/sys/kernel/random/boot_id")).ok()?;
        Some(id).filter(|id| !id.is_empty())
    }

    /// How long ago that was, with the time that the machine slept.
    pub fn uptime(&self) -> Option<Duration> {
        let seconds = read(&self.path("proc/uptime")).ok()?.split(' ').next()?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Whether the kernel was started with this word on its command line.
    pub fn was_started_with(&self, word: &str) -> bool {
        read(&self.path("proc/cmdline")).is_ok_and(|line| line.split_whitespace().any(|other| other == word))
    }

    /// The build id of the kernel that runs, in hexadecimal (/sys/kernel/notes); `None` if it has none.
    pub(crate) fn build_id(&self) -> Option<String> {
        let mut notes = Vec::new();
        File::open(self.path("sys/kernel/notes")).ok()?.take(LARGEST).read_to_end(&mut notes).ok()?;
        kmend_kernel::build_id(&notes).map(hex::encode)
    }

    /// `kernel.ftrace_enabled`; `None` where it cannot be read.
    pub(crate) fn ftrace_enabled(&self) -> Option<bool> {
        Some(read(&self.path("proc/sys/kernel/ftrace_enabled")).ok()? != "0")
    }

    /// The lockdown that is in force: `none`, `integrity` or `confidentiality`; `None` if the kernel has no lockdown, or
    /// securityfs is not mounted.
    pub(crate) fn lockdown(&self) -> Option<String> {
        // The one in force stands in brackets (Linux, security/lockdown/lockdown.c, `lockdown_read`).
        let text = read(&self.path("sys/kernel/security/lockdown")).ok()?;
        Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
    }

    /// Whether the kernel takes signed modules only because of its option or `module.sig_enforce`.
    pub(crate) fn signatures_enforced(&self) -> Option<bool> {
        Some(read(&self.path("sys/module/module/parameters/sig_enforce")).ok()? == "Y")
    }

    /// Why the kernel takes signed modules only, if it does (Linux, kernel/module/signing.c, `module_sig_check`).
    pub(crate) fn demands_signatures(&self) -> Option<String> {
        if self.signatures_enforced() == Some(true) {
            return Some("module.sig_enforce is on".to_owned());
        }
        self.lockdown()
            .filter(|mode| mode != "none")
            .map(|mode| format!("the kernel is locked down ({mode})"))
    }
}
