//! What a build leaves in the user's folder.

use crate::error::{BuildError, io_error};
use kmend_sign::Written;
use serde::Serialize;
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

/// Writes the module, its manifest and the report, all of them or none; says where.
pub(crate) fn publish(
    output: &Path,
    name: &str,
    report: &impl Serialize,
    made: Option<&Made>,
) -> Result<(Option<PathBuf>, PathBuf), BuildError> {
    fs::create_dir_all(output).map_err(io_error("create", output))?;
    let module = output.join(format!("livepatch-{name}.ko"));
    let json = output.join(format!("{name}.json"));
    let manifest = kmend_sign::beside(&module);
    let signature = kmend_sign::signature_of(&manifest);
    let mut text =
        serde_json::to_vec_pretty(report).map_err(std::io::Error::other).map_err(io_error("write", &json))?;
    text.push(b'\n');
    let mut files: Vec<(&Path, &[u8])> = vec![(&json, &text)];
    if let Some(made) = made {
        files.extend(made.signature.as_deref().map(|bytes| (signature.as_path(), bytes)));
        files.extend([(manifest.as_path(), made.manifest.as_slice()), (&module, &made.module)]);
    }
    // A full disk ends it here, and nothing has changed.
    let written =
        |&(path, bytes): &(&Path, &[u8])| Written::beside(path, bytes).map_err(io_error("write", path));
    let written = files.iter().map(written).collect::<Result<Vec<_>, _>>()?;
    // Files of an earlier build would be taken for the result of this one.
    for old in [&module, &signature, &manifest] {
        remove_if_there(old)?;
    }
    let mut placed: Vec<PathBuf> = Vec::new();
    for file in written {
        let path = file.path().to_owned();
        if let Err(error) = file.place() {
            for path in &placed {
                remove_if_there(path)?;
            }
            return Err(io_error("write", &path)(error));
        }
        placed.push(path);
    }
    Ok((made.map(|_| module), json))
}

fn remove_if_there(path: &Path) -> Result<(), BuildError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_whole_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let made = Made { module: b"new".to_vec(), manifest: b"new".to_vec(), signature: None };
        let module = folder.path().join("livepatch-x.ko");
        fs::write(&module, "old").unwrap();
        // The report cannot be written: something else has its name.
        fs::create_dir(folder.path().join("x.json")).unwrap();
        assert!(publish(folder.path(), "x", &"report", Some(&made)).is_err());
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(fs::read(&module).unwrap(), b"old");
        fs::remove_dir(folder.path().join("x.json")).unwrap();
        publish(folder.path(), "x", &"report", Some(&made)).unwrap();
        assert_eq!(fs::read(&module).unwrap(), b"new");
        publish(folder.path(), "x", &"report", None).unwrap();
        assert!(!module.exists() && !kmend_sign::beside(&module).exists());
    }
}
