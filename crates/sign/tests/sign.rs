//! Signatures: made as the kernel's sign-file makes them, read, verified, and refused.

use kmend_refusal::{Code, Coded};
use kmend_sign::{
    Certificate, Hash, KeyFiles, SignError, SignatureFinding, Signer, Trust, Verdict, append, of_module,
    unsigned,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const MODULE: &[u8] = b"a module";

fn tests(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn files(key: &str, certificate: &str, passphrase: Option<&str>) -> KeyFiles {
    KeyFiles {
        key: tests("keys").join(key),
        certificate: tests("keys").join(certificate),
        passphrase: passphrase.map(|text| text.to_owned().into()),
        hash: Hash::Sha256,
    }
}

fn signer(key: &str, certificate: &str) -> Signer {
    Signer::open(&files(key, certificate, None)).map_err(|errors| format!("{errors:?}")).unwrap()
}

fn certificates(names: &[&str]) -> Vec<Certificate> {
    names.iter().map(|name| Certificate::open(&tests("keys").join(name)).unwrap()).collect()
}

fn signed(name: &str) -> Vec<u8> {
    fs::read(tests("signed").join(name)).unwrap()
}

fn codes(files: &KeyFiles) -> Vec<Code> {
    Signer::open(files).err().unwrap_or_default().iter().map(Coded::code).collect()
}

fn verdict(module: &[u8], names: &[&str]) -> Verdict {
    of_module(module, &certificates(names)).unwrap().verdict
}

#[test]
fn the_bytes_are_those_of_the_kernels_sign_file() {
    for (name, hash) in [("rsa-sha256", Hash::Sha256), ("rsa-sha512", Hash::Sha512)] {
        let files = KeyFiles { hash, ..files("rsa.pem", "rsa.crt", None) };
        let signer = Signer::open(&files).map_err(|errors| format!("{errors:?}")).unwrap();
        assert_eq!(signer.sign_module(MODULE).unwrap(), signed(name), "{name}");
    }
    // ECDSA signatures differ from run to run in OpenSSL; all around them must not.
    for (key, certificate, name) in
        [("p256.pem", "p256.crt", "p256-sha256"), ("p384.pem", "p384.crt", "p384-sha384")]
    {
        let hash = if key == "p384.pem" { Hash::Sha384 } else { Hash::Sha256 };
        let signer = Signer::open(&KeyFiles { hash, ..files(key, certificate, None) });
        let ours = signer.map_err(|errors| format!("{errors:?}")).unwrap().sign_module(MODULE).unwrap();
        let before = |bytes: &[u8]| {
            bytes
                .windows(8)
                .position(|it| {
                    it == b"\x2a\x86\x48\xce\x3d\x04\x03\x02" || it == b"\x2a\x86\x48\xce\x3d\x04\x03\x03"
                })
                .unwrap()
        };
        // The lengths in the headers may differ by the few bytes by which the signatures' numbers differ.
        let theirs = signed(name);
        let at = before(&theirs);
        assert_eq!(before(&ours), at, "{name}");
        let different = ours[..at].iter().zip(&theirs[..at]).filter(|(a, b)| a != b).count();
        assert!(different <= 6, "{name}: {different} bytes");
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for (key, certificate) in [("rsa.pem", "rsa.crt"), ("p256.pem", "p256.crt"), ("p384.pem", "p384.crt")] {
        let signer = signer(key, certificate);
        assert_eq!(signer.sign_module(MODULE).unwrap(), signer.sign_module(MODULE).unwrap(), "{key}");
    }
}

#[test]
fn what_sign_file_signed_is_verified() {
    for name in ["rsa-sha256", "rsa-sha512", "rsa-keyid"] {
        assert_eq!(verdict(&signed(name), &["p256.crt", "rsa.crt"]), Verdict::Valid, "{name}");
        assert_eq!(verdict(&signed(name), &["p256.crt", "p384.crt"]), Verdict::Untrusted, "{name}");
    }
    assert_eq!(verdict(&signed("p256-sha256"), &["p256.crt"]), Verdict::Valid);
    assert_eq!(verdict(&signed("p384-sha384"), &["rsa.crt", "p384.crt"]), Verdict::Valid);
    assert_eq!(verdict(&signed("p384-sha384"), &[]), Verdict::Unchecked);
    assert!(of_module(MODULE, &certificates(&["rsa.crt"])).is_none());
}

#[test]
fn a_signature_names_its_signer() {
    let by_serial = of_module(&signed("rsa-sha256"), &certificates(&["rsa.der"])).unwrap();
    assert_eq!(
        by_serial.signers[0].to_string(),
        "CN=kmend test RSA,O=kmend tests, serial 5F:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:A1"
    );
    let facts = by_serial.certificate.unwrap();
    assert_eq!((facts.subject.as_str(), facts.key.as_str()), ("CN=kmend test RSA,O=kmend tests", "RSA 2048"));
    let by_key = of_module(&signed("rsa-keyid"), &[]).unwrap();
    assert_eq!(by_key.signers[0].key_id, facts.key_id);
    assert_eq!((by_key.signers[0].algorithm, by_key.signers[0].hash), ("RSA", Hash::Sha256));
}

#[test]
fn keys_are_read_in_all_their_formats() {
    let expected = signed("rsa-sha256");
    assert_eq!(signer("rsa-pkcs1.pem", "rsa.der").sign_module(MODULE).unwrap(), expected);
    for name in ["rsa-encrypted.pem", "rsa-des.pem"] {
        let encrypted = files(name, "rsa.crt", Some("kmend"));
        let signer = Signer::open(&encrypted).map_err(|errors| format!("{errors:?}")).unwrap();
        assert_eq!(signer.sign_module(MODULE).unwrap(), expected, "{name}");
        assert!(signer.notes().is_empty(), "its certificate is for signing code");
    }
    assert_eq!(self::signer("p256.pem", "p256.crt").notes().len(), 1);
}

#[test]
fn each_reason_not_to_sign_has_its_code() {
    assert_eq!(codes(&files("rsa.pem", "p256.crt", None)), [Code::KeyMismatch]);
    assert_eq!(codes(&files("rsa.pem", "expired.crt", None)), [Code::CertificateTime]);
    assert_eq!(codes(&files("rsa.pem", "no-signing.crt", None)), [Code::CertificateUsage]);
    assert_eq!(codes(&files("rsa-encrypted.pem", "rsa.crt", None)), [Code::KeyPassphrase]);
    assert_eq!(codes(&files("rsa-encrypted.pem", "rsa.crt", Some("x"))), [Code::KeyPassphrase]);
    assert_eq!(codes(&files("rsa-old-encrypted.pem", "rsa.crt", Some("kmend"))), [Code::SigningKey]);
    assert_eq!(codes(&files("rsa.crt", "rsa.pem", None)), [Code::SigningKey, Code::Certificate]);
    assert_eq!(codes(&files("rsa.pem", "ed25519.crt", None)), [Code::Certificate]);
    assert_eq!(codes(&files("none", "none", None)), [Code::Io, Code::Io]);
    assert_eq!(codes(&files("p384.pem", "expired.crt", None)), [Code::CertificateTime, Code::KeyMismatch]);
}

#[test]
fn a_signed_module_is_signed_anew_and_not_twice() {
    let once = signer("rsa.pem", "rsa.crt").sign_module(MODULE).unwrap();
    let anew = signer("p256.pem", "p256.crt").sign_module(&once).unwrap();
    assert_eq!(unsigned(&anew).unwrap(), MODULE);
    assert_eq!(verdict(&anew, &["p256.crt"]), Verdict::Valid);
    assert_eq!(signer("rsa.pem", "rsa.crt").sign_module(&anew).unwrap(), once);
}

#[test]
fn other_bytes_and_other_keys_are_told_apart() {
    let mut module = signed("rsa-sha256");
    module[0] ^= 1;
    assert_eq!(verdict(&module, &["rsa.crt"]), Verdict::Wrong);
    assert_eq!(verdict(&module, &["p256.crt"]), Verdict::Untrusted);
    let code = |finding: SignatureFinding| finding.error("x").map(|error| error.code());
    assert_eq!(code(of_module(&module, &certificates(&["rsa.crt"])).unwrap()), Some(Code::SignatureWrong));
    assert_eq!(code(of_module(&module, &certificates(&["p256.crt"])).unwrap()), Some(Code::SignerUntrusted));
    let damaged = append(MODULE, b"no message").unwrap();
    assert_eq!(code(of_module(&damaged, &[]).unwrap()), Some(Code::SignatureDamaged));
    assert_eq!(code(of_module(&signed("rsa-sha256"), &[]).unwrap()), None);
}

#[test]
fn a_damaged_signature_is_never_valid_and_never_a_panic() {
    let certificates = certificates(&["rsa.crt", "p256.crt"]);
    for name in ["rsa-sha256", "p256-sha256", "rsa-keyid"] {
        let module = signed(name);
        for length in 0..module.len() {
            let found = of_module(&module[..length], &certificates);
            assert!(found.is_none_or(|found| found.verdict != Verdict::Valid), "{name}: {length} bytes");
        }
        for at in 0..module.len() {
            for bit in 0..8 {
                let mut other = module.clone();
                other[at] ^= 1 << bit;
                let found = of_module(&other, &certificates);
                let valid = found.is_some_and(|found| found.verdict == Verdict::Valid);
                // The list of hashes in front and the algorithm's parameters are no part of what is verified.
                assert!(!valid || at >= MODULE.len(), "{name}: bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn damaged_keys_and_certificates_are_errors_and_no_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let damage = |name: &str, step: usize, check: &dyn Fn(&Path)| {
        let whole = fs::read(tests("keys").join(name)).unwrap();
        for at in (0..whole.len()).step_by(step) {
            fs::write(&path, &whole[..at]).unwrap();
            check(&path);
            let mut other = whole.clone();
            other[at] ^= 0x11;
            fs::write(&path, other).unwrap();
            check(&path);
        }
    };
    let certificate = |path: &Path| {
        // What reads is shown.
        if let Ok(certificate) = Certificate::open(path) {
            assert!(!certificate.facts().key.is_empty());
        }
    };
    damage("rsa.der", 1, &certificate);
    damage("p256.crt", 3, &certificate);
    let key = |path: &Path| {
        let files = KeyFiles { key: path.into(), ..files("", "p256.crt", None) };
        if let Err(errors) = Signer::open(&files) {
            assert!(!errors.is_empty());
        }
    };
    damage("p256.pem", 3, &key);
    damage("rsa.pem", 97, &key);
}

#[test]
fn a_folder_says_whom_to_trust() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = |folder: &Path| Trust::folder(folder);
    assert!(trusted(&folder.path().join("none")).unwrap().is_none());
    fs::write(folder.path().join("README"), "no certificate").unwrap();
    assert!(trusted(folder.path()).unwrap().is_none());
    for name in ["rsa.der", "p256.crt"] {
        fs::copy(tests("keys").join(name), folder.path().join(name)).unwrap();
    }
    assert_eq!(trusted(folder.path()).unwrap().unwrap().certificates().len(), 2);
    let both = [fs::read(tests("keys/rsa.crt")).unwrap(), fs::read(tests("keys/p384.crt")).unwrap()].concat();
    fs::write(folder.path().join("both.pem"), both).unwrap();
    assert_eq!(trusted(folder.path()).unwrap().unwrap().certificates().len(), 4);

    fs::write(folder.path().join("broken.pem"), "no certificate").unwrap();
    assert!(matches!(trusted(folder.path()), Err(SignError::Certificate { .. })));
    fs::remove_file(folder.path().join("broken.pem")).unwrap();
    fs::set_permissions(folder.path().join("rsa.der"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(trusted(folder.path()), Err(SignError::UnsafeFolder { .. })));
    fs::set_permissions(folder.path().join("rsa.der"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o775)).unwrap();
    assert_eq!(trusted(folder.path()).unwrap_err().code(), Code::TrustUnsafe);
}
