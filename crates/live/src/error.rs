//! Why a livepatch could not be loaded, unloaded or looked at.

use crate::patches::State;
use crate::tasks::Blocker;
use kmend_kernel::KernelError;
use kmend_refusal::{Code, Coded};
use kmend_sign::SignError;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

/// Blockers that a message names; all are in the value.
const NAMED_BLOCKERS: usize = 8;

/// What went wrong on the running system.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The module's file could not be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Nobody who is trusted vouches for it, or that cannot be found out.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The right to do it is missing.
    #[error("{0} needs root")]
    NotRoot(String),
    /// The kernel has no livepatches at all.
    #[error("{path} does not exist", path = .0.display())]
    NoLivepatch(PathBuf),
    /// No name of a module.
    #[error("`{0}` is not the name of a module")]
    Name(String),
    /// A module, but no livepatch; or one that must be unpacked first.
    #[error("{what}: {why}")]
    NotALivepatch {
        /// The file or module.
        what: String,
        /// Why.
        why: &'static str,
    },
    /// For a kernel other than the running one.
    #[error("{name} is for {built_for}, but {running} is running")]
    WrongKernel {
        /// The module.
        name: String,
        /// The release in its `vermagic`.
        built_for: String,
        /// `uname -r`.
        running: String,
    },
    /// The consistency engine is not there.
    #[error("the consistency engine is not loaded")]
    EngineMissing,
    /// The consistency engine is there.
    #[error("the consistency engine is loaded")]
    EngineLoaded,
    /// Patches use the consistency engine.
    #[error("patches use the consistency engine: {}", .0.join(", "))]
    EngineBusy(Vec<String>),
    /// A patch for another build of the consistency engine.
    #[error("{name} is for the engine interface {built_for}, but {loaded} is loaded")]
    EngineDiffers {
        /// The module.
        name: String,
        /// The id that the module names.
        built_for: String,
        /// That of the engine.
        loaded: String,
    },
    /// A livepatch for the kernel, where one for the consistency engine is asked for.
    #[error("{0} is for the kernel's own livepatch, which has one model and one redirect")]
    NotForEngine(String),
    /// Something the consistency engine does not have.
    #[error("the consistency engine has no {what} `{name}`: it has {}", .known.join(", "))]
    NoSuchModel {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The kernel's livepatch and the engine cannot patch the same function.
    #[error(
        "{name} is for {}, and {other}, which is not, patches {}",
        if *engine { "the consistency engine" } else { "the kernel's own livepatch" },
        .functions.join(", ")
    )]
    RedirectedByOther {
        /// The livepatch to load.
        name: String,
        /// The one that is loaded.
        other: String,
        /// The functions that both patch.
        functions: Vec<String>,
        /// Whether the one to load is for the engine.
        engine: bool,
    },
    /// Something is to happen when nothing runs the old code, and the model does not wait for that.
    #[error(
        "{name} exchanges data or has a post_patch callback, and {model} does not wait until nothing runs the old code"
    )]
    ModelTooWeak {
        /// The livepatch.
        name: String,
        /// The model.
        model: &'static str,
    },
    /// Functions that ftrace does not know are switched in few ways.
    #[error("{name} patches {}, which ftrace does not know: only {what} {} can switch that", .functions.join(", "), .fit.join(" or "))]
    NoStop {
        /// The livepatch.
        name: String,
        /// Those functions.
        functions: Vec<String>,
        /// What was asked for.
        what: &'static str,
        /// What does.
        fit: Vec<String>,
    },
    /// It makes sense for the kernel's own livepatch alone.
    #[error("{name} is switched by the consistency engine, which {what}: {instead}")]
    NotInEngine {
        /// The livepatch.
        name: String,
        /// Why it makes no sense.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// It is loaded and enabled.
    #[error("{0} is loaded")]
    AlreadyLoaded(String),
    /// It is not there.
    #[error("{0} is not loaded")]
    NotLoaded(String),
    /// A transition is under way, of this livepatch or of another.
    #[error("{name} must wait: {other} is in transition")]
    TransitionBusy {
        /// The livepatch that was asked for.
        name: String,
        /// The livepatch in transition.
        other: String,
    },
    /// The kernel said no.
    #[error("{name}: {why} ({errno}){log}", log = lines(.log))]
    KernelRefused {
        /// The module.
        name: String,
        /// What the errno means here.
        why: &'static str,
        /// The errno in words.
        errno: io::Error,
        /// The kernel's own lines about it.
        log: Vec<String>,
    },
    /// The kernel said no because of the signature.
    #[error("{name}: {why} ({errno}){log}", log = lines(.log))]
    SignatureRejected {
        /// The module.
        name: String,
        /// What the errno means here.
        why: String,
        /// The errno in words.
        errno: io::Error,
        /// The kernel's own lines about it.
        log: Vec<String>,
    },
    /// The livepatch is disabled, but something holds its module.
    #[error(
        "{name} is disabled, but its module is still in use ({references} references): was its transition forced?"
    )]
    ModuleHeld {
        /// The module.
        name: String,
        /// Its reference count.
        references: u64,
    },
    /// A livepatch of that name was disabled, and holds its module.
    #[error(
        "a disabled livepatch {name} stays in memory{}",
        by.as_ref().map(|by| format!(": {by} may still be in use")).unwrap_or_default()
    )]
    StaysInMemory {
        /// The module.
        name: String,
        /// What of it may be in use, in its own words.
        by: Option<String>,
    },
    /// Tasks stay in the old state.
    #[error("{name}: the transition is not over after {seconds} s{tasks}", tasks = task_lines(.blockers))]
    TransitionStalled {
        /// The livepatch.
        name: String,
        /// How long it was awaited, in seconds.
        seconds: u64,
        /// The tasks that hold it, as far as they can be seen.
        blockers: Vec<Blocker>,
    },
    /// Tasks stayed in the old state, and the transition was turned around.
    #[error(
        "{name}: the transition was not over after {seconds} s and was reversed: it is {} again{tasks}",
        match (*state, *stays) {
            (State::Enabled, _) => "enabled",
            (_, false) => "unloaded",
            (_, true) => "disabled, and stays in memory,",
        },
        tasks = task_lines(.blockers)
    )]
    Reversed {
        /// The livepatch.
        name: String,
        /// How long the transition was awaited, in seconds.
        seconds: u64,
        /// What it is now: enabled, or disabled and unloaded.
        state: State,
        /// Whether its module stays in memory, because tasks have run its code and something of it may be in use.
        stays: bool,
        /// The tasks that held it before it was reversed.
        blockers: Vec<Blocker>,
    },
    /// Whoever waited for a transition went away.
    #[error("{name} is left as it is: {}", state.name())]
    Interrupted {
        /// The livepatch.
        name: String,
        /// Its state at that moment.
        state: State,
    },
    /// The same release, built another time.
    #[error("{name} is for the build {built_for}, but {running} is running")]
    BuildIdDiffers {
        /// The module.
        name: String,
        /// The build id that the module names.
        built_for: String,
        /// That of the kernel that runs.
        running: String,
    },
    /// The same function is patched twice, and neither livepatch knows of the other's change.
    #[error("{name} would undo what {other} does to {}", .functions.join(", "))]
    Conflict {
        /// The livepatch to load.
        name: String,
        /// The one that is loaded.
        other: String,
        /// The functions that both patch.
        functions: Vec<String>,
    },
    /// `kernel.ftrace_enabled` is 0.
    #[error("{0} redirects functions by ftrace, and kernel.ftrace_enabled is 0")]
    FtraceOff(String),
    /// Only signed modules are taken.
    #[error("{name} is not signed, and {why}")]
    Unsigned {
        /// The module.
        name: String,
        /// What demands a signature.
        why: String,
    },
    /// It is not in a state from which the kernel enables it.
    #[error("{name} is {state}")]
    CannotEnable {
        /// The livepatch.
        name: String,
        /// What it is.
        state: &'static str,
    },
    /// A process that is not to be stopped and continued, or was not.
    #[error("process {pid}: {why}")]
    NotSignalled {
        /// The process.
        pid: u32,
        /// Why.
        why: &'static str,
    },
    /// There is nothing to wait for, to signal or to force.
    #[error("{}", .0.as_ref().map_or("nothing is in transition".to_owned(), |name| format!("{name} is in no transition")))]
    NoTransition(Option<String>),
    /// An atomic replace is asked for.
    #[error("{name} {why}")]
    DoesNotReplace {
        /// The module.
        name: String,
        /// What its file says.
        why: &'static str,
    },
    /// The kernel would ignore it.
    #[error("{name} has no parameter `{parameter}`: {}", parameters(.declared))]
    NoSuchParameter {
        /// The module.
        name: String,
        /// The parameter's name.
        parameter: String,
        /// The names of those that it has.
        declared: Vec<String>,
    },
    /// A file in sysfs or procfs holds something else than the kernel writes.
    #[error("{path} holds `{found}`", path = path.display())]
    SysfsFormat {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
}

