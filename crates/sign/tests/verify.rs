//! Signed files, manifests, and what is said of them.

use kmend_object::{Object, Section};
use kmend_refusal::{Code, Coded};
use kmend_sign::{
    Equality, Hash, KeyFiles, Manifest, SignError, Signer, Sources, Trust, Verdict, Verification, Wanted,
    beside, sign_file, signature_of, unsigned, verify,
};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PATCH: &[u8] = b"--- a/x\n+++ b/x\n";

fn key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

fn signer(name: &str) -> Signer {
    let (key, certificate) = (key(&format!("{name}.pem")), key(&format!("{name}.crt")));
    let files = KeyFiles { key, certificate, passphrase: None, hash: Hash::Sha256 };
    Signer::open(&files).map_err(|errors| format!("{errors:?}")).unwrap()
}

/// A livepatch and its manifest in a folder of their own.
struct Place {
    folder: TempDir,
    trust: Option<Trust>,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap(), trust: None };
        fs::write(place.module(), livepatch("livepatch_x")).unwrap();
        fs::write(place.path("x.patch"), PATCH).unwrap();
        let module = kmend_inspect::inspect(&place.module()).unwrap();
        let patches = [("x.patch".to_owned(), PATCH.to_vec())];
        let sources = Sources { version: "6.1.0-1", compiler: "gcc-12", patches: &patches };
        let manifest = Manifest::of(&module, &livepatch("livepatch_x"), &sources);
        fs::write(beside(&place.module()), manifest.text().unwrap()).unwrap();
        place
    }

    fn trusting(mut self, name: &str) -> Place {
        self.trust = Trust::files(&[key(name)]).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn module(&self) -> PathBuf {
        self.path("x.ko")
    }

    fn manifest(&self) -> PathBuf {
        beside(&self.module())
    }

    fn verify(&self, patches: &[PathBuf]) -> Result<Verification, SignError> {
        let trust = self.trust.as_ref();
        verify(&Wanted { module: &self.module(), manifest: None, trust, patches })
    }

    #[track_caller]
    fn codes(&self) -> Vec<Code> {
        let verification = self.verify(&[]).unwrap();
        assert_eq!(verification.is_verified(), verification.errors.is_empty());
        verification.errors.iter().map(Coded::code).collect()
    }
}

fn livepatch(name: &str) -> Vec<u8> {
    let modinfo = format!("name={name}\0vermagic=6.1.0-test SMP \0livepatch=Y\0kmend_fixes=CVE-2026-1\0");
    let mut object = Object::new();
    object.add_section(Section::allocated(".modinfo", 0, 1, modinfo.into_bytes()));
    object.write().unwrap()
}

#[test]
fn a_signed_file_is_verified_with_its_manifest() {
    let place = Place::new().trusting("p256.crt");
    let signed = sign_file(&place.module(), None, &signer("p256"), false).unwrap();
    assert_eq!(signed.manifest, Some([place.manifest(), signature_of(&place.manifest())]));
    assert!(signed.replaced.is_none());
    assert_eq!(unsigned(&fs::read(place.module()).unwrap()).unwrap(), livepatch("livepatch_x"));
    let verification = place.verify(&[place.path("x.patch")]).unwrap();
    assert!(verification.is_verified());
    let facts = verification.manifest.unwrap().facts;
    let equality = |name: &str| facts.iter().find(|fact| fact.fact == name).unwrap().equality;
    for name in ["sha256", "fixes", "kernel", "patch x.patch"] {
        assert_eq!(equality(name), Equality::Equal, "{name}");
    }
    assert_eq!(equality("compiler"), Equality::Stated);
    let again = sign_file(&place.module(), None, &signer("rsa"), false).unwrap();
    assert_eq!(again.replaced.unwrap().verdict, Verdict::Unchecked);
    assert_eq!(place.codes(), [Code::SignerUntrusted, Code::SignerUntrusted]);
}

