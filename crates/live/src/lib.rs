//! The running system's livepatches: load, wait, unload, list, and say what holds a transition.
//!
//! Everything is read below a root folder, `/` for the running system, so that the tests look at trees of
//! their own. The system calls that change something, and only they, go through `ModuleCalls`.
//!
//! The interface is Linux's, Documentation/ABI/testing/sysfs-kernel-livepatch, since Linux 5.1; a file that
//! a kernel does not have yet (`patched` came with 6.1, `replace` with 6.11) is `None`.
//!
//! Architecture invariant: nothing here knows how a livepatch was built.

mod candidate;
mod change;
mod engine;
mod error;
mod facts;
mod journal;
mod kernel_log;
mod load;
mod metrics;
mod modules;
mod parameters;
mod patches;
mod refused;
mod status;
mod switch;
mod system;
mod taint;
mod tasks;
mod transition;
mod trust;
mod unload;

pub use candidate::{Candidate, OVERRIDABLE, conflicts_in_order};
pub use change::{Signaller, Waited};
pub use engine::{Engine, EngineFunction, EnginePatch, Switching};
pub use error::LiveError;
pub use journal::{Event, Priority};
/// The name of the consistency engine's module.
pub use kmend_inspect::ENGINE;
pub use load::{Late, LoadOptions, Loaded};
pub use parameters::Parameter;
pub use patches::{LoadedPatch, PatchedFunction, PatchedObject, State};
pub use status::{
    Effective, EngineStatus, FunctionStatus, KernelStatus, NotInForce, PatchStatus, RestStatus, Since, Status,
};
pub use switch::Switch;
pub use system::{System, check_name};
pub use taint::{Taint, TaintFlag};
pub use tasks::Blocker;
pub use transition::{Decision, Waiting, Watch};
pub use unload::Rest;

#[cfg(any(test, feature = "fake"))]
#[allow(clippy::missing_panics_doc, clippy::new_without_default, reason = "a test ends with a panic")]
pub mod fake;
