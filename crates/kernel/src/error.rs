//! Why a kernel image or a module could not be read.

use kmend_refusal::{Code, Coded};
use std::io;
use std::path::PathBuf;

/// An error of this crate. The texts name the part that is at fault; the file's path is added by the
/// functions that open files.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An error in a file whose path is known.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KernelError>,
    },
    /// Neither a bzImage nor an ELF vmlinux, or a damaged one.
    #[error("not a readable kernel image: {0}")]
    Image(String),
    /// The image holds no symbol table.
    #[error("no kallsyms in the image: {0}")]
    KallsymsNotFound(String),
    /// `.BTF` is damaged.
    #[error("damaged type information (BTF): {0}")]
    Btf(String),
    /// Not a module, or a damaged one.
    #[error("not a readable kernel module: {0}")]
    Module(String),
    /// A tree of modules lacks one that is needed.
    #[error("no module `{name}` below {tree}", tree = tree.display())]
    ModuleMissing {
        /// The module's name, with `_`.
        name: String,
        /// The tree's root.
        tree: PathBuf,
    },
    /// A file for another machine.
    #[error("built for {0}, not for x86-64")]
    Architecture(String),
}

impl KernelError {
    /// The same error with the path of the file it was met in.
    #[must_use]
    pub fn in_file(self, path: impl Into<PathBuf>) -> KernelError {
        match self {
            KernelError::Io { .. } | KernelError::File { .. } | KernelError::ModuleMissing { .. } => self,
            source => KernelError::File { path: path.into(), source: Box::new(source) },
        }
    }
}

impl Coded for KernelError {
    fn code(&self) -> Code {
        match self {
            KernelError::Io { .. } => Code::Io,
            KernelError::File { source, .. } => source.code(),
            KernelError::Image(_) => Code::ImageFormat,
            KernelError::KallsymsNotFound(_) => Code::KallsymsNotFound,
            KernelError::Btf(_) => Code::BtfFormat,
            KernelError::Module(_) => Code::ModuleFormat,
            KernelError::ModuleMissing { .. } => Code::CacheDamaged,
            KernelError::Architecture(_) => Code::Architecture,
        }
    }
}
