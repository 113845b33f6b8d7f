//! `kmend verify`

use crate::failure::{End, Failure};
use crate::output::{self, Output};
use crate::signing::{self, Trusting};
use crate::style::{BOLD, DIM, GREEN, RED, paint};
use clap::Args;
use kmend_build::RefusalReport;
use kmend_explain::visible;
use kmend_sign::{Equality, Fact, ManifestFinding, Verification, Wanted, verify};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;

/// Say whether someone who is trusted vouches for a livepatch
///
/// Checks the signature of the module, and the manifest beside it: each thing that it states is compared with the module,
/// and its signature is checked. Verified is a livepatch if the module or its manifest is signed by a trusted certificate,
/// and nothing that is there is wrong. What only the manifest states is shown as stated.
///
/// The trusted certificates are those that --cert and --trusted name, or else those in /etc/kmend/trusted. Which keys the
/// running kernel trusts is another matter: docs/signing.md.
///
/// Exit codes: 0 verified, 2 not verified, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// The livepatch module, packed or not
    #[arg(value_name = "FIX.ko")]
    module: PathBuf,
    /// The manifest, if it is not FIX.kmend.json beside the module
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    trusting: Trusting,
    /// A patch that the manifest should name, with the same hash
    #[arg(long = "patch", value_name = "FIX.patch")]
    patches: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  kmend verify livepatch-fix.ko
  kmend verify livepatch-fix.ko --cert signing.crt
  kmend verify livepatch-fix.ko --trusted certificates --patch fix.patch";

/// What was found, with the reasons.
#[derive(Serialize)]
struct Document {
    verified: bool,
    #[serde(flatten)]
    verification: Verification,
    refusals: Vec<RefusalReport>,
}

impl Verify {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let trust = self.trusting.trust()?;
        let wanted = Wanted {
            module: &self.module,
            manifest: self.manifest.as_deref(),
            trust: trust.as_ref(),
            patches: &self.patches,
        };
        let verification = verify(&wanted)?;
        let failure = Failure::all(&self.module.display().to_string(), &verification.errors);
        let refusals = failure.reasons().to_vec();
        let document = Document { verified: verification.is_verified(), verification, refusals };
        output.document(&document, text)?;
        if !output.is_json() {
            output::reasons(&document.refusals);
        }
        Ok(failure.end())
    }
}

fn text(document: &Document) -> String {
    let found = &document.verification;
    let mut text = format!("{}\n", paint(BOLD, visible(&found.name)));
    let _ = writeln!(text, "  sha256     {} {}", found.sha256, paint(DIM, "without the signature"));
    let _ = writeln!(text, "  signature  {}", signing::signature(found.signature.as_ref()));
    match &found.manifest {
        Some(manifest) => add_manifest(&mut text, manifest),
        None => text.push_str("  manifest   none\n"),
    }
    let verdict = if document.verified { paint(GREEN, "verified") } else { paint(RED, "not verified") };
    let _ = writeln!(text, "{verdict}");
    text
}

fn add_manifest(text: &mut String, manifest: &ManifestFinding) {
    let _ = writeln!(text, "  manifest   {}", visible(&manifest.path.display().to_string()));
    let _ = writeln!(text, "    signature  {}", signing::signature(manifest.signature.as_ref()));
    let width = manifest.facts.iter().map(|fact| fact.fact.chars().count()).max().unwrap_or_default();
    for Fact { fact, equality, stated, found } in &manifest.facts {
        let word = match equality {
            Equality::Equal => paint(GREEN, "equal  "),
            Equality::Differs => paint(RED, "differs"),
            Equality::Stated => paint(DIM, "stated "),
        };
        let stated = if stated.is_empty() { "nothing" } else { stated };
        let _ = write!(text, "    {word} {fact:<width$}  {}", visible(stated));
        if let (Equality::Differs, Some(found)) = (equality, found) {
            let _ = write!(
                text,
                ", but it is {}",
                if found.is_empty() { "nothing".into() } else { visible(found) }
            );
        }
        text.push('\n');
    }
}
