//! Loading the set of the kernel that has booted.

use crate::crash::Crash;
use crate::error::InstallError;
use crate::history::Event;
use crate::install::digest;
use crate::manifest::{Manifest, Module, last_replacing};
use crate::recorder;
use crate::store::{Locked, Store};
use kmend_live::{Candidate, Decision, Late, LiveError, LoadOptions, Loaded, System};
use kmend_refusal::{Code, Coded};
use serde::Serialize;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// On the kernel's command line: nothing is loaded at boot.
const OFF: &str = "kmend.enable=0";
/// How long the transitions of a boot are awaited, all together: what is left then goes on in the kernel. Early in a boot
/// there are few tasks, and each is moved at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a boot loaded.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// The kernel.
    pub release: String,
    /// Whether the command line of the kernel forbids it.
    pub off: bool,
    /// Its livepatches, in the order in which they had their turn.
    pub livepatches: Vec<BootedPatch>,
    /// What is to be known.
    pub notes: Vec<String>,
}

/// What became of an installed livepatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootedPatch {
    /// Its name.
    pub name: String,
    /// What.
    pub outcome: BootOutcome,
    /// The code of the reason, where there is one.
    pub code: Option<Code>,
    /// The reason.
    pub why: Option<String>,
}

/// What becomes of an installed livepatch at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootOutcome {
    /// It is loaded, and every task runs it.
    Loaded,
    /// It would be loaded.
    WouldLoad,
    /// It was loaded before.
    AlreadyLoaded,
    /// It is loaded, and its transition goes on in the kernel.
    Left,
    /// One behind it takes its place.
    Superseded,
    /// It is for another build of this kernel.
    Skipped,
    /// It is held.
    Held,
    /// It could not be loaded.
    Failed,
}

impl BootOutcome {
    /// Whether it is, or will be, in the kernel.
    fn is_in(self) -> bool {
        use BootOutcome::{AlreadyLoaded, Left, Loaded, WouldLoad};
        matches!(self, Loaded | WouldLoad | AlreadyLoaded | Left)
    }
}

impl Store {
    /// Loads the set of the kernel that runs. A livepatch that cannot be loaded is told, and the others go on. `dry_run` says
    /// what would be done.
    pub fn boot(&self, system: &System, dry_run: bool) -> Result<Boot, InstallError> {
        let release = system.release()?;
        let mut boot =
            Boot { release: release.clone(), off: system.was_started_with(OFF), ..Boot::default() };
        if self.folder()?.is_none() {
            return Ok(boot);
        }
        // What the machine died of is judged even if nothing is to be loaded.
        let judged = if dry_run { Ok(()) } else { self.judge_and_sweep(system, &release) };
        let modules = self.installed(&release)?;
        for other in self.releases()?.into_iter().filter(|other| *other != release) {
            boot.notes.push(format!("what is installed for {other} is skipped: {release} is running"));
        }
        if boot.off {
            boot.notes.push(format!("nothing is loaded: the kernel was started with {OFF}"));
            return Ok(boot);
        }
        let unjudged = judged.err().map(|error| error.to_string());
        let start = Instant::now();
        let engine = false;
        let mut loader =
            Loader { store: self, system, release, dry_run, engine, unjudged, start, boot: &mut boot };
        loader.load_all(&modules);
        Ok(boot)
    }

    fn judge_and_sweep(&self, system: &System, release: &str) -> Result<(), InstallError> {
        let locked = self.lock_judged(system)?;
        match locked.folder.folder(release)? {
            Some(folder) => Manifest::read(&folder)?.sweep(&folder),
            None => Ok(()),
        }
    }
}

/// A boot on its way.
struct Loader<'a> {
    store: &'a Store,
    system: &'a System,
    release: String,
    dry_run: bool,
    /// Whether the consistency engine is, or would be, there.
    engine: bool,
    /// Why what the machine died of is not known.
    unjudged: Option<String>,
    start: Instant,
    boot: &'a mut Boot,
}

