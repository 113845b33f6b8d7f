//! Whether somebody who is trusted vouches for a livepatch, by its signature or by its manifest's.

use crate::appended::unsigned;
use crate::certificate::Certificate;
use crate::error::SignError;
use crate::facts::{Fact, require_equal};
use crate::files::{LARGEST_TEXT, inspect, read, read_if_there, read_module, shown};
use crate::finding::{SignatureFinding, Verdict, of_content, of_module};
use crate::hash::sha256;
use crate::manifest::{Manifest, beside, signature_of};
use crate::trust::{FOLDER, Trust};
use kmend_kernel::Packing;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What to verify.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The module's file, packed or not.
    pub module: &'a Path,
    /// Its manifest; the one beside it, if there is one, if `None`.
    pub manifest: Option<&'a Path>,
    /// Whom to trust.
    pub trust: Option<&'a Trust>,
    /// The files of the patches that the manifest should name.
    pub patches: &'a [PathBuf],
}

/// What was found of a livepatch.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// The module's name.
    pub name: String,
    /// SHA-256 of its bytes without a signature, in hexadecimal.
    pub sha256: String,
    /// The signature that is appended to it.
    pub signature: Option<SignatureFinding>,
    /// Its manifest.
    pub manifest: Option<ManifestFinding>,
    /// Why it is not verified; empty if it is.
    #[serde(skip)]
    pub errors: Vec<SignError>,
}

/// What was found of a manifest.
#[derive(Debug, Serialize)]
pub struct ManifestFinding {
    /// Its file.
    #[serde(serialize_with = "shown")]
    pub path: PathBuf,
    /// Its signature.
    pub signature: Option<SignatureFinding>,
    /// Each thing that it states.
    pub facts: Vec<Fact>,
}

/// Verifies a livepatch: whatever of module signature, manifest and manifest signature is there must be right, and at least one of
/// the signatures must be by a trusted certificate.
pub fn verify(wanted: &Wanted<'_>) -> Result<Verification, SignError> {
    let bytes = read_module(wanted.module)?;
    let module = inspect(wanted.module, &bytes)?;
    let certificates = wanted.trust.map_or(&[][..], Trust::certificates);
    let signature = of_module(&bytes, certificates);
    // A signature that cannot be taken off is part of what is wrong, not a reason to stop looking.
    let contents = unsigned(&bytes).unwrap_or(&bytes);
    let mut errors = Vec::new();
    if wanted.trust.is_none() {
        errors.push(SignError::NoCertificate(FOLDER.into()));
    }
    errors.extend(signature.as_ref().and_then(|signature| signature.error("the module's signature")));
    let manifest = read_manifest(wanted)?;
    let manifest = match manifest {
        None => None,
        Some((path, text)) => {
            let patches =
                wanted.patches.iter().map(|path| read_patch(path)).collect::<Result<Vec<_>, _>>()?;
            let facts = Manifest::parse(&path, &text)?.compare(&module, contents, &patches);
            errors.extend(require_equal(&path, &facts).err());
            let signature = manifest_signature(&path, &text, certificates)?;
            errors
                .extend(signature.as_ref().and_then(|signature| signature.error("the manifest's signature")));
            Some(ManifestFinding { path, signature, facts })
        }
    };
    let of_manifest = manifest.as_ref().and_then(|manifest| manifest.signature.as_ref());
    let vouched = [signature.as_ref(), of_manifest];
    if vouched.iter().all(Option::is_none) {
        errors.push(SignError::Unsigned { what: module.name.clone(), policy: String::new() });
    }
    Ok(Verification { name: module.name, sha256: sha256(contents), signature, manifest, errors })
}

/// The signature of a module in a file, packed or not; `None` if it has none.
pub fn of_file(path: &Path, certificates: &[Certificate]) -> Result<Option<SignatureFinding>, SignError> {
    Ok(of_module(&read_module(path)?, certificates))
}

impl Verification {
    /// Whether somebody who is trusted vouches for it, and nothing speaks against it.
    pub fn is_verified(&self) -> bool {
        let manifest = self.manifest.as_ref().and_then(|manifest| manifest.signature.as_ref());
        let valid = |signature: &SignatureFinding| signature.verdict == Verdict::Valid;
        self.errors.is_empty() && [self.signature.as_ref(), manifest].into_iter().flatten().any(valid)
    }
}

fn read_manifest(wanted: &Wanted<'_>) -> Result<Option<(PathBuf, Vec<u8>)>, SignError> {
    if let Some(path) = wanted.manifest {
        return Ok(Some((path.into(), read(path, LARGEST_TEXT)?)));
    }
    let path = beside(wanted.module);
    Ok(read_if_there(&path)?.map(|text| (path, text)))
}

fn manifest_signature(
    manifest: &Path,
    text: &[u8],
    certificates: &[Certificate],
) -> Result<Option<SignatureFinding>, SignError> {
    let message = read_if_there(&signature_of(manifest))?;
    Ok(message.map(|message| of_content(text, &message, certificates, "the manifest's signature")))
}

fn read_patch(path: &Path) -> Result<(String, Vec<u8>), SignError> {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let bytes = read(path, LARGEST_TEXT)?;
    // The manifest is of what was applied, whatever the file was packed in.
    let Some(packing) = Packing::detect(&bytes) else { return Ok((name.into_owned(), bytes)) };
    let stem = name.rsplit_once('.').map_or(name.as_ref(), |(stem, _)| stem).to_owned();
    let unpacked = packing.unpack(&bytes);
    Ok((stem, unpacked.unwrap_or(bytes)))
}
