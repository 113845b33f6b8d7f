//! Loading a livepatch and waiting for its transition.

use crate::candidate::Candidate;
use crate::engine::Switching;
use crate::error::LiveError;
use crate::kernel_log::KernelLog;
use crate::parameters::line;
use crate::patches::State;
use crate::system::{System, read_if_there};
use crate::transition::{Wait, Watch};
use kmend_sign::CertificateFacts;
use rustix::io::Errno;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Bit of `CAP_SYS_MODULE` in /proc/self/status (Linux, include/uapi/linux/capability.h).
const CAP_SYS_MODULE: u32 = 16;

/// How long the module of a livepatch that is disabled may still be held: the kernel frees it in a worker.
const MODULE_PATIENCE: Duration = Duration::from_secs(5);

/// How to load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// How long to wait for the transition.
    pub timeout: Duration,
    /// What becomes of a transition that is not over then.
    pub late: Late,
    /// How long to wait for the transition back: tasks that were moved must be moved again.
    pub way_back: Duration,
}

/// What becomes of a transition that is not over in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It is turned around, and the livepatch is unloaded again.
    Reverse,
    /// It is left to the kernel, and the load counts as failed.
    Leave,
    /// It is left to the kernel: whoever loads does not need it to be over.
    Accept,
}

impl Default for LoadOptions {
    /// The kernel signals the tasks that hold a transition after 15 s (Linux, kernel/livepatch/transition.c,
    /// `SIGNALS_TIMEOUT`): a minute more.
    fn default() -> Self {
        let minute_more = Duration::from_secs(75);
        Self { timeout: minute_more, late: Late::Reverse, way_back: minute_more }
    }
}

/// A livepatch that is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// The name of its module.
    pub name: String,
    /// `Enabled` if every task runs it, `Enabling` if its transition was left to the kernel.
    pub state: State,
    /// From the system call to the end of the transition, or to the time at which it was left.
    pub time: Duration,
    /// The trusted certificate by which its signature is valid; `None` if this machine trusts nobody in particular.
    pub signed_by: Option<CertificateFacts>,
    /// How kmend's consistency engine switched it; `None` if the kernel's own livepatch did.
    pub engine: Option<Switching>,
}