#[test]
fn either_signature_vouches_but_none_may_be_wrong() {
    let place = Place::new();
    assert_eq!(place.codes(), [Code::NothingTrusted, Code::NotSigned]);
    let place = place.trusting("p256.crt");
    assert_eq!(place.codes(), [Code::NotSigned]);
    sign_file(&place.module(), None, &signer("p256"), false).unwrap();
    let signed = fs::read(place.module()).unwrap();
    fs::write(place.module(), livepatch("livepatch_x")).unwrap();
    assert_eq!(place.codes(), [], "the manifest is signed");
    fs::remove_file(signature_of(&place.manifest())).unwrap();
    assert_eq!(place.codes(), [Code::NotSigned]);
    fs::write(place.module(), &signed).unwrap();
    assert_eq!(place.codes(), [], "the module is signed");
    fs::write(signature_of(&place.manifest()), "no signature").unwrap();
    assert_eq!(place.codes(), [Code::SignatureDamaged]);
    fs::remove_file(place.manifest()).unwrap();
    assert_eq!(place.codes(), [], "a signature without a manifest is nothing");
}

#[test]
fn a_manifest_of_another_module_is_told_and_not_signed() {
    let place = Place::new().trusting("p256.crt");
    sign_file(&place.module(), None, &signer("p256"), false).unwrap();
    fs::write(place.module(), signer("p256").sign_module(&livepatch("livepatch_y")).unwrap()).unwrap();
    assert_eq!(place.codes(), [Code::ManifestDiffers]);
    let error = place.verify(&[]).unwrap().errors.remove(0).to_string();
    assert!(error.contains("name, sha256"), "{error}");
    let refused = sign_file(&place.module(), None, &signer("p256"), false).unwrap_err();
    assert_eq!(refused.code(), Code::ManifestDiffers);
}

#[test]
fn a_changed_patch_is_told() {
    let place = Place::new().trusting("p256.crt");
    sign_file(&place.module(), None, &signer("p256"), false).unwrap();
    fs::write(place.path("x.patch"), "another").unwrap();
    let error = place.verify(&[place.path("x.patch")]).unwrap().errors.remove(0);
    assert!(error.to_string().ends_with("otherwise of: patch x.patch"), "{error}");
    fs::write(place.path("y.patch"), "one more").unwrap();
    fs::write(place.path("x.patch"), PATCH).unwrap();
    let error = place.verify(&[place.path("x.patch"), place.path("y.patch")]).unwrap().errors.remove(0);
    assert!(error.to_string().ends_with("otherwise of: patch y.patch"), "{error}");
}

#[test]
fn nothing_is_written_in_a_dry_run_and_all_to_another_place() {
    let place = Place::new().trusting("rsa.crt");
    sign_file(&place.module(), None, &signer("rsa"), true).unwrap();
    assert_eq!(fs::read(place.module()).unwrap(), livepatch("livepatch_x"));
    assert!(!signature_of(&place.manifest()).exists());
    let there = place.path("signed.ko");
    sign_file(&place.module(), Some(&there), &signer("rsa"), false).unwrap();
    assert_eq!(fs::read(place.module()).unwrap(), livepatch("livepatch_x"));
    let trust = place.trust.as_ref();
    let found = verify(&Wanted { module: &there, manifest: None, trust, patches: &[] }).unwrap();
    assert!(found.is_verified() && found.manifest.is_some());
}

#[test]
fn what_is_no_livepatch_is_not_signed() {
    let place = Place::new();
    let sign = |bytes: &[u8]| {
        fs::write(place.module(), bytes).unwrap();
        sign_file(&place.module(), None, &signer("rsa"), false).unwrap_err().code()
    };
    assert_eq!(sign(b"text"), Code::ModuleFormat);
    assert_eq!(sign(b"\x1f\x8b packed"), Code::NotALivepatch);
    assert_eq!(sign(&livepatch("x").repeat(1)[..64]), Code::ModuleFormat);
}

#[test]
fn a_damaged_manifest_is_an_error_and_no_panic() {
    let place = Place::new();
    let whole = fs::read(place.manifest()).unwrap();
    let module = kmend_inspect::inspect(&place.module()).unwrap();
    for at in 0..whole.len() - 2 {
        assert!(Manifest::parse(&place.manifest(), &whole[..at]).is_err(), "{at}");
        let mut other = whole.clone();
        other[at] ^= 0x11;
        if let Ok(manifest) = Manifest::parse(&place.manifest(), &other) {
            assert!(!manifest.compare(&module, b"", &[]).is_empty());
        }
    }
    let newer = String::from_utf8(whole).unwrap().replace("\"schema\": 1", "\"schema\": 2");
    fs::write(place.manifest(), newer).unwrap();
    assert_eq!(place.verify(&[]).unwrap_err().code(), Code::ManifestFormat);
}
