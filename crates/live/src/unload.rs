//! Disabling a livepatch and unloading its module.

use crate::error::LiveError;
use crate::switch::Switch;
use crate::system::{System, check_name, read_if_there};
use crate::transition::{Wait, Watch};
use kmend_inspect::ENGINE;
use rustix::io::Errno;
use serde::Serialize;
use std::ffi::CString;
use std::time::{Duration, Instant};

/// The letter of a livepatch in /sys/module/NAME/taint (Linux, kernel/panic.c, `taint_flags`).
const LIVEPATCH_TAINT: char = 'K';

/// What is left of an unloaded livepatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// Its module, which does nothing more by itself: addresses of its functions or data are where nobody takes them
    /// back, and whoever has them may still be there.
    Module,
}

impl System {
    /// Disables a livepatch, waits until no task runs it, and unloads its module if it can be. A livepatch that is
    /// still being enabled is turned back; one that was disabled before is unloaded.
    pub fn unload(
        &self,
        name: &str,
        switch: &Switch,
        timeout: Duration,
        watch: &mut Watch<'_>,
    ) -> Result<Rest, LiveError> {
        check_name(name)?;
        let start = Instant::now();
        if self.patch(name)?.is_some() {
            self.disable(name, switch, timeout, watch)?;
        } else {
            self.check_rest(name)?;
        }
        if self.keeps_itself(name)? {
            return Ok(Rest::Module);
        }
        self.remove_module(name, timeout.saturating_sub(start.elapsed()))?;
        Ok(Rest::Nothing)
    }

    /// Checks that there is something to unload: a livepatch, or the module that a disabled one leaves.
    pub fn can_unload(&self, name: &str) -> Result<(), LiveError> {
        if self.patch(name)?.is_some() { Ok(()) } else { self.check_rest(name) }
    }

    /// Disables a livepatch and waits until no task runs it. Its module stays.
    pub fn disable(
        &self,
        name: &str,
        switch: &Switch,
        timeout: Duration,
        watch: &mut Watch<'_>,
    ) -> Result<(), LiveError> {
        let start = Instant::now();
        let Some(patch) = self.patch(name)? else { return Err(LiveError::NotLoaded(name.to_owned())) };
        if patch.enabled {
            self.prepare_switch(name, switch)?;
            self.write_enabled(name, false)?;
        }
        match self.await_transition(name, timeout, watch)? {
            Wait::Over => Ok(()),
            Wait::TimedOut => Err(self.stalled(name, timeout)),
            Wait::Left => Err(self.left(name)),
            Wait::Reversed => match self.reverse(name, start.elapsed(), timeout, watch)? {
                None => Ok(()),
                Some(error) => Err(error),
            },
        }
    }

    /// Whether a livepatch says that it has to stay in memory for good.
    pub(crate) fn is_pinned(&self, name: &str) -> Result<bool, LiveError> {
        self.has_set(name, "pinned")
    }

    /// Whether a livepatch holds its own module now: for good, or until a callback of its own ends what is in use. That one
    /// does not run if it is replaced.
    pub(crate) fn keeps_itself(&self, name: &str) -> Result<bool, LiveError> {
        Ok(self.is_pinned(name)? || self.has_set(name, "held")?)
    }

    fn has_set(&self, name: &str, parameter: &str) -> Result<bool, LiveError> {
        let parameter = self.module(name).join("parameters").join(parameter);
        Ok(read_if_there(&parameter)?.is_some_and(|value| value.trim() == "Y"))
    }

    /// What of it may still be in use, as far as a livepatch that stays in memory says.
    pub fn pinned_by(&self, name: &str) -> Option<String> {
        let parameter = self.module(name).join("parameters/pinned_by");
        let text = read_if_there(&parameter).ok().flatten()?;
        // sysfs ends a text with a newline.
        Some(text.trim_end_matches('\n').to_owned()).filter(|text| !text.is_empty())
    }

    /// Checks that a module without a livepatch's folder is what a disabled livepatch leaves.
    fn check_rest(&self, name: &str) -> Result<(), LiveError> {
        let folder = self.module(name);
        if !folder.exists() {
            return Err(LiveError::NotLoaded(name.to_owned()));
        }
        if name == ENGINE {
            let why = "it is the consistency engine: `kmend engine unload` unloads it";
            return Err(LiveError::NotALivepatch { what: name.to_owned(), why });
        }
        if self.has_livepatch_taint(name)? {
            return Ok(());
        }
        let why = "a module of this name is loaded, but it is no livepatch";
        Err(LiveError::NotALivepatch { what: name.to_owned(), why })
    }

    /// Whether a module is, or was, a livepatch.
    pub(crate) fn has_livepatch_taint(&self, name: &str) -> Result<bool, LiveError> {
        let taint = read_if_there(&self.module(name).join("taint"))?;
        Ok(taint.is_some_and(|taint| taint.contains(LIVEPATCH_TAINT)))
    }

