//! The livepatches of every boot: which they are, which of them crashed the machine, and what was done.
//!
//! ```text
//! /var/lib/kmend/
//!   lock                     an empty file to hold `flock` on: who writes anything here holds it
//!   loading.json             the loads that are under way or young: the crash memory
//!   history.jsonl            what was done, a line each; history.1.jsonl has what was before
//!   RELEASE/                 for one kernel
//!     installed.json         what is loaded when it boots, in order: the truth
//!     SHA256.ko              the modules that it names
//! ```
//!
//! A module is written under the name of its contents, flushed and read back, before the manifest that names it is renamed
//! into place. Whatever kills the process or the machine, the next boot finds the old manifest or the new one, with all the
//! files that it names; at most a file is left that nothing names, and the next change sweeps it.
//!
//! Architecture invariant: the manifest is the truth; no file counts because it is there. Before a livepatch is loaded at
//! boot, the crash memory says so on the disk. Everything is opened relative to the folder above it, no symbolic link is
//! followed, and a folder or file that others than its owner can write is refused.

mod boot;
mod crash;
mod engine;
mod error;
mod folder;
mod history;
mod install;
mod manifest;
mod overview;
mod recorder;
mod settle;
mod store;

pub use boot::{Boot, BootOutcome, BootedPatch};
pub use crash::Held;
pub use error::InstallError;
pub use history::{Event, History, Outcome, Record};
pub use install::{InstalledPatch, Installs, Reasons};
pub use manifest::Module;
pub use overview::{Overview, Place};
pub use recorder::Recorder;
pub use settle::Settled;
pub use store::Store;