impl System {
    /// Loads a livepatch that was checked, and waits until every task runs it. One that is being enabled, because whoever
    /// began that was ended, is waited for.
    ///
    /// If the time runs out first, the error names the tasks. The livepatch is then unloaded again, or stays loaded
    /// and the transition goes on, as the options say.
    pub fn load(
        &self,
        candidate: &Candidate,
        options: LoadOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Loaded, LiveError> {
        let name = &candidate.module.name;
        let is_new = self.make_room(candidate)?;
        let start = Instant::now();
        if is_new {
            let log = KernelLog::from_now(&self.path("dev/kmsg"));
            if let Err(errno) = self.calls.insert(&candidate.bytes, &line(&candidate.parameters)) {
                return Err(self.refused(name.clone(), errno, &log));
            }
        }
        if is_new && candidate.module.engine.is_some() {
            self.begin(candidate, options)?;
        }
        let loaded = |state| Loaded {
            name: name.clone(),
            state,
            time: start.elapsed(),
            signed_by: candidate.signed_by.clone(),
            engine: self.patch(name).ok().flatten().and_then(|patch| patch.engine),
        };
        match (self.await_transition(name, options.timeout, watch)?, options.late) {
            (Wait::Over, _) if candidate.module.engine.is_some() && !self.is_enabled(name)? => {
                // Nobody looked for so long that the engine did what is done below.
                self.remove_module(name, MODULE_PATIENCE)?;
                let (name, seconds) = (name.clone(), start.elapsed().as_secs());
                Err(LiveError::Reversed { name, seconds, state: State::Disabled, blockers: Vec::new() })
            }
            (Wait::Over, _) => Ok(loaded(State::Enabled)),
            (Wait::Left, _) => Err(self.left(name)),
            (Wait::TimedOut, Late::Accept) => Ok(loaded(State::Enabling)),
            (Wait::TimedOut, Late::Leave) => Err(self.stalled(name, options.timeout)),
            (Wait::TimedOut, Late::Reverse) | (Wait::Reversed, _) => {
                match self.reverse(name, start.elapsed(), options.way_back, watch)? {
                    None => Ok(loaded(State::Enabled)),
                    Some(error) => {
                        if matches!(error, LiveError::Reversed { .. }) && !self.is_pinned(name)? {
                            self.remove_module(name, MODULE_PATIENCE)?;
                        }
                        Err(error)
                    }
                }
            }
        }
    }

    /// Enables a patch that the consistency engine has just got; one that cannot be enabled is unloaded again.
    fn begin(&self, candidate: &Candidate, options: LoadOptions) -> Result<(), LiveError> {
        let name = &candidate.module.name;
        let late = (options.late == Late::Reverse).then_some(options.timeout);
        let begun =
            self.set_switch(name, &candidate.switch, late).and_then(|()| self.write_enabled(name, true));
        if begun.is_err() {
            // Why it was not enabled is what is to be told.
            let _ = self.remove_module(name, MODULE_PATIENCE);
        }
        begun
    }

    /// Whether a livepatch is there and enabled.
    fn is_enabled(&self, name: &str) -> Result<bool, LiveError> {
        Ok(self.patch(name)?.is_some_and(|patch| patch.enabled))
    }

    /// Makes sure that a livepatch can be loaded now; `false` if it is, and is being enabled. A module of that name that was
    /// disabled and left is removed: a disabled livepatch cannot be enabled again (Linux 958ef1e39d24).
    fn make_room(&self, candidate: &Candidate) -> Result<bool, LiveError> {
        let name = candidate.module.name.as_str();
        if let Some(other) = self.busy_with(candidate.module.engine.is_some())? {
            // Whether it has the same parameters is not known.
            if other.name == name && other.enabled && candidate.parameters.is_empty() {
                return Ok(false);
            }
            return Err(LiveError::TransitionBusy { name: name.to_owned(), other: other.name });
        }
        if self.patch(name)?.is_some_and(|patch| patch.enabled) {
            return Err(LiveError::AlreadyLoaded(name.to_owned()));
        }
        if self.module(name).exists() {
            self.remove_module(name, MODULE_PATIENCE)?;
        }
        Ok(true)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, RELEASE, module, module_with};
    use crate::transition::Decision;
    use std::path::PathBuf;

    const NOW: LoadOptions =
        LoadOptions { timeout: Duration::ZERO, late: Late::Leave, way_back: Duration::ZERO };

    fn livepatch(fake: &Fake) -> PathBuf {
        fake.file("x.ko", &module("livepatch_x", RELEASE, true))
    }

    fn load_with(fake: &Fake, options: LoadOptions, decision: Decision) -> Result<Loaded, LiveError> {
        let system = fake.system();
        let candidate = system.check(&[livepatch(fake)]).remove(0).map_err(|mut errors| errors.remove(0))?;
        system.load(&candidate, options, &mut |_| decision)
    }

    fn load(fake: &Fake) -> Result<Loaded, LiveError> {
        load_with(fake, NOW, Decision::Wait)
    }

    #[test]
    fn a_livepatch_is_loaded_and_seen() {
        let fake = Fake::new();
        assert_eq!(load(&fake).unwrap().name, "livepatch_x");
        assert_eq!(fake.calls(), ["insert livepatch_x"]);
        let error = load(&fake).unwrap_err();
        assert!(matches!(error, LiveError::AlreadyLoaded(_)), "{error}");
    }

    #[test]
    fn a_stalled_transition_names_its_tasks() {
        let fake = Fake::new();
        fake.stall();
        fake.task(84, 84, "cat", 0, "0\n", "[<0>] slow_read+0x1a/0x30\n");
        let error = load(&fake).unwrap_err();
        assert!(error.to_string().ends_with("after 0 s\n  task 84 (cat) is in slow_read"), "{error}");
        assert!(fake.path("sys/kernel/livepatch/livepatch_x").exists());
    }

    #[test]
    fn a_transition_that_nobody_waits_for_is_no_error() {
        let fake = Fake::new();
        fake.stall();
        let options = LoadOptions { late: Late::Accept, ..NOW };
        assert_eq!(load_with(&fake, options, Decision::Wait).unwrap().state, State::Enabling);
        assert_eq!(fake.calls(), ["insert livepatch_x"]);
    }

    #[test]
    fn the_module_gets_its_parameters() {
        let fake = Fake::new();
        let module = module_with("livepatch_x", RELEASE, true, "parmtype=replace:int\0");
        let path = fake.file("x.ko", &module);
        let system = fake.system();
        let mut candidate = system.check(&[path]).remove(0).unwrap();
        let errors = candidate.give(&["reptile=1".parse().unwrap()]).unwrap_err();
        assert_eq!(errors[0].to_string(), "livepatch_x has no parameter `reptile`: it has replace");
        candidate.give(&["replace=1".parse().unwrap()]).unwrap();
        system.load(&candidate, NOW, &mut |_| Decision::Wait).unwrap();
        assert_eq!(fake.calls(), ["insert livepatch_x replace=1"]);
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
    fn a_stalled_transition_is_turned_around_and_what_is_left_is_unloaded() {
        let fake = Fake::new();
        fake.stall();
        fake.task(84, 84, "cat", 0, "0\n", "[<0>] slow_read+0x1a/0x30\n");
        fake.reverses("livepatch_x");
        let options = LoadOptions { timeout: Duration::from_millis(200), ..LoadOptions::default() };
        let error = load_with(&fake, options, Decision::Wait).unwrap_err();
        assert!(
            matches!(&error, LiveError::Reversed { blockers, state: crate::State::Disabled, .. } if blockers.len() == 1),
            "{error}"
        );
        assert!(error.to_string().contains("it is unloaded again"), "{error}");
        assert_eq!(fake.calls(), ["insert livepatch_x", "remove livepatch_x"]);
    }

    #[test]
    fn a_reversal_that_stalls_as_well_is_told_and_nothing_is_unloaded() {
        let fake = Fake::new();
        fake.stall();
        let error = load_with(&fake, LoadOptions { late: Late::Reverse, ..NOW }, Decision::Wait).unwrap_err();
        assert!(matches!(error, LiveError::TransitionStalled { .. }), "{error}");
        assert_eq!(fake.read("sys/kernel/livepatch/livepatch_x/enabled"), "0\n");
        assert_eq!(fake.calls(), ["insert livepatch_x"]);
    }

    #[test]
    fn who_breaks_off_the_wait_is_told_how_it_stands() {
        let fake = Fake::new();
        fake.stall();
        let error = load_with(&fake, LoadOptions::default(), Decision::Leave).unwrap_err();
        assert_eq!(error.to_string(), "livepatch_x is left as it is: enabling");
        assert_eq!(fake.read("sys/kernel/livepatch/livepatch_x/enabled"), "1\n");
    }

    #[test]
    fn a_disabled_rest_is_removed_first() {
        let fake = Fake::new();
        fake.module("livepatch_x", 0);
        load(&fake).unwrap();
        assert_eq!(fake.calls(), ["remove livepatch_x", "insert livepatch_x"]);
    }

    #[test]
    fn what_an_ended_load_has_begun_is_waited_for() {
        let fake = Fake::new();
        fake.stall();
        load(&fake).unwrap_err();
        let goes_on = load(&fake).unwrap_err();
        assert!(matches!(goes_on, LiveError::TransitionStalled { .. }), "{goes_on}");
        let over = fake.path("sys/kernel/livepatch/livepatch_x/transition");
        let mut looks = 0;
        let system = fake.system();
        let candidate = system.check(&[livepatch(&fake)]).remove(0).unwrap();
        let options = LoadOptions { timeout: Duration::from_secs(60), ..NOW };
        let loaded = system.load(&candidate, options, &mut |_| {
            looks += 1;
            std::fs::write(&over, "0\n").unwrap();
            Decision::Wait
        });
        assert_eq!((loaded.unwrap().name.as_str(), looks), ("livepatch_x", 1));
        assert_eq!(fake.calls(), ["insert livepatch_x"], "once");
        assert!(matches!(load(&fake), Err(LiveError::AlreadyLoaded(_))));
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
