//! The consistency engine and its patches, as its own files show them (engine/show.c).

use crate::candidate::Candidate;
use crate::error::LiveError;
use crate::kernel_log::KernelLog;
use crate::load::Loaded;
use crate::patches::{LoadedPatch, PatchedFunction, PatchedObject, State};
use crate::system::{System, check_name, folders_in, read_flag, read_if_there};
use kmend_inspect::{ENGINE, Inspection};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// The folder with one folder for each of its patches.
const PATCHES: &str = "sys/kernel/kmend";
/// All patches in the order in which they were enabled.
const ORDER: &str = "proc/kmend/state";

/// The engine that is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Engine {
    /// How many hold its module.
    pub references: u64,
    /// The id of what it and its patches must agree on.
    pub interface: Option<String>,
    /// The consistency models that it has, the default first.
    pub models: Vec<String>,
    /// The ways in which it redirects callers, the default first.
    pub redirects: Vec<String>,
    /// Its patches, by name.
    pub patches: Vec<EnginePatch>,
}

/// A patch that is registered with the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnginePatch {
    /// The name of its module.
    pub name: String,
    /// Whether it is in force, or is coming into force.
    pub enabled: bool,
    /// Whether it is being switched.
    pub transition: bool,
    /// How it is switched.
    #[serde(flatten)]
    pub switching: Switching,
    /// Its functions.
    pub functions: Vec<EngineFunction>,
    /// The first tasks that hold the transition: PID, command and function.
    pub blocking: Vec<String>,
}

impl EnginePatch {
    /// What `enabled` and `transition` mean together.
    pub fn state(&self) -> State {
        State::of(self.enabled, self.transition)
    }
}

/// How the engine switches a patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Switching {
    /// The consistency model of the next or present transition.
    pub model: String,
    /// How callers are redirected.
    pub redirect: String,
    /// For how long the last transition held all CPUs, in nanoseconds.
    pub pause_ns: u64,
    /// How long the last transition took, in nanoseconds.
    pub switch_ns: u64,
    /// Why the last transition was reversed: 0, or a negative errno.
    pub error: i64,
}

impl From<EnginePatch> for LoadedPatch {
    fn from(patch: EnginePatch) -> LoadedPatch {
        let mut objects: BTreeMap<String, Vec<PatchedFunction>> = BTreeMap::new();
        for EngineFunction { object, name, state, .. } in patch.functions {
            let function = PatchedFunction { name, position: 1, state: Some(state) };
            objects.entry(object).or_default().push(function);
        }
        let object = |(name, functions): (String, Vec<PatchedFunction>)| {
            let absent = functions.iter().all(|function| function.state.as_deref() == Some("absent"));
            PatchedObject { name, patched: Some(!absent), functions }
        };
        LoadedPatch {
            name: patch.name,
            enabled: patch.enabled,
            transition: patch.transition,
            replace: None,
            objects: objects.into_iter().map(object).collect(),
            engine: Some(patch.switching),
        }
    }
}

/// A function of a patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineFunction {
    /// `vmlinux` or the module's name.
    pub object: String,
    /// The name of the function that is replaced.
    pub name: String,
    /// `absent`, `living`, `changing`, `patched`, or `covered` by a newer version.
    pub state: String,
    /// Whether callers reach it by a jump, without ftrace.
    pub jumps: bool,
}

impl System {
    /// The engine; `None` if it is not loaded.
    pub fn engine(&self) -> Result<Option<Engine>, LiveError> {
        let Some(references) = self.references(ENGINE)? else { return Ok(None) };
        let folder = self.path(PATCHES);
        let mut patches = Vec::new();
        for name in folders_in(&folder)? {
            patches.extend(patch(&folder, name)?);
        }
        let words = |file: &str| -> Result<Vec<String>, LiveError> {
            let text = read_if_there(&folder.join(file))?.unwrap_or_default();
            Ok(text.lines().map(str::to_owned).collect())
        };
        Ok(Some(Engine {
            references,
            interface: read_if_there(&self.module(ENGINE).join("version"))?,
            models: words("models")?,
            redirects: words("redirects")?,
            patches,
        }))
    }

