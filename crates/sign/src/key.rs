//! Private keys in PEM: PKCS#8, encrypted or not, PKCS#1 for RSA, and SEC1 for elliptic curves.

use crate::error::SignError;
use crate::hash::Hash;
use crate::pem;
use crate::public_key::{PublicKey, rsa_scheme};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use pkcs8::{DecodePrivateKey, EncryptedPrivateKeyInfoRef, SecretDocument};
use rsa::pkcs1::DecodeRsaPrivateKey;
use std::path::Path;
use zeroize::Zeroizing;

/// A key that signs.
pub(crate) enum PrivateKey {
    Rsa(Box<rsa::RsaPrivateKey>),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
}

impl PrivateKey {
    /// Reads the first private key of a PEM text; `path` is for the error.
    pub(crate) fn of_pem(
        path: &Path,
        text: &str,
        passphrase: Option<&Zeroizing<String>>,
    ) -> Result<PrivateKey, SignError> {
        let because = |why: &str| SignError::Key { path: path.into(), why: why.into() };
        let (label, block) = pem::blocks(text)
            .find(|(label, _)| label.ends_with("PRIVATE KEY"))
            .ok_or_else(|| because("it holds no private key in PEM"))?;
        // The traditional format of OpenSSL derives the key from the passphrase by one round of MD5.
        if block.contains("Proc-Type:") {
            return Err(because("it is encrypted in the old format; convert it: `openssl pkcs8 -topk8`"));
        }
        let (_, der) = SecretDocument::from_pem(block).map_err(|_| because("its PEM is damaged"))?;
        let unknown = || because("it is neither RSA nor ECDSA on P-256 or P-384, or it is damaged");
        match label {
            "ENCRYPTED PRIVATE KEY" => {
                let der = decrypt(path, &der, passphrase)?;
                PrivateKey::of_pkcs8(der.as_bytes()).ok_or_else(unknown)
            }
            "PRIVATE KEY" => PrivateKey::of_pkcs8(der.as_bytes()).ok_or_else(unknown),
            "RSA PRIVATE KEY" => rsa::RsaPrivateKey::from_pkcs1_der(der.as_bytes())
                .map(|key| PrivateKey::Rsa(Box::new(key)))
                .map_err(|_| unknown()),
            "EC PRIVATE KEY" => PrivateKey::of_sec1(der.as_bytes()).ok_or_else(unknown),
            _ => Err(because("it is a private key of a kind that is not known")),
        }
    }

    fn of_pkcs8(der: &[u8]) -> Option<PrivateKey> {
        let rsa = || rsa::RsaPrivateKey::from_pkcs8_der(der).ok().map(|key| PrivateKey::Rsa(Box::new(key)));
        let p256 = || p256::ecdsa::SigningKey::from_pkcs8_der(der).ok().map(PrivateKey::P256);
        let p384 = || p384::ecdsa::SigningKey::from_pkcs8_der(der).ok().map(PrivateKey::P384);
        rsa().or_else(p256).or_else(p384)
    }

    fn of_sec1(der: &[u8]) -> Option<PrivateKey> {
        let p256 = || p256::SecretKey::from_sec1_der(der).ok().map(|key| PrivateKey::P256(key.into()));
        let p384 = || p384::SecretKey::from_sec1_der(der).ok().map(|key| PrivateKey::P384(key.into()));
        p256().or_else(p384)
    }

    pub(crate) fn public(&self) -> PublicKey {
        match self {
            PrivateKey::Rsa(key) => PublicKey::Rsa(key.to_public_key()),
            PrivateKey::P256(key) => PublicKey::P256(*key.verifying_key()),
            PrivateKey::P384(key) => PublicKey::P384(*key.verifying_key()),
        }
    }

    /// Signs. The same input gives the same bytes: ECDSA takes its nonce from the input (RFC 6979). RSA is blinded with
    /// random numbers, which cancel out.
    pub(crate) fn sign(&self, hash: Hash, digest: &[u8]) -> Result<Vec<u8>, SignError> {
        let failed = |error: &dyn std::fmt::Display| SignError::Signing(error.to_string());
        match self {
            PrivateKey::Rsa(key) => key.sign(rsa_scheme(hash), digest).map_err(|error| failed(&error)),
            PrivateKey::P256(key) => {
                let signature: Result<p256::ecdsa::Signature, _> = key.sign_prehash(digest);
                Ok(signature.map_err(|error| failed(&error))?.to_der().as_bytes().to_vec())
            }
            PrivateKey::P384(key) => {
                let signature: Result<p384::ecdsa::Signature, _> = key.sign_prehash(digest);
                Ok(signature.map_err(|error| failed(&error))?.to_der().as_bytes().to_vec())
            }
        }
    }
}

fn decrypt(
    path: &Path,
    der: &SecretDocument,
    passphrase: Option<&Zeroizing<String>>,
) -> Result<SecretDocument, SignError> {
    let path = || path.to_owned();
    let passphrase = passphrase.ok_or_else(|| SignError::Passphrase {
        path: path(),
        why: "is encrypted, and no passphrase is given",
    })?;
    let info = EncryptedPrivateKeyInfoRef::try_from(der.as_bytes()).map_err(|error| SignError::Key {
        path: path(),
        why: format!(
            "it is encrypted in a way that is not known ({error}); convert it: `openssl pkcs8 -topk8`"
        ),
    })?;
    info.decrypt(passphrase.as_bytes()).map_err(|_| SignError::Passphrase {
        path: path(),
        why: "cannot be decrypted: the passphrase is not the right one, or the cipher is not known",
    })
}
