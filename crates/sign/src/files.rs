//! Reading what is signed, and writing what is made: each file whole or not at all.

use crate::certificate::CertificateFacts;
use crate::error::SignError;
use crate::finding::{SignatureFinding, of_module};
use crate::hash::Hash;
use crate::manifest::{Manifest, beside, signature_of};
use crate::signer::Signer;
use kmend_inspect::{InspectError, Inspection};
use kmend_kernel::{KernelError, LARGEST_MODULE, Module, Packing, read_file};
use serde::{Serialize, Serializer};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The largest manifest and the largest patch, in bytes.
pub(crate) const LARGEST_TEXT: u64 = 16 << 20;
/// The largest key or certificate: one of an 8192 bit key has 7 KiB in PEM.
const LARGEST_SMALL: u64 = 64 << 10;

/// What was signed.
#[derive(Debug, Clone, Serialize)]
pub struct Signed {
    /// The signed module's file.
    #[serde(serialize_with = "shown")]
    pub module: PathBuf,
    /// The module's manifest and the file of its signature, if there is a manifest.
    #[serde(serialize_with = "both_shown")]
    pub manifest: Option<[PathBuf; 2]>,
    /// Whose key signed.
    pub certificate: CertificateFacts,
    /// The hash that was signed.
    pub hash: Hash,
    /// The signature that the module had before.
    pub replaced: Option<SignatureFinding>,
    /// What the signer should know.
    pub notes: Vec<String>,
}

/// A path as it is shown: JSON cannot hold bytes that are not UTF-8, and serde fails at them.
pub(crate) fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn both_shown<S: Serializer>(paths: &Option<[PathBuf; 2]>, serializer: S) -> Result<S::Ok, S::Error> {
    paths.as_ref().map(|paths| paths.each_ref().map(|path| path.display().to_string())).serialize(serializer)
}

/// Signs a livepatch's file, in its place or to another, and its manifest if one lies beside it. Nothing is written in a
/// `dry_run`.
pub fn sign_file(
    path: &Path,
    output: Option<&Path>,
    signer: &Signer,
    dry_run: bool,
) -> Result<Signed, SignError> {
    let output = output.unwrap_or(path);
    let bytes = read(path, LARGEST_MODULE)?;
    if Packing::detect(&bytes).is_some() {
        return Err(SignError::Packed(path.into()));
    }
    let inspection = inspect(path, &bytes)?;
    let signed = signer.sign_module(&bytes)?;
    let manifest = beside(path);
    let stated = read_if_there(&manifest)?;
    if let Some(stated) = &stated {
        // A signature under another module's manifest would vouch for what nobody looked at.
        let facts = Manifest::parse(&manifest, stated)?.compare(&inspection, crate::unsigned(&bytes)?, &[]);
        crate::facts::require_equal(&manifest, &facts)?;
    }
    let message = stated.as_deref().map(|stated| signer.sign(stated)).transpose()?;
    let target = beside(output);
    let manifest = stated.as_ref().map(|_| [target.clone(), signature_of(&target)]);
    if !dry_run {
        write_whole(output, &signed).map_err(SignError::io("write", output))?;
        if let (Some(stated), Some(message), Some([manifest, signature])) = (&stated, &message, &manifest) {
            write_whole(manifest, stated).map_err(SignError::io("write", manifest))?;
            write_whole(signature, message).map_err(SignError::io("write", signature))?;
        }
    }
    Ok(Signed {
        module: output.into(),
        manifest,
        certificate: signer.facts(),
        hash: signer.hash(),
        replaced: of_module(&bytes, &[]),
        notes: signer.notes(),
    })
}

/// Writes a file that others see whole or not at all, even after a loss of power. It can be read by all. What is there and is no
/// file, such as a pipe or `/dev/null`, is not replaced by one.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = Written::beside(path, bytes)?;
    written.place()
}

/// A file that is written whole, and has not got its name yet. It goes when it is dropped.
#[derive(Debug)]
pub struct Written {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

impl Written {
    /// Writes the bytes beside where they shall be, as [`write_whole`] does.
    ///
    /// # Errors
    /// The folder cannot be written to, or is full, or `path` is there and is no file.
    pub fn beside(path: &Path, bytes: &[u8]) -> io::Result<Written> {
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(io::Error::other("what is there is no file"));
        }
        let mut file = tempfile::NamedTempFile::new_in(folder_of(path))?;
        file.write_all(bytes)?;
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        Ok(Written { file, path: path.to_owned() })
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn place(self) -> io::Result<()> {
        self.file.persist(&self.path).map_err(|error| error.error)?;
        File::open(folder_of(&self.path))?.sync_all()
    }

    /// The name that it shall have.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A module's bytes, unpacked: these are what a signature is about.
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>, SignError> {
    let bytes = read(path, LARGEST_MODULE)?;
    match Packing::detect(&bytes) {
        None => Ok(bytes),
        Some(packing) => packing
            .unpack(&bytes)
            .map_err(|why| InspectError::from(KernelError::Module(why).in_file(path)).into()),
    }
}

/// What a livepatch module says of itself.
pub(crate) fn inspect(path: &Path, bytes: &[u8]) -> Result<Inspection, SignError> {
    let module = Module::parse(bytes).map_err(|error| InspectError::from(error.in_file(path)))?;
    Ok(kmend_inspect::read(path, &module)?)
}

/// A key, a certificate or a text of a user.
pub(crate) fn read_small(path: &Path) -> Result<Vec<u8>, SignError> {
    read(path, LARGEST_SMALL)
}

/// A file of a limited size; none if there is none.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, SignError> {
    match read(path, LARGEST_TEXT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(SignError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, SignError> {
    read_file(path, most).map_err(SignError::io("read", path))
}
