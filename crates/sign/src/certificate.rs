//! Certificates: whose key it is that signs.

use crate::error::SignError;
use crate::files::read_small;
use crate::hash::sha256;
use crate::pem;
use crate::public_key::PublicKey;
use cms::cert::IssuerAndSerialNumber;
use der::oid::ObjectIdentifier;
use der::{Decode, Encode};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier};

/// `id-kp-codeSigning` (RFC 5280, 4.2.1.12).
const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
/// The label of a certificate in PEM (RFC 7468, 5.1).
const LABEL: &str = "CERTIFICATE";

/// A certificate of a key of a kind that is known.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Its file.
    pub path: PathBuf,
    inner: x509_cert::Certificate,
    key: PublicKey,
    fingerprint: String,
}

/// What is shown of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateFacts {
    /// Whose key it is (RFC 4514).
    pub subject: String,
    /// Who says so.
    pub issuer: String,
    /// Its number at the issuer, in hexadecimal.
    pub serial: String,
    /// Its subject key identifier, in hexadecimal; `None` if it has none.
    pub key_id: Option<String>,
    /// The kind of key, such as `RSA 2048`.
    pub key: String,
    /// Until when it is valid, in UTC.
    pub valid_until: String,
    /// Whether it is not valid now: it ran out, or is not valid yet. Neither the kernel nor kmend minds in a signature that exists.
    pub out_of_time: bool,
    /// SHA-256 of the certificate, in hexadecimal.
    pub sha256: String,
}

impl Certificate {
    /// Reads a certificate, PEM or DER; the first, if the file holds several.
    pub fn open(path: &Path) -> Result<Certificate, SignError> {
        let mut all = Certificate::all(path)?;
        Ok(all.swap_remove(0))
    }

    /// All the certificates of a file: at least one.
    pub fn all(path: &Path) -> Result<Vec<Certificate>, SignError> {
        let bytes = read_small(path)?;
        let because = |why: &str| SignError::Certificate { path: path.into(), why: why.into() };
        // The first byte of a SEQUENCE in DER; no PEM text begins with the digit `0`.
        if bytes.first() == Some(&0x30) {
            return Ok(vec![Certificate::of_der(path, &bytes)?]);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| because("it is neither PEM nor DER"))?;
        let blocks = pem::blocks(text).filter(|(label, _)| *label == LABEL);
        let all: Vec<Certificate> = blocks
            .map(|(_, block)| {
                let (_, der) = der::Document::from_pem(block).map_err(|_| because("its PEM is damaged"))?;
                Certificate::of_der(path, der.as_bytes())
            })
            .collect::<Result<_, _>>()?;
        if all.is_empty() { Err(because("it holds no certificate")) } else { Ok(all) }
    }

    fn of_der(path: &Path, der: &[u8]) -> Result<Certificate, SignError> {
        let because = |why: String| SignError::Certificate { path: path.into(), why };
        let inner = x509_cert::Certificate::from_der(der)
            .map_err(|error| because(format!("it is no certificate, or damaged: {error}")))?;
        let info = inner.tbs_certificate().subject_public_key_info().to_der();
        let key = info.ok().and_then(|der| PublicKey::of_der(&der));
        let key = key.ok_or_else(|| because("its key is neither RSA nor ECDSA on P-256 or P-384".into()))?;
        Ok(Certificate { path: path.into(), inner, key, fingerprint: sha256(der) })
    }

    /// What is shown of it.
    pub fn facts(&self) -> CertificateFacts {
        let certificate = self.inner.tbs_certificate();
        CertificateFacts {
            subject: plain(&certificate.subject().to_string()),
            issuer: plain(&certificate.issuer().to_string()),
            serial: certificate.serial_number().to_string(),
            key_id: self.key_id().map(|id| colons(id.0.as_bytes())),
            key: self.key.name(),
            valid_until: certificate.validity().not_after.to_date_time().to_string(),
            out_of_time: self.out_of_time(SystemTime::now()).is_some(),
            sha256: self.fingerprint.clone(),
        }
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.key
    }

    pub(crate) fn key_id(&self) -> Option<SubjectKeyIdentifier> {
        Some(self.inner.tbs_certificate().get_extension::<SubjectKeyIdentifier>().ok()??.1)
    }

    pub(crate) fn issuer_and_serial(&self) -> IssuerAndSerialNumber {
        let certificate = self.inner.tbs_certificate();
        IssuerAndSerialNumber {
            issuer: certificate.issuer().clone(),
            serial_number: certificate.serial_number().clone(),
        }
    }

    /// Why it is not valid at a time, if it is not.
    pub(crate) fn out_of_time(&self, now: SystemTime) -> Option<String> {
        let validity = self.inner.tbs_certificate().validity();
        if now < validity.not_before.to_system_time() {
            Some(format!("is not valid before {}", validity.not_before.to_date_time()))
        } else if now > validity.not_after.to_system_time() {
            Some(format!("is not valid any more since {}", validity.not_after.to_date_time()))
        } else {
            None
        }
    }

    /// Whether it allows its key to sign: a certificate that lists no uses allows all (RFC 5280, 4.2.1.3).
    pub(crate) fn may_sign(&self) -> bool {
        match self.inner.tbs_certificate().get_extension::<KeyUsage>() {
            Ok(Some((_, usage))) => usage.digital_signature(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Whether it says that it is for signing code.
    pub(crate) fn is_for_code(&self) -> bool {
        let usage = self.inner.tbs_certificate().get_extension::<ExtendedKeyUsage>();
        usage.ok().flatten().is_some_and(|(_, usage)| usage.0.contains(&CODE_SIGNING))
    }
}

/// A foreign text for a terminal: control characters could move its cursor.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Bytes in hexadecimal, as `openssl x509` prints them.
pub(crate) fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}
