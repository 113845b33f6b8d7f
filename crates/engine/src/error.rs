//! Why something could not be done with the engine.

use kmend_kernel::KernelError;
use kmend_link::LinkError;
use kmend_refusal::{Code, Coded, Refusal};
use kmend_store::StoreError;
use std::io;
use std::path::{Path, PathBuf};

/// An error of the engine's making or use.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel's image cannot be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The module could not be made.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The cache could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl EngineError {
    /// An error at a file.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> EngineError {
        let path = path.to_owned();
        move |source| EngineError::Io { path, source }
    }

    /// The refusals it carries, for errors that are several.
    pub fn refusals(&self) -> &[Refusal] {
        match self {
            EngineError::Link(error) => error.refusals(),
            _ => &[],
        }
    }
}

impl Coded for EngineError {
    fn code(&self) -> Code {
        match self {
            EngineError::Kernel(error) => error.code(),
            EngineError::Link(error) => error.code(),
            EngineError::Store(error) => error.code(),
            EngineError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::DiskFull,
            EngineError::Io { .. } => Code::Io,
        }
    }
}