    /// One of its patches; `None` if it is not there, or goes while it is looked at.
    pub(crate) fn engine_patch(&self, name: &str) -> Result<Option<EnginePatch>, LiveError> {
        patch(&self.path(PATCHES), name.to_owned())
    }

    /// The folder of one of its patches.
    pub(crate) fn engine_folder(&self, name: &str) -> std::path::PathBuf {
        self.path(PATCHES).join(name)
    }

    /// The places of its patches in the order in which they were enabled, counted from 1.
    pub(crate) fn engine_order(&self) -> BTreeMap<String, u32> {
        let text = read_if_there(&self.path(ORDER)).ok().flatten().unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let place = words.next()?.parse().ok()?;
            Some((words.next()?.to_owned(), place))
        };
        text.lines().filter_map(line).collect()
    }

    /// Why the engine cannot take a patch that is for it.
    pub(crate) fn engine_misfit(&self, module: &Inspection) -> Option<LiveError> {
        let wanted = module.engine.as_ref()?;
        match self.engine() {
            Err(error) => Some(error),
            Ok(None) => Some(LiveError::EngineMissing),
            Ok(Some(engine)) => {
                let (built_for, loaded) = (wanted.interface.clone()?, engine.interface?);
                let name = module.name.clone();
                (built_for != loaded).then_some(LiveError::EngineDiffers { name, built_for, loaded })
            }
        }
    }

    /// Checks a file that shall be loaded as the engine: all the reasons why it cannot be.
    pub fn check_engine(&self, path: &Path) -> Result<Candidate, Vec<LiveError>> {
        let mut candidate = Candidate::open(path)?;
        if !candidate.module.is_engine() {
            let why = "it is a livepatch, but not the consistency engine";
            return Err(vec![LiveError::NotALivepatch { what: path.display().to_string(), why }]);
        }
        let mut errors = self.misfits(&candidate.module);
        errors.extend(self.vouch(&mut candidate).err());
        if self.module(ENGINE).exists() {
            errors.push(LiveError::EngineLoaded);
        }
        if errors.is_empty() { Ok(candidate) } else { Err(errors) }
    }

    /// Loads the engine.
    pub fn load_engine(&self, engine: &Candidate) -> Result<Loaded, LiveError> {
        let (log, start) = (KernelLog::from_now(&self.path("dev/kmsg")), Instant::now());
        self.calls.insert(engine.bytes(), "").map_err(|errno| self.refused(ENGINE.into(), errno, &log))?;
        Ok(Loaded {
            name: ENGINE.into(),
            state: State::Enabled,
            time: start.elapsed(),
            signed_by: engine.signed_by.clone(),
            engine: None,
        })
    }

    /// Unloads the engine, which none of the patches may use. Tasks that it asked to switch and that sleep hold it for
    /// longer than its patches do, so that it is tried until the time is over.
    pub fn unload_engine(&self, timeout: Duration) -> Result<(), LiveError> {
        self.can_unload_engine()?;
        self.remove_module(ENGINE, timeout)
    }

    /// Checks that the engine is loaded and no patch uses it.
    pub fn can_unload_engine(&self) -> Result<(), LiveError> {
        let Some(engine) = self.engine()? else { return Err(LiveError::EngineMissing) };
        if engine.patches.is_empty() {
            return Ok(());
        }
        Err(LiveError::EngineBusy(engine.patches.into_iter().map(|patch| patch.name).collect()))
    }
}