    /// Removes the module of a disabled livepatch. The kernel drops its reference from a worker after the
    /// transition, so that it may be in use for a moment. At least one attempt is made.
    pub(crate) fn remove_module(&self, name: &str, timeout: Duration) -> Result<(), LiveError> {
        let call_name = CString::new(name).map_err(|_| LiveError::Name(name.escape_debug().to_string()))?;
        let removed = self.wait_until(timeout, |system| {
            if system.references(name)?.is_some_and(|count| count > 0) {
                return Ok(false);
            }
            match system.calls.remove(&call_name) {
                // ENOENT: someone else was faster.
                Ok(()) | Err(Errno::NOENT) => Ok(!system.module(name).exists()),
                // EAGAIN: a user came in between. EBUSY: it is being removed.
                Err(Errno::AGAIN | Errno::BUSY | Errno::INTR) => Ok(false),
                Err(Errno::PERM) => Err(LiveError::NotRoot(format!("unloading {name}"))),
                Err(errno) => Err(LiveError::KernelRefused {
                    name: name.to_owned(),
                    why: "the kernel does not unload it",
                    errno: errno.into(),
                    log: Vec::new(),
                }),
            }
        })?;
        if removed {
            return Ok(());
        }
        let references = self.references(name)?.unwrap_or(0);
        Err(LiveError::ModuleHeld { name: name.to_owned(), references })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, patient};

    #[test]
    fn a_disabled_livepatch_is_unloaded() {
        let fake = Fake::new();
        fake.module("x", 0);
        fake.write("sys/module/x/taint", "OEK\n");
        fake.system().unload("x", &Switch::default(), Duration::ZERO, &mut patient).unwrap();
        assert_eq!(fake.calls(), ["remove x"]);
    }

    #[test]
    fn a_pinned_livepatch_is_disabled_and_stays() {
        let fake = Fake::new();
        fake.patch("x", true, false);
        fake.module("x", 1);
        fake.write("sys/module/x/parameters/pinned", "Y\n");
        assert_eq!(
            fake.system().unload("x", &Switch::default(), Duration::ZERO, &mut patient).unwrap(),
            Rest::Module
        );
        assert_eq!(fake.read("sys/kernel/livepatch/x/enabled"), "0\n");
        assert!(fake.calls().is_empty());
    }

    #[test]
    fn a_livepatch_that_was_replaced_before_its_callback_ran_stays() {
        let fake = Fake::new();
        fake.module("x", 1);
        fake.write("sys/module/x/taint", "OEK\n");
        fake.write("sys/module/x/parameters/pinned", "N\n");
        fake.write("sys/module/x/parameters/held", "Y\n");
        let unload = || fake.system().unload("x", &Switch::default(), Duration::ZERO, &mut patient).unwrap();
        assert_eq!(unload(), Rest::Module);
        fake.write("sys/module/x/parameters/held", "N\n");
        fake.write("sys/module/x/refcnt", "0\n");
        assert_eq!(unload(), Rest::Nothing);
    }

    #[test]
    fn an_enabled_livepatch_is_disabled_first() {
        let fake = Fake::new();
        fake.patch("x", true, false);
        fake.module("x", 0);
        fake.system().unload("x", &Switch::default(), Duration::ZERO, &mut patient).unwrap();
        assert_eq!(fake.read("sys/kernel/livepatch/x/enabled"), "0\n");
        assert!(!fake.path("sys/module/x").exists());
    }

    #[test]
    fn what_is_not_there_or_no_livepatch_is_left_alone() {
        let fake = Fake::new();
        let unload = |name: &str| {
            fake.system().unload(name, &Switch::default(), Duration::ZERO, &mut patient).unwrap_err()
        };
        assert!(matches!(unload("x"), LiveError::NotLoaded(_)));
        assert!(matches!(unload("a/b"), LiveError::Name(_)));
        fake.module("ext4", 0);
        assert!(matches!(unload("ext4"), LiveError::NotALivepatch { .. }));
        assert!(fake.calls().is_empty());
    }

    #[test]
    fn a_held_module_is_told_with_its_count() {
        let fake = Fake::new();
        fake.patch("x", false, false);
        fake.module("x", 2);
        let error = fake.system().unload("x", &Switch::default(), Duration::ZERO, &mut patient).unwrap_err();
        assert!(matches!(error, LiveError::ModuleHeld { references: 2, .. }), "{error}");
        assert!(fake.calls().is_empty());
    }

    #[test]
    fn a_stalled_transition_back_is_told() {
        let fake = Fake::new();
        fake.patch("x", true, true);
        fake.module("x", 1);
        fake.task(84, 84, "cat", 0, "1\n", "");
        let error = fake.system().unload("x", &Switch::default(), Duration::ZERO, &mut patient).unwrap_err();
        assert!(
            matches!(&error, LiveError::TransitionStalled { blockers, .. } if blockers.len() == 1),
            "{error}"
        );
    }
}
