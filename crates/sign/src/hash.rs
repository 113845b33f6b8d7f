//! The hashes that kernel and kmend both take.

use der::oid::{AssociatedOid, ObjectIdentifier};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// A hash for signatures (Linux, crypto/asymmetric_keys/pkcs7_parser.c, `pkcs7_sig_note_digest_algo`). SHA-1 is not among
/// them: who can make two files of one hash can have the harmless one signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// SHA-256, which Debian's kernels sign their modules with.
    #[default]
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// All of them.
    pub const ALL: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

    /// As the kernel and modinfo(8) call it.
    pub fn name(self) -> &'static str {
        match self {
            Hash::Sha256 => "sha256",
            Hash::Sha384 => "sha384",
            Hash::Sha512 => "sha512",
        }
    }

    pub(crate) fn oid(self) -> ObjectIdentifier {
        match self {
            Hash::Sha256 => Sha256::OID,
            Hash::Sha384 => Sha384::OID,
            Hash::Sha512 => Sha512::OID,
        }
    }

    pub(crate) fn of_oid(oid: ObjectIdentifier) -> Option<Hash> {
        Hash::ALL.into_iter().find(|hash| hash.oid() == oid)
    }

    pub(crate) fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha256 => Sha256::digest(bytes).to_vec(),
            Hash::Sha384 => Sha384::digest(bytes).to_vec(),
            Hash::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

/// SHA-256 of these bytes, in hexadecimal as sha256sum(1) prints it.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