impl Loader<'_> {
    /// Loads what is installed: the livepatches of the kernel, then the consistency engine, then its patches. Those of the kernel
    /// need no other module, and nothing is lost by the order, as no two of the two kinds patch the same function.
    fn load_all(&mut self, modules: &[Module]) {
        let (of_engine, of_kernel): (Vec<&Module>, Vec<&Module>) =
            modules.iter().filter(|module| !module.is_engine()).partition(|module| module.needs_engine());
        self.load_set(&of_kernel);
        if let Some(engine) = modules.iter().find(|module| module.is_engine()) {
            self.engine = self.load(engine);
        }
        self.load_set(&of_engine);
    }

    /// Loads a set of one kind. The last livepatch that replaces comes first: those before it would be replaced a moment later.
    /// They are loaded if it cannot be.
    fn load_set(&mut self, modules: &[&Module]) {
        let last = last_replacing(modules);
        let (before, rest) = modules.split_at(last.unwrap_or(0));
        let mut rest = rest.iter();
        if last.is_some()
            && let Some(replacing) = rest.next()
        {
            if self.load(replacing) {
                for module in before {
                    let why = format!("{} replaces it", replacing.name);
                    self.say(module, BootOutcome::Superseded, None, Some(why));
                }
            } else {
                self.load_set(before);
            }
        }
        for module in rest {
            self.load(module);
        }
    }

    /// Loads one, and says whether it is in the kernel.
    fn load(&mut self, module: &Module) -> bool {
        let (outcome, error) = self.outcome(module);
        let why = error.as_ref().map(|error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            // Whoever prints it has named the livepatch.
            let name = format!("{}: ", module.name);
            line.strip_prefix(&name).unwrap_or(line).to_owned()
        });
        self.say(module, outcome, error.map(|error| error.code()), why);
        outcome.is_in()
    }

    fn say(&mut self, module: &Module, outcome: BootOutcome, code: Option<Code>, why: Option<String>) {
        self.boot.livepatches.push(BootedPatch { name: module.name.clone(), outcome, code, why });
    }

    fn outcome(&self, module: &Module) -> (BootOutcome, Option<InstallError>) {
        let name = || module.name.clone();
        if let Some(held) = &module.held {
            return (BootOutcome::Held, Some(InstallError::Held { name: name(), why: held.why() }));
        }
        if let Some(why) = &self.unjudged {
            let error = InstallError::NoCrashMemory { name: name(), why: why.clone() };
            return (BootOutcome::Failed, Some(error));
        }
        // The kernel does one transition at a time. How this one ends is told by who began it.
        if let Ok(Some(busy)) = self.system.in_transition() {
            let _ = self.system.wait(&busy.name, self.patience(), &mut |_| Decision::Wait);
        }
        let candidate = match self.candidate(module) {
            Ok(candidate) => candidate,
            Err(InstallError::Live(LiveError::AlreadyLoaded(_) | LiveError::EngineLoaded)) => {
                return (BootOutcome::AlreadyLoaded, None);
            }
            Err(InstallError::Live(LiveError::EngineMissing)) if self.dry_run && self.engine => {
                return (BootOutcome::WouldLoad, None);
            }
            Err(error) => return (of(error.code()), Some(error)),
        };
        if self.dry_run {
            return (BootOutcome::WouldLoad, None);
        }
        if let Err(error) = self.locked(|locked| Crash::begin(locked, self.system, &candidate)) {
            let error = InstallError::NoCrashMemory { name: name(), why: error.to_string() };
            return (BootOutcome::Failed, Some(error));
        }
        let loaded = self.insert(&candidate);
        // The load has happened: that it cannot be written down is no reason to say anything else.
        let _ = self.locked(|locked| recorder::loaded(locked, self.system, Event::Boot, &candidate, &loaded));
        match loaded {
            Ok(Loaded { .. }) => (BootOutcome::Loaded, None),
            Err(error) => (of(error.code()), Some(error.into())),
        }
    }

    /// Puts a module into the kernel, and waits for its transition if it has one.
    fn insert(&self, candidate: &Candidate) -> Result<Loaded, LiveError> {
        if candidate.module.is_engine() {
            return self.system.load_engine(candidate);
        }
        let options = LoadOptions { timeout: self.patience(), late: Late::Leave, way_back: Duration::ZERO };
        self.system.load(candidate, options, &mut |_| Decision::Wait)
    }

    /// Opens an installed module, and checks that it is what was installed and can be loaded now.
    fn candidate(&self, module: &Module) -> Result<Candidate, InstallError> {
        let folder = self.store.folder()?.map(|own| own.folder(&self.release)).transpose()?.flatten();
        let path = self.store.path().join(&self.release).join(module.file());
        let damaged =
            |why| InstallError::ModuleDamaged { name: module.name.clone(), path: path.clone(), why };
        let Some(folder) = folder else { return Err(damaged("is gone")) };
        let mut file = folder.file(&module.file())?.ok_or_else(|| damaged("is gone"))?;
        if digest(&mut file).map_err(|error| InstallError::io(&path, error))? != module.sha256 {
            return Err(damaged("is not what was installed"));
        }
        // This very file again, and not what may have its name by now.
        let open = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let checked = if module.is_engine() {
            Some(self.system.check_engine(&open))
        } else {
            self.system.check(std::slice::from_ref(&open)).pop()
        };
        let candidate = match checked {
            None => return Err(damaged("is gone")),
            Some(Ok(candidate)) => candidate,
            Some(Err(mut errors)) => {
                // What makes it another kernel's counts more than what else is wrong, and that more than what may yet come.
                errors.sort_by_key(|error| match error {
                    LiveError::BuildIdDiffers { .. } | LiveError::WrongKernel { .. } => 0,
                    LiveError::EngineMissing => 2,
                    _ => 1,
                });
                return Err(errors.into_iter().next().map_or_else(|| damaged("is gone"), InstallError::Live));
            }
        };
        if candidate.sha256 == module.sha256 { Ok(candidate) } else { Err(damaged("is being written to")) }
    }

    fn locked(&self, act: impl FnOnce(&Locked) -> Result<(), InstallError>) -> Result<(), InstallError> {
        act(&self.store.lock()?)
    }

    fn patience(&self) -> Duration {
        PATIENCE.saturating_sub(self.start.elapsed())
    }
}

/// What an error makes of a livepatch.
fn of(code: Code) -> BootOutcome {
    match code {
        Code::BuildIdDiffers | Code::WrongKernel => BootOutcome::Skipped,
        Code::TransitionStalled | Code::Interrupted => BootOutcome::Left,
        _ => BootOutcome::Failed,
    }
}

#[cfg(test)]
mod tests;
