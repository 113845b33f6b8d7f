//! What can go wrong on the way, beside refusals.

use kmend_compile::CompileError;
use kmend_engine::EngineError;
use kmend_kernel::KernelError;
use kmend_link::LinkError;
use kmend_match::MatchError;
use kmend_object::ObjectError;
use kmend_refusal::{Code, Coded, Refusal};
use kmend_sign::SignError;
use kmend_store::StoreError;
use kmend_types::TypesError;
use std::io;
use std::path::PathBuf;

/// A failure that is no refusal of the patch.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The kernel's tree could not be prepared or a compiler could not be run.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The kernel's image or a module could not be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The cache could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The module could not be made.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The consistency engine could not be built for this kernel.
    #[error("the consistency engine: {0}")]
    Engine(#[from] EngineError),
    /// The module could not be signed, or not be read back for its manifest.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The audit could not read the module or an object.
    #[error("audit: {0}")]
    Audit(#[from] kmend_audit::Malformed),
    /// A unit of a module of a kernel that was imported without modules.
    #[error(
        "{unit} is part of the module {module}, and the kernel was imported without its modules: install them in \
         lib/modules of the system that the image or the headers lie in, then import it again"
    )]
    NoModules {
        /// The unit's source.
        unit: String,
        /// The module.
        module: String,
    },
    /// A compiled unit could not be matched.
    #[error("{unit}: {source}")]
    Match {
        /// The unit's source.
        unit: String,
        /// Why.
        source: MatchError,
    },
    /// A compiled unit could not be read.
    #[error("{unit}: {source}")]
    Object {
        /// The unit's source.
        unit: String,
        /// Why.
        source: ObjectError,
    },
    /// The types of a compiled unit could not be read.
    #[error("{unit}: {source}")]
    Types {
        /// The unit's source.
        unit: String,
        /// Why.
        source: TypesError,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BuildError {
    /// The refusals it carries, for errors that are several.
    pub(crate) fn refusals(&self) -> &[Refusal] {
        match self {
            BuildError::Link(error) => error.refusals(),
            BuildError::Engine(error) => error.refusals(),
            _ => &[],
        }
    }
}

impl Coded for BuildError {
    fn code(&self) -> Code {
        match self {
            BuildError::Compile(error) => error.code(),
            BuildError::Kernel(error) => error.code(),
            BuildError::Store(error) => error.code(),
            BuildError::Link(error) => error.code(),
            BuildError::Engine(error) => error.code(),
            BuildError::Sign(error) => error.code(),
            BuildError::NoModules { .. } => Code::ImportRefused,
            BuildError::Match { source, .. } => source.code(),
            BuildError::Object { source, .. } => source.code(),
            BuildError::Types { source, .. } => source.code(),
            BuildError::Audit(_) => Code::ObjectFormat,
            BuildError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::DiskFull,
            BuildError::Io { .. } => Code::Io,
        }
    }
}

/// Makes an [`io::Error`] into a [`BuildError`].
pub(crate) fn io_error(
    doing: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.into();
    move |source| BuildError::Io { doing, path, source }
}
