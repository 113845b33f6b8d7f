//! What can go wrong, and what is refused.

use kmend_process::ProcessError;
use kmend_refusal::{Code, Coded, Refusal};
use std::io;
use std::path::{Path, PathBuf};

/// Something failed on the way from a patch to objects.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A file could not be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// A verb: read, write, link.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A command failed whose words say why.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A program that is needed is not there.
    #[error("`{program}` is missing: install the Debian package {package}")]
    ToolMissing {
        /// The program.
        program: String,
        /// The Debian package that holds it.
        package: String,
    },
    /// The compiler is not the one that built the kernel.
    #[error("the kernel was built with `{wanted}`, but `{command}` is `{found}`")]
    CompilerDiffers {
        /// The compiler's command.
        command: String,
        /// The first line of `--version` of the compiler that built the kernel.
        wanted: String,
        /// The first line of `--version` of the compiler that is here.
        found: String,
    },
    /// The headers are not made from the kernel's configuration.
    #[error("{}", configurations_differ(headers, options))]
    ConfigurationsDiffer {
        /// The folder of the headers.
        headers: PathBuf,
        /// The names of the options that differ.
        options: Vec<String>,
    },
    /// The tree could not be prepared.
    #[error("{why}")]
    Prepare {
        /// Why.
        why: String,
    },
    /// The dry run printed no usable compile commands.
    #[error("{why}")]
    Database {
        /// Why.
        why: String,
    },
    /// The compiler read the unpatched copy of a patched file.
    #[error("while compiling {unit} the compiler read the unpatched {file}")]
    ShadowLeak {
        /// The unit's source.
        unit: String,
        /// The file.
        file: String,
    },
}

impl Coded for CompileError {
    fn code(&self) -> Code {
        match self {
            CompileError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::DiskFull,
            CompileError::Io { .. } => Code::Io,
            CompileError::Process(error) => error.code(),
            CompileError::ToolMissing { .. } => Code::ToolMissing,
            CompileError::CompilerDiffers { .. } => Code::CompilerDiffers,
            CompileError::ConfigurationsDiffer { .. } => Code::ImportRefused,
            CompileError::Prepare { .. } => Code::PrepareFailed,
            CompileError::Database { .. } => Code::DatabaseFailed,
            CompileError::ShadowLeak { .. } => Code::ShadowLeak,
        }
    }
}

/// How many of the differing options a message names.
const NAMED_OPTIONS: usize = 8;

fn configurations_differ(headers: &Path, options: &[String]) -> String {
    let named = options.iter().take(NAMED_OPTIONS).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match options.len().saturating_sub(NAMED_OPTIONS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let headers = headers.display();
    format!(
        "the headers in {headers} are not made from this configuration; these options differ: {named}{more}"
    )
}

/// Turns an I/O error into one that names the file.
pub(crate) fn io_error<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> CompileError + 'a {
    move |source| CompileError::Io { doing, path: path.to_owned(), source }
}

/// Why no objects were made.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The patch is declined; all the reasons that were found.
    #[error("{}", refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused {
        /// The reasons, never empty.
        refusals: Vec<Refusal>,
    },
    /// Something failed.
    #[error(transparent)]
    Failed(#[from] CompileError),
}
