//! A signature at the end of a module (Linux, include/linux/module_signature.h and kernel/module_signature.c):
//!
//! ```text
//! the module's contents │ CMS message │ struct module_signature │ "~Module signature appended~\n"
//! ```

use crate::error::SignError;
use kmend_kernel::SIGNATURE_MARK;

/// The size of `struct module_signature`, in bytes.
const TRAILER: usize = 12;
/// `PKEY_ID_PKCS7`, in its third byte; all the others before the length are 0.
const PKCS7: [u8; 8] = [0, 0, 2, 0, 0, 0, 0, 0];

/// Contents and message of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split<'a> {
    /// What is signed.
    pub(crate) contents: &'a [u8],
    /// The CMS message, if a signature is appended.
    pub(crate) message: Option<&'a [u8]>,
}

/// Takes a module apart, with the checks of the kernel (`mod_check_sig`).
pub(crate) fn split(module: &[u8]) -> Result<Split<'_>, SignError> {
    let Some(signed) = module.strip_suffix(SIGNATURE_MARK) else {
        return Ok(Split { contents: module, message: None });
    };
    let damaged = |why: &str| SignError::Damaged { what: "the module's signature".into(), why: why.into() };
    let (signed, trailer) =
        signed.split_last_chunk::<TRAILER>().ok_or_else(|| damaged("the file ends before it begins"))?;
    let [kind @ .., a, b, c, d] = trailer;
    if *kind != PKCS7 {
        return Err(damaged("it is of no kind that the kernel takes (struct module_signature)"));
    }
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    // The kernel refuses what leaves nothing of the module.
    match signed.len().checked_sub(length) {
        Some(at @ 1..) => {
            let (contents, message) = signed.split_at(at);
            Ok(Split { contents, message: Some(message) })
        }
        _ => Err(damaged("it says that it is longer than the module")),
    }
}

/// The contents of a module, without its signature, or its signatures if it was signed more than once: what a new signature
/// and a manifest are about.
pub fn unsigned(module: &[u8]) -> Result<&[u8], SignError> {
    let mut split = self::split(module)?;
    while split.message.is_some() {
        split = self::split(split.contents)?;
    }
    Ok(split.contents)
}

/// Appends a message to a module's contents. `None` if it is too long for its length to be written.
pub fn append(contents: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(message.len()).ok()?.to_be_bytes();
    Some([contents, message, &PKCS7, &length, SIGNATURE_MARK].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_found() {
        let signed = append(b"module", b"message").unwrap();
        let found = split(&signed).unwrap();
        assert_eq!((found.contents, found.message), (&b"module"[..], Some(&b"message"[..])));
        let twice = append(&signed, b"another").unwrap();
        assert_eq!(split(&twice).unwrap().contents, signed);
        assert_eq!(unsigned(&twice).unwrap(), b"module");
        assert_eq!(split(b"module").unwrap().message, None);
    }

    #[test]
    fn the_kernels_checks_are_made() {
        let signed = append(b"module", b"message").unwrap();
        let kind = signed.len() - SIGNATURE_MARK.len() - TRAILER;
        for at in kind..kind + 8 {
            let mut other = signed.clone();
            other[at] ^= 1;
            assert!(split(&other).is_err(), "{at}");
        }
        assert!(split(SIGNATURE_MARK).is_err());
        assert!(split(&append(b"", b"message").unwrap()).is_err());
        let mut long = signed;
        long[kind + 8] = 0xff;
        assert!(split(&long).is_err());
    }

    #[test]
    fn no_length_panics() {
        let signed = append(b"module", b"message").unwrap();
        for from in 0..signed.len() {
            let _ = split(&signed[from..]);
        }
    }
}