/// One patch; `None` if it goes while it is read.
fn patch(folder: &Path, name: String) -> Result<Option<EnginePatch>, LiveError> {
    check_name(&name)?;
    let folder = folder.join(&name);
    let text = |file: &str| read_if_there(&folder.join(file)).map(Option::unwrap_or_default);
    let moves = || read_flag(&folder.join("transition")).map(Option::unwrap_or_default);
    // One that begins or ends meanwhile is not over: what `enabled` says would be of another moment.
    let before = moves()?;
    let Some(enabled) = read_flag(&folder.join("enabled"))? else { return Ok(None) };
    Ok(Some(EnginePatch {
        name,
        enabled,
        transition: moves()? || before,
        switching: Switching {
            model: text("model")?,
            redirect: text("redirect")?,
            pause_ns: text("pause_ns")?.parse().unwrap_or_default(),
            switch_ns: text("switch_ns")?.parse().unwrap_or_default(),
            error: text("error")?.parse().unwrap_or_default(),
        },
        functions: text("functions")?.lines().filter_map(function).collect(),
        blocking: text("blocking")?.lines().map(str::to_owned).collect(),
    }))
}

/// One line of `functions`: object, name, state, and `jump` if there is one.
fn function(line: &str) -> Option<EngineFunction> {
    let mut words = line.split(' ').map(str::to_owned);
    let (object, name, state) = (words.next()?, words.next()?, words.next()?);
    let jumps = words.next().as_deref() == Some("jump");
    Some(EngineFunction { object, name, state, jumps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    fn with_engine() -> Fake {
        let fake = Fake::new();
        fake.write("sys/module/kmend_engine/refcnt", "1\n");
        fake
    }

    fn with_patch() -> Fake {
        let fake = with_engine();
        for (file, text) in [
            ("enabled", "1\n"),
            ("transition", "1\n"),
            ("model", "hybrid\n"),
            ("redirect", "ftrace\n"),
            ("pause_ns", "0\n"),
            ("switch_ns", "1500\n"),
            ("error", "-110\n"),
            ("functions", "vmlinux do_it changing jump\next4 ext4_do absent\n"),
            ("blocking", "17 cat do_it\n"),
        ] {
            fake.write(&format!("sys/kernel/kmend/fix/{file}"), text);
        }
        fake
    }

    #[test]
    fn without_a_module_there_is_no_engine() {
        let system = Fake::new().system();
        assert_eq!(system.engine().unwrap(), None);
        assert!(matches!(system.unload_engine(Duration::ZERO), Err(LiveError::EngineMissing)));
    }

    #[test]
    fn a_patch_is_what_its_files_say() {
        let fake = with_patch();
        let engine = fake.system().engine().unwrap().unwrap();
        let patch = &engine.patches[0];
        assert_eq!((patch.name.as_str(), patch.enabled, patch.transition), ("fix", true, true));
        let switching = &patch.switching;
        assert_eq!((switching.model.as_str(), switching.switch_ns, switching.error), ("hybrid", 1500, -110));
        assert_eq!((patch.functions[0].jumps, patch.functions[1].jumps), (true, false));
        assert_eq!(patch.functions[1].state, "absent");
        assert_eq!(patch.blocking, ["17 cat do_it"]);
    }

    #[test]
    fn files_that_say_something_else_end_nothing() {
        let fake = with_patch();
        fake.write("sys/kernel/kmend/fix/functions", "\nalone\n\u{1b}[0m x y z\n");
        fake.write("sys/kernel/kmend/fix/pause_ns", "99999999999999999999999\n");
        let engine = fake.system().engine().unwrap().unwrap();
        assert_eq!(engine.patches[0].functions.len(), 1);
        assert_eq!(engine.patches[0].switching.pause_ns, 0);
        let patch = fake.system().patch("fix").unwrap().unwrap();
        assert_eq!((patch.objects.len(), patch.engine.unwrap().model.as_str()), (1, "hybrid"));
        fake.write("sys/kernel/kmend/fix/enabled", "maybe\n");
        assert!(matches!(fake.system().engine(), Err(LiveError::SysfsFormat { .. })));
    }

    #[test]
    fn the_engine_stays_while_patches_use_it() {
        let fake = with_patch();
        match fake.system().unload_engine(Duration::ZERO) {
            Err(LiveError::EngineBusy(names)) => assert_eq!(names, ["fix"]),
            other => panic!("{other:?}"),
        }
    }
}
