//! What can go wrong with a virtual machine and in it.

use crate::console::Fault;
use kmend_kernel::KernelError;
use kmend_refusal::{Code, Coded};
use std::io;
use std::path::{Path, PathBuf};

/// Why a scenario was not run to its end. `tail` is the last lines of the guest's console.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A program of this machine is missing or cannot be used.
    #[error("`{program}` {why}; Debian's package {package} has it")]
    ToolMissing {
        /// The program.
        program: String,
        /// "is not in PATH", or what is wrong with it.
        why: String,
        /// The Debian package.
        package: &'static str,
    },
    /// A file of this machine could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A module could not be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A program for the guest is no program that can run there.
    #[error("cannot take {path} into the guest: {why}", path = path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The scenario contradicts itself.
    #[error("{0}")]
    Scenario(String),
    /// QEMU ended before the guest was up.
    #[error("the virtual machine did not boot: {why}\n{tail}")]
    Boot {
        /// QEMU's exit status or the fault.
        why: String,
        /// What the guest's kernel complained of, if it did.
        fault: Option<Fault>,
        /// The console's last lines, QEMU's own among them.
        tail: String,
    },
    /// The kernel complained: oops, WARN, lockup, hung task.
    #[error("{fault}, {during}\n{tail}", during = during(.step.as_ref()))]
    Fault {
        /// What.
        fault: Fault,
        /// The step that ran, if one did.
        step: Option<String>,
        /// The console's last lines.
        tail: String,
    },
    /// A step that must succeed did not.
    #[error("{step} failed with status {status}: {output}\n{tail}")]
    StepFailed {
        /// The step's name.
        step: String,
        /// Its exit status.
        status: i32,
        /// What it printed.
        output: String,
        /// The console's last lines.
        tail: String,
    },
    /// The guest broke off, or did not keep to the protocol.
    #[error("{why}, {during}\n{tail}", during = during(.step.as_ref()))]
    Protocol {
        /// What was missing, doubled or unexpected.
        why: String,
        /// The step that ran, if one did.
        step: Option<String>,
        /// The console's last lines.
        tail: String,
    },
    /// The guest was not done in time.
    #[error("no end after {seconds} s, {during}\n{tail}", during = during(.step.as_ref()))]
    Timeout {
        /// The limit, in seconds.
        seconds: u64,
        /// The step that ran, if one did.
        step: Option<String>,
        /// The console's last lines.
        tail: String,
    },
}

impl VmError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> VmError + '_ {
        move |source| VmError::Io { path: path.to_owned(), source }
    }
}

impl Coded for VmError {
    fn code(&self) -> Code {
        match self {
            VmError::ToolMissing { .. } => Code::ToolMissing,
            VmError::Io { .. } => Code::Io,
            VmError::Kernel(error) => error.code(),
            VmError::Program { .. } | VmError::Scenario(_) | VmError::Boot { .. } => Code::VmFailed,
            VmError::Fault { .. } | VmError::StepFailed { .. } | VmError::Protocol { .. } => {
                Code::ProofFailed
            }
            VmError::Timeout { .. } => Code::GuestTimeout,
        }
    }
}

/// When something happened, in words.
fn during(step: Option<&String>) -> String {
    match step {
        Some(step) => format!("during: {step}"),
        None => "outside of the steps".to_owned(),
    }
}
