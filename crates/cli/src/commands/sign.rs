//! `kmend sign`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::signing::{self, Signing};
use crate::style::{GREEN, YELLOW, paint};
use clap::Args;
use kmend_sign::{Signed, sign_file};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;

/// Sign a livepatch module that is built already, and its manifest
///
/// Appends a signature to the module as the kernel's own scripts/sign-file does, in place of one that it has. The manifest
/// beside it (FIX.kmend.json), if there is one, is signed as well, into FIX.kmend.json.p7s: a detached CMS
/// message that `openssl cms -verify` takes. So a module can be built where the compilers are, and signed where the key is.
///
/// Whatever changes the module's bytes, such as `strip`, comes before. No key is written or copied anywhere.
///
/// Exit codes: 0 signed, 2 refused, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sign {
    /// The livepatch module that `kmend build` wrote
    #[arg(value_name = "FIX.ko")]
    module: PathBuf,
    /// The private key, RSA or ECDSA (P-256, P-384), in PEM
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
    /// Its certificate, in PEM or DER
    #[arg(long, value_name = "CERT")]
    cert: PathBuf,
    #[command(flatten)]
    signing: Signing,
    /// Write the signed module here, and leave the other as it is
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Check everything, and write nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  kmend sign livepatch-fix.ko --key signing.key --cert signing.crt
  kmend sign livepatch-fix.ko --key signing.key --cert signing.crt -o signed/livepatch-fix.ko
  kmend sign livepatch-fix.ko --key encrypted.key --passphrase-file secret --cert signing.crt";

/// What was signed, or would be.
#[derive(Serialize)]
struct Document {
    dry_run: bool,
    #[serde(flatten)]
    signed: Signed,
}

impl Sign {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let signer = self.signing.signer(&self.key, &self.cert)?;
        let signed = sign_file(&self.module, self.output.as_deref(), &signer, self.dry_run)?;
        output.document(&Document { dry_run: self.dry_run, signed }, text)?;
        Ok(End::Done)
    }
}

fn text(document: &Document) -> String {
    let signed = &document.signed;
    let word = paint(GREEN, if document.dry_run { "would sign" } else { "signed" });
    let by = format!("by {} ({} {})", signed.certificate.subject, signed.certificate.key, signed.hash.name());
    let mut text = format!("{word} {} {by}\n", signed.module.display());
    if let Some([manifest, signature]) = &signed.manifest {
        let _ = writeln!(text, "{word} {} in {}", manifest.display(), signature.display());
    }
    if let Some(replaced) = &signed.replaced {
        let _ = writeln!(
            text,
            "{} a signature: {}",
            paint(YELLOW, "replaced"),
            signing::signature(Some(replaced))
        );
    }
    for note in &signed.notes {
        let _ = writeln!(text, "{} {note}", paint(YELLOW, "note"));
    }
    text
}
