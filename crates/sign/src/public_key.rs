//! Public keys of the kinds that the kernel takes from certificates: RSA, and ECDSA on P-256 and P-384.

use crate::hash::Hash;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use pkcs8::DecodePublicKey;
use rsa::pkcs1v15::Pkcs1v15Sign;
use rsa::traits::PublicKeyParts;
use sha2::{Sha256, Sha384, Sha512};

/// A key that signatures are verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    Rsa(rsa::RsaPublicKey),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`. `None` if it is of another kind, or damaged.
    pub(crate) fn of_der(der: &[u8]) -> Option<PublicKey> {
        let rsa = || rsa::RsaPublicKey::from_public_key_der(der).ok().map(PublicKey::Rsa);
        let p256 = || p256::ecdsa::VerifyingKey::from_public_key_der(der).ok().map(PublicKey::P256);
        let p384 = || p384::ecdsa::VerifyingKey::from_public_key_der(der).ok().map(PublicKey::P384);
        rsa().or_else(p256).or_else(p384)
    }

    /// As it is shown: `RSA 2048`, `ECDSA P-256`.
    pub(crate) fn name(&self) -> String {
        match self {
            PublicKey::Rsa(key) => format!("RSA {}", key.size() * 8),
            PublicKey::P256(_) => "ECDSA P-256".into(),
            PublicKey::P384(_) => "ECDSA P-384".into(),
        }
    }

    /// Whether this is its signature over bytes of this hash.
    pub(crate) fn verifies(&self, hash: Hash, digest: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::Rsa(key) => key.verify(rsa_scheme(hash), digest, signature).is_ok(),
            PublicKey::P256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
            PublicKey::P384(key) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
        }
    }
}

/// RSASSA-PKCS1-v1_5 (RFC 8017, 8.2), the one RSA signature that the kernel takes for modules.
pub(crate) fn rsa_scheme(hash: Hash) -> Pkcs1v15Sign {
    match hash {
        Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    }
}