impl LiveError {
    /// An error at a file; a missing right is told apart.
    pub(crate) fn at(path: &Path, source: io::Error) -> LiveError {
        if source.kind() == io::ErrorKind::PermissionDenied {
            LiveError::NotRoot(path.display().to_string())
        } else {
            LiveError::Io { path: path.to_owned(), source }
        }
    }
}

impl Coded for LiveError {
    fn code(&self) -> Code {
        match self {
            LiveError::Io { .. } => Code::Io,
            LiveError::Kernel(error) => error.code(),
            LiveError::Sign(error) => error.code(),
            LiveError::SignatureRejected { .. } => Code::SignatureRejected,
            LiveError::NotRoot(_) => Code::NotRoot,
            LiveError::EngineMissing => Code::EngineMissing,
            LiveError::EngineLoaded => Code::EngineLoaded,
            LiveError::EngineBusy(_) => Code::EngineBusy,
            LiveError::EngineDiffers { .. } => Code::EngineDiffers,
            LiveError::NotForEngine(_) => Code::NotForEngine,
            LiveError::NoSuchModel { .. } => Code::NoSuchModel,
            LiveError::RedirectedByOther { .. } => Code::RedirectedByOther,
            LiveError::ModelTooWeak { .. } => Code::ModelTooWeak,
            LiveError::NoStop { .. } => Code::NoStop,
            LiveError::NotInEngine { .. } => Code::NotInEngine,
            LiveError::NoLivepatch(_) => Code::NoLivepatch,
            LiveError::Name(_) => Code::Usage,
            LiveError::NotALivepatch { .. } => Code::NotALivepatch,
            LiveError::WrongKernel { .. } => Code::WrongKernel,
            LiveError::AlreadyLoaded(_) => Code::AlreadyLoaded,
            LiveError::NotLoaded(_) => Code::NotLoaded,
            LiveError::TransitionBusy { .. } => Code::TransitionBusy,
            LiveError::KernelRefused { .. } | LiveError::ModuleHeld { .. } => Code::KernelRefused,
            LiveError::StaysInMemory { .. } => Code::StaysInMemory,
            LiveError::TransitionStalled { .. } => Code::TransitionStalled,
            LiveError::Reversed { .. } => Code::TransitionReversed,
            LiveError::Interrupted { .. } => Code::Interrupted,
            LiveError::BuildIdDiffers { .. } => Code::BuildIdDiffers,
            LiveError::Conflict { .. } => Code::FunctionConflict,
            LiveError::FtraceOff(_) => Code::FtraceOff,
            LiveError::Unsigned { .. } => Code::SignatureNeeded,
            LiveError::CannotEnable { .. } => Code::CannotEnable,
            LiveError::NotSignalled { .. } => Code::NotSignalled,
            LiveError::NoTransition(_) => Code::NoTransition,
            LiveError::DoesNotReplace { .. } => Code::DoesNotReplace,
            LiveError::NoSuchParameter { .. } => Code::NoSuchParameter,
            LiveError::SysfsFormat { .. } => Code::SysfsFormat,
        }
    }
}

fn parameters(declared: &[String]) -> String {
    if declared.is_empty() { "it has none".into() } else { format!("it has {}", declared.join(", ")) }
}

fn lines(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |text, line| format!("{text}\n  {line}"))
}

fn task_lines(blockers: &[Blocker]) -> String {
    let mut text = String::new();
    for blocker in blockers.iter().take(NAMED_BLOCKERS) {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {blocker}");
    }
    if blockers.len() > NAMED_BLOCKERS {
        let _ = write!(text, "\n  and {} more", blockers.len() - NAMED_BLOCKERS);
    }
    text
}
