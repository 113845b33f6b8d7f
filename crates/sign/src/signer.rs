//! Whoever signs: a private key and its certificate.

use crate::appended::{append, unsigned};
use crate::certificate::{Certificate, CertificateFacts};
use crate::error::SignError;
use crate::files::read_small;
use crate::hash::Hash;
use crate::key::PrivateKey;
use crate::message;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Where a key and its certificate are, and how to sign with them.
pub struct KeyFiles {
    /// The private key, in PEM.
    pub key: PathBuf,
    /// Its certificate, in PEM or DER.
    pub certificate: PathBuf,
    /// The passphrase of an encrypted key.
    pub passphrase: Option<Zeroizing<String>>,
    /// The hash to sign.
    pub hash: Hash,
}

/// A key and its certificate, which belong together.
pub struct Signer {
    key: PrivateKey,
    certificate: Certificate,
    hash: Hash,
}

impl Signer {
    /// Reads a key and a certificate and checks that one can sign with them now; else all the reasons why not.
    pub fn open(files: &KeyFiles) -> Result<Signer, Vec<SignError>> {
        let mut errors = Vec::new();
        let mut keep = |error| errors.push(error);
        let key = read_key(&files.key, files.passphrase.as_ref()).map_err(&mut keep).ok();
        let certificate = Certificate::open(&files.certificate).map_err(&mut keep).ok();
        if let Some(certificate) = &certificate {
            let path = files.certificate.clone();
            if let Some(why) = certificate.out_of_time(SystemTime::now()) {
                errors.push(SignError::NotInTime { certificate: path.clone(), why });
            }
            if !certificate.may_sign() {
                errors.push(SignError::NotForSigning(path.clone()));
            }
            if key.as_ref().is_some_and(|key| key.public() != *certificate.public_key()) {
                errors.push(SignError::Mismatch { key: files.key.clone(), certificate: path });
            }
        }
        match (key, certificate) {
            (Some(key), Some(certificate)) if errors.is_empty() => {
                Ok(Signer { key, certificate, hash: files.hash })
            }
            _ => Err(errors),
        }
    }

    /// What is shown of its certificate.
    pub fn facts(&self) -> CertificateFacts {
        self.certificate.facts()
    }

    /// The hash that it signs.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// What its owner should know.
    pub fn notes(&self) -> Vec<String> {
        let note = "the certificate does not say that it is for signing code (extendedKeyUsage codeSigning): \
            the kernel does not ask for it, other tools may";
        if self.certificate.is_for_code() { Vec::new() } else { vec![note.to_owned()] }
    }

    /// A detached CMS message over this content.
    pub fn sign(&self, content: &[u8]) -> Result<Vec<u8>, SignError> {
        let value = self.key.sign(self.hash, &self.hash.digest(content))?;
        message::encode(&self.certificate, self.hash, value)
            .map_err(|error| SignError::Signing(error.to_string()))
    }

    /// The module with its signature appended, in place of those that it has.
    pub fn sign_module(&self, module: &[u8]) -> Result<Vec<u8>, SignError> {
        let contents = unsigned(module)?;
        let message = self.sign(contents)?;
        append(contents, &message).ok_or_else(|| SignError::Signing("the message is too long".into()))
    }
}

fn read_key(path: &Path, passphrase: Option<&Zeroizing<String>>) -> Result<PrivateKey, SignError> {
    let because = |why: &str| SignError::Key { path: path.into(), why: why.into() };
    if path.to_string_lossy().starts_with("pkcs11:") {
        return Err(because("keys in tokens are not read; the kernel's scripts/sign-file signs with them"));
    }
    let bytes = Zeroizing::new(read_small(path)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| because("it is not PEM"))?;
    PrivateKey::of_pem(path, text, passphrase)
}

/// The passphrase in a file: its first line.
pub fn passphrase(path: &Path) -> Result<Zeroizing<String>, SignError> {
    let bytes = Zeroizing::new(read_small(path)?);
    let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.lines().next());
    let text = text.ok_or_else(|| SignError::Passphrase { path: path.into(), why: "holds no passphrase" })?;
    Ok(text.to_owned().into())
}
