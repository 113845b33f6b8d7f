//! What a build leaves in the user's folder.

use crate::error::{BuildError, io_error};
use crate::report::Report;
use std::fs;
use std::path::{Path, PathBuf};

/// Makes sure that the module can be written.
pub(crate) fn check_output(output: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(output).map_err(io_error("create", output))?;
    tempfile::NamedTempFile::new_in(output).map(drop).map_err(io_error("write into", output))
}

/// What a build makes.
pub(crate) struct Made {
    /// The module, signed if somebody signs.
    pub(crate) module: Vec<u8>,
    /// The text of its manifest.
    pub(crate) manifest: Vec<u8>,
    /// The manifest's signature.
    pub(crate) signature: Option<Vec<u8>>,
}

/// Writes the module, its manifest and the report, each complete or not at all; says where.
pub(crate) fn publish(
    output: &Path,
    report: &Report,
    made: Option<&Made>,
) -> Result<(Option<PathBuf>, PathBuf), BuildError> {
    fs::create_dir_all(output).map_err(io_error("create", output))?;
    let module = output.join(format!("livepatch-{}.ko", report.name));
    let json = output.join(format!("{}.json", report.name));
    let manifest = kmend_sign::beside(&module);
    let signature = kmend_sign::signature_of(&manifest);
    // Files of an earlier build would be taken for the result of this one.
    for old in [&signature, &manifest] {
        remove_if_there(old)?;
    }
    match made {
        None => remove_if_there(&module)?,
        Some(made) => {
            write(&module, &made.module)?;
            write(&manifest, &made.manifest)?;
            if let Some(bytes) = &made.signature {
                write(&signature, bytes)?;
            }
        }
    }
    let mut text =
        serde_json::to_vec_pretty(report).map_err(std::io::Error::other).map_err(io_error("write", &json))?;
    text.push(b'\n');
    write(&json, &text)?;
    Ok((made.map(|_| module), json))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    kmend_sign::write_whole(path, bytes).map_err(io_error("write", path))
}

fn remove_if_there(path: &Path) -> Result<(), BuildError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}
