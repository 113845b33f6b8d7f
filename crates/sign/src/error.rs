//! Why something is not signed, or not verified.

use kmend_inspect::InspectError;
use kmend_refusal::{Code, Coded};
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, or is wrong with a signature.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A file could not be read or written.
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The module cannot be read, or is no livepatch.
    #[error(transparent)]
    Module(#[from] InspectError),
    /// A packed module: what the kernel verifies are the unpacked bytes.
    #[error("{path} is packed; unpack it first", path = .0.display())]
    Packed(PathBuf),
    /// A private key that cannot be read.
    #[error("{path}: {why}", path = path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The passphrase of a private key is missing or wrong.
    #[error("{path} {why}", path = path.display())]
    Passphrase {
        /// The key's file.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A certificate that cannot be read.
    #[error("{path}: {why}", path = path.display())]
    Certificate {
        /// Its file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Key and certificate do not belong together.
    #[error("{certificate} is for another key than {key}", certificate = certificate.display(), key = key.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's.
        certificate: PathBuf,
    },
    /// The time is not within the certificate's.
    #[error("{certificate} {why}", certificate = certificate.display())]
    NotInTime {
        /// The certificate's file.
        certificate: PathBuf,
        /// Since when, or from when on.
        why: String,
    },
    /// The certificate says that its key is for other things.
    #[error("{certificate} does not allow its key to sign (its key usage lacks digitalSignature)", certificate = .0.display())]
    NotForSigning(PathBuf),
    /// A signature that is not built as one is: the kernel refuses it even where it needs none.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// What it is.
        what: String,
        /// Why.
        why: String,
    },
    /// A signature that is made in a way that kmend cannot verify; the kernel may.
    #[error("{what} cannot be verified: {why}")]
    Unsupported {
        /// What it is.
        what: String,
        /// Why.
        why: String,
    },
    /// A signature over other bytes.
    #[error("{what} is not by {signer} over these bytes: the one or the other was changed")]
    Wrong {
        /// What it is.
        what: String,
        /// Whom it names.
        signer: String,
    },
    /// A signature of someone who is not trusted.
    #[error("{what} names {signer}, and that is none of the certificates that are trusted")]
    Untrusted {
        /// What it is.
        what: String,
        /// Whom it names.
        signer: String,
    },
    /// There is no signature.
    #[error("{what} is not signed{}", if .policy.is_empty() { String::new() } else { format!(", and {policy}") })]
    Unsigned {
        /// What should be.
        what: String,
        /// What demands it; empty if only the caller does.
        policy: String,
    },
    /// Nothing to verify with.
    #[error("there is no certificate to verify with: none is given, and {path} has none", path = .0.display())]
    NoCertificate(PathBuf),
    /// The folder of trusted certificates is not what it should be.
    #[error("{path}: {why}", path = path.display())]
    UnsafeFolder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A manifest that cannot be read.
    #[error("{path}: {why}", path = path.display())]
    Manifest {
        /// Its file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A manifest of something else.
    #[error("{path} says otherwise of: {}", .facts.join(", "), path = path.display())]
    Differs {
        /// The manifest.
        path: PathBuf,
        /// What it says otherwise.
        facts: Vec<String>,
    },
    /// The cryptography failed, or a message is too long.
    #[error("cannot make the signature: {0}")]
    Signing(String),
}

impl SignError {
    /// Makes an [`io::Error`] at a file into one.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SignError {
        let path = path.to_owned();
        move |source| SignError::Io { doing, path, source }
    }
}

impl Coded for SignError {
    fn code(&self) -> Code {
        match self {
            SignError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::DiskFull,
            SignError::Io { .. } => Code::Io,
            SignError::Module(error) => error.code(),
            SignError::Packed(_) => Code::NotALivepatch,
            SignError::Key { .. } => Code::SigningKey,
            SignError::Passphrase { .. } => Code::KeyPassphrase,
            SignError::Certificate { .. } => Code::Certificate,
            SignError::Mismatch { .. } => Code::KeyMismatch,
            SignError::NotInTime { .. } => Code::CertificateTime,
            SignError::NotForSigning(_) => Code::CertificateUsage,
            SignError::Damaged { .. } => Code::SignatureDamaged,
            SignError::Unsupported { .. } => Code::SignatureUnsupported,
            SignError::Wrong { .. } => Code::SignatureWrong,
            SignError::Untrusted { .. } => Code::SignerUntrusted,
            SignError::Unsigned { .. } => Code::NotSigned,
            SignError::NoCertificate(_) => Code::NothingTrusted,
            SignError::UnsafeFolder { .. } => Code::TrustUnsafe,
            SignError::Manifest { .. } => Code::ManifestFormat,
            SignError::Differs { .. } => Code::ManifestDiffers,
            SignError::Signing(_) => Code::Internal,
        }
    }
}
