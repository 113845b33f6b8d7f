//! Whether somebody whom this machine trusts vouches for a livepatch, whatever the kernel asks for.

use crate::system::System;
use kmend_sign::{CertificateFacts, FOLDER, SignError, Trust, Verdict, of_module};
use std::path::PathBuf;

impl System {
    /// The certificate that vouches for a module, if this machine trusts certificates; the error says why none does.
    ///
    /// A damaged signature is an error in any case: the kernel refuses it even where it demands none (Linux,
    /// kernel/module/signing.c, `module_sig_check`).
    pub(crate) fn vouched(&self, name: &str, module: &[u8]) -> Result<Option<CertificateFacts>, SignError> {
        let trust = Trust::folder(&self.trusted())?;
        let finding = of_module(module, trust.as_ref().map_or(&[], Trust::certificates));
        let what = format!("the signature of {name}");
        match (finding, trust) {
            (Some(finding), None) if finding.verdict == Verdict::Damaged => {
                finding.error(&what).map_or(Ok(None), Err)
            }
            (_, None) => Ok(None),
            (None, Some(trust)) => {
                let policy = format!("{} has certificates that one must be by", trust.place().display());
                Err(SignError::Unsigned { what: name.to_owned(), policy })
            }
            (Some(finding), Some(_)) => finding.error(&what).map_or(Ok(finding.certificate), Err),
        }
    }

    /// How many certificates this machine trusts; `None` if they cannot be read, so that nothing can be loaded.
    pub(crate) fn trusted_certificates(&self) -> Option<usize> {
        let trust = Trust::folder(&self.trusted()).ok()?;
        Some(trust.map_or(0, |trust| trust.certificates().len()))
    }

    fn trusted(&self) -> PathBuf {
        self.path(FOLDER.trim_start_matches('/'))
    }
}
