//! Why a module could not be made.

use kmend_object::ObjectError;
use kmend_process::ProcessError;
use kmend_refusal::{Code, Coded, Refusal};
use std::io;
use std::path::PathBuf;

/// An error of the module step.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A file of the scratch folder could not be read or written.
    #[error("cannot write the module's files in {path}: {source}", path = path.display())]
    Scratch {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `make` could not be run or failed.
    #[error("the kernel's build system could not make the module: {0}")]
    Build(#[source] ProcessError),
    /// An object could not be read or written.
    #[error("{what}: {source}")]
    Object {
        /// Which object.
        what: &'static str,
        /// Why.
        source: ObjectError,
    },
    /// The module that came out of the build is not the one that went in.
    #[error("the linked module is inconsistent: {0}")]
    Inconsistent(String),
    /// objtool found fault with the patched code.
    #[error("objtool complains about {count} place(s) of the patched code", count = .0.len())]
    Objtool(Vec<Refusal>),
    /// Symbols of a module written by hand that the kernel does not have, or has more than once.
    #[error("{count} symbol(s) of the module cannot be resolved in this kernel", count = .0.len())]
    Symbols(Vec<Refusal>),
}

impl LinkError {
    /// The refusals it carries, for errors that are several.
    pub fn refusals(&self) -> &[Refusal] {
        match self {
            LinkError::Objtool(refusals) | LinkError::Symbols(refusals) => refusals,
            _ => &[],
        }
    }
}

impl Coded for LinkError {
    fn code(&self) -> Code {
        match self {
            LinkError::Scratch { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Code::DiskFull
            }
            LinkError::Scratch { .. } => Code::Io,
            LinkError::Build(ProcessError::Start { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Code::ToolMissing
            }
            LinkError::Build(_) => Code::ModuleStepFailed,
            LinkError::Object { .. } | LinkError::Inconsistent(_) => Code::LinkFailed,
            LinkError::Objtool(_) => Code::ObjtoolWarned,
            LinkError::Symbols(_) => Code::EngineSymbol,
        }
    }
}
