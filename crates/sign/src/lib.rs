//! Who vouches for a livepatch: signatures in the kernel's own format, and manifests.
//!
//! ```text
//! key + certificate ─ signer ─ message (CMS) ─ appended to a module, or beside a manifest
//!                              message + trusted certificates ─ finding ─ verification
//! ```
//!
//! What is signed here is what the kernel's `scripts/sign-file` makes of the same key and certificate, byte for byte; what
//! is verified is what the kernel would: one detached CMS message over the bytes before it. The cryptography is
//! RustCrypto's.
//!
//! Architecture invariant: keys are read, never made or kept, and nothing here knows which keys the running kernel has.
//! Everything that is read may be hostile, and is bounded in size.

mod appended;
mod certificate;
mod error;
mod facts;
mod files;
mod finding;
mod hash;
mod key;
mod manifest;
mod message;
mod pem;
mod public_key;
mod signer;
mod trust;
mod verify;

pub use appended::{append, unsigned};
pub use certificate::{Certificate, CertificateFacts};
pub use error::SignError;
pub use facts::{Equality, Fact};
pub use files::{Signed, Written, sign_file, write_whole};
pub use finding::{SignatureFinding, Verdict, of_module};
pub use hash::{Hash, sha256};
pub use manifest::{
    Manifest, ManifestFunction, ManifestKernel, ManifestModule, ManifestPatch, SCHEMA, Sources, beside,
    signature_of,
};
pub use message::SignerFacts;
pub use signer::{KeyFiles, Signer, passphrase};
pub use trust::{FOLDER, Trust};
pub use verify::{ManifestFinding, Verification, Wanted, of_file, verify};
