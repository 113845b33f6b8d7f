//! What a build leaves in the user's folder.

use crate::error::{BuildError, io_error};
use crate::report::Report;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Makes sure that the module can be written.
pub(crate) fn check_output(output: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(output).map_err(io_error("create", output))?;
    tempfile::NamedTempFile::new_in(output).map(drop).map_err(io_error("write into", output))
}

/// Writes the module and the report, each complete or not at all; says where.
pub(crate) fn publish(
    output: &Path,
    report: &Report,
    module: Option<&[u8]>,
) -> Result<(Option<PathBuf>, PathBuf), BuildError> {
    fs::create_dir_all(output).map_err(io_error("create", output))?;
    let file = output.join(format!("livepatch-{}.ko", report.name));
    let json = output.join(format!("{}.json", report.name));
    match module {
        Some(bytes) => write_whole(&file, bytes)?,
        // A module of an earlier build would be taken for the result of this one.
        None => remove_if_there(&file)?,
    }
    let mut text =
        serde_json::to_vec_pretty(report).map_err(std::io::Error::other).map_err(io_error("write", &json))?;
    text.push(b'\n');
    write_whole(&json, &text)?;
    Ok((module.map(|_| file), json))
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io_error("write", path))?;
    std::io::Write::write_all(&mut file, bytes).map_err(io_error("write", path))?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(io_error("write", path))?;
    file.persist(path).map_err(|error| io_error("write", path)(error.error))?;
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), BuildError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}
