//! What is found of one signature: whose it is, and whether it is good.

use crate::appended::split;
use crate::certificate::{Certificate, CertificateFacts};
use crate::error::SignError;
use crate::message::{Message, SignerFacts};
use serde::Serialize;

/// How good a signature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is by the key of a trusted certificate, over these very bytes.
    Valid,
    /// It names a trusted certificate, but is not by its key over these bytes.
    Wrong,
    /// It names none of the trusted certificates.
    Untrusted,
    /// It cannot be read.
    Damaged,
    /// It is made in a way that kmend cannot verify; the kernel may.
    Unsupported,
    /// There was no certificate to verify it with.
    Unchecked,
}

/// What is found of a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignatureFinding {
    /// How good it is.
    pub verdict: Verdict,
    /// Whom it names. Anybody can write a name there: only the verdict says that it is so.
    pub signers: Vec<SignerFacts>,
    /// The certificate by which it is valid, or wrong.
    pub certificate: Option<CertificateFacts>,
    /// Why it cannot be read.
    pub why: Option<String>,
}

/// The signature that is appended to a module; `None` if there is none. Without certificates it is only read.
pub fn of_module(module: &[u8], certificates: &[Certificate]) -> Option<SignatureFinding> {
    match split(module) {
        Err(error) => Some(SignatureFinding::unread(error)),
        Ok(split) => Some(of_content(split.contents, split.message?, certificates, "the module's signature")),
    }
}

/// A detached signature; `what` it is, is for the error.
pub(crate) fn of_content(
    content: &[u8],
    message: &[u8],
    certificates: &[Certificate],
    what: &str,
) -> SignatureFinding {
    let message = match Message::decode(message, what) {
        Ok(message) => message,
        Err(error) => return SignatureFinding::unread(error),
    };
    // Of several signatures one is enough, as for the kernel.
    let named = message.named(content, certificates);
    let best = named.iter().find(|(_, valid)| *valid).or(named.first());
    let verdict = match best {
        Some((_, true)) => Verdict::Valid,
        Some((_, false)) => Verdict::Wrong,
        None if certificates.is_empty() => Verdict::Unchecked,
        None => Verdict::Untrusted,
    };
    SignatureFinding {
        verdict,
        signers: message.facts(),
        certificate: best.map(|(certificate, _)| certificate.facts()),
        why: None,
    }
}

impl SignatureFinding {
    fn unread(error: SignError) -> SignatureFinding {
        let (verdict, why) = match error {
            SignError::Unsupported { why, .. } => (Verdict::Unsupported, why),
            SignError::Damaged { why, .. } => (Verdict::Damaged, why),
            other => (Verdict::Damaged, other.to_string()),
        };
        SignatureFinding { verdict, signers: Vec::new(), certificate: None, why: Some(why) }
    }

    /// Why it does not do, if it does not. One that was not checked does: nothing was asked of it.
    pub fn error(&self, what: &str) -> Option<SignError> {
        let what = what.to_owned();
        let why = self.why.clone().unwrap_or_default();
        let signers: Vec<String> = self.signers.iter().map(ToString::to_string).collect();
        let signer = signers.join("; ");
        match self.verdict {
            Verdict::Valid | Verdict::Unchecked => None,
            Verdict::Wrong => Some(SignError::Wrong { what, signer }),
            Verdict::Untrusted => Some(SignError::Untrusted { what, signer }),
            Verdict::Damaged => Some(SignError::Damaged { what, why }),
            Verdict::Unsupported => Some(SignError::Unsupported { what, why }),
        }
    }
}
