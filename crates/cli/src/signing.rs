//! Arguments of the commands that sign and verify, and how a signature looks.

use crate::failure::Failure;
use clap::Args;
use kmend_sign::{FOLDER, Hash, KeyFiles, SignatureFinding, Signer, Trust, Verdict};
use std::path::{Path, PathBuf};

/// Where the kernel's sign-file takes the passphrase from (Linux, scripts/sign-file.c).
const PASSPHRASE: &str = "KBUILD_SIGN_PIN";

/// How to sign.
#[derive(Debug, Args)]
pub(crate) struct Signing {
    /// The hash that is signed: sha256, sha384 or sha512
    #[arg(long, value_name = "HASH", default_value = Hash::default().name(), value_parser = hash)]
    hash: Hash,
    /// A file whose first line is the passphrase of an encrypted key; else the variable KBUILD_SIGN_PIN has it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Whom to trust.
#[derive(Debug, Args)]
pub(crate) struct Trusting {
    /// A certificate to trust, in PEM or DER, instead of those in /etc/kmend/trusted
    #[arg(long = "cert", value_name = "CERT")]
    certificates: Vec<PathBuf>,
    /// A folder of certificates to trust (*.pem, *.der, *.crt, *.cer), instead of /etc/kmend/trusted
    #[arg(long, value_name = "DIR")]
    trusted: Option<PathBuf>,
}

impl Signing {
    /// Reads key and certificate.
    pub(crate) fn signer(&self, key: &Path, certificate: &Path) -> Result<Signer, Failure> {
        let passphrase = match &self.passphrase_file {
            Some(path) => Some(kmend_sign::passphrase(path)?),
            None => std::env::var(PASSPHRASE).ok().map(Into::into),
        };
        let (key, certificate) = (key.to_owned(), certificate.to_owned());
        Signer::open(&KeyFiles { key, certificate, passphrase, hash: self.hash })
            .map_err(|errors| Failure::all("", &errors))
    }
}

impl Trusting {
    /// The certificates that are named, or else those of this machine; `None` if there are none.
    pub(crate) fn trust(&self) -> Result<Option<Trust>, Failure> {
        let files = Trust::files(&self.certificates)?;
        let folder = match &self.trusted {
            Some(folder) => Trust::folder(folder)?,
            None if files.is_none() => Trust::folder(Path::new(FOLDER))?,
            None => None,
        };
        Ok(match files {
            Some(files) => Some(files.and(folder)),
            None => folder,
        })
    }
}

/// For clap.
fn hash(text: &str) -> Result<Hash, String> {
    let known = Hash::ALL.into_iter().find(|hash| hash.name() == text);
    known.ok_or_else(|| "known are sha256, sha384 and sha512".to_owned())
}

/// A signature in one line.
pub(crate) fn signature(finding: Option<&SignatureFinding>) -> String {
    let Some(finding) = finding else { return "none".into() };
    let made = |signer: &kmend_sign::SignerFacts| format!("{} {}", signer.algorithm, signer.hash.name());
    let how = finding.signers.iter().map(made).collect::<Vec<_>>().join(", ");
    let names = finding.signers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let why = finding.why.as_deref().unwrap_or_default();
    let by = finding.certificate.as_ref().map_or("unknown", |certificate| &certificate.subject);
    let late = finding.certificate.as_ref().is_some_and(|certificate| certificate.out_of_time);
    let time = if late { "; its certificate is not valid now" } else { "" };
    match finding.verdict {
        Verdict::Valid => format!("valid, by {by} ({how}){time}"),
        Verdict::Wrong => format!("WRONG: it names {by}, but is not by that key over these bytes"),
        Verdict::Untrusted => format!("not trusted: it names {names} ({how})"),
        Verdict::Unchecked => format!("not verified: it names {names} ({how})"),
        Verdict::Damaged => format!("damaged: {why}"),
        Verdict::Unsupported => format!("cannot be verified: {why}"),
    }
}
