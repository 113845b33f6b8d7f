//! `kmend sign`, `kmend verify`, and what `kmend inspect` shows of a signature.

mod command;

use command::Place;

/// A folder with a livepatch, keys and certificates.
fn place() -> Place {
    let place = Place::new();
    let keys = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sign/tests/keys");
    for name in ["rsa.pem", "rsa.crt", "p256.pem", "p256.crt", "rsa-encrypted.pem"] {
        place.write(name, std::fs::read(keys.join(name)).unwrap());
    }
    let modinfo = "name=livepatch_x\\0vermagic=6.1.0-test SMP \\0livepatch=Y";
    let source = format!("const char i[] __attribute__((section(\".modinfo\"), used)) = \"{modinfo}\";");
    place.compile("x.ko", &source, &[]);
    place
}

#[test]
fn a_module_is_signed_shown_and_verified() {
    let place = place();
    let sign = ["sign", "x.ko", "--key", "rsa.pem", "--cert", "rsa.crt"];
    place.kmend(&[&sign[..], &["--dry-run"]].concat()).expect(0, &["would sign x.ko"], &[""]);
    place.kmend(&["inspect", "x.ko"]).expect(0, &["signature   none"], &[""]);
    place.kmend(&sign).expect(
        0,
        &["signed x.ko by CN=kmend test RSA,O=kmend tests (RSA 2048 sha256)"],
        &[""],
    );
    place.kmend(&["inspect", "x.ko"]).expect(
        0,
        &["signature   not verified: it names CN=kmend test RSA"],
        &[""],
    );
    place.kmend(&["inspect", "x.ko", "--cert", "rsa.crt"]).expect(
        0,
        &["signature   valid, by CN=kmend test RSA"],
        &[""],
    );
    place.kmend(&["verify", "x.ko", "--cert", "rsa.crt"]).expect(
        0,
        &["manifest   none", "\nverified"],
        &[""],
    );
    let other = place.kmend(&["verify", "x.ko", "--cert", "p256.crt", "--json"]);
    other.expect(2, &[], &[""]);
    let json = other.json();
    assert_eq!((&json["verified"], &json["schema"]), (&false.into(), &1.into()));
    assert_eq!(json["signature"]["verdict"], "untrusted");
    assert_eq!(json["refusals"][0]["code"], "KM0758");
    let anew = place.kmend(&["sign", "x.ko", "--key", "p256.pem", "--cert", "p256.crt", "--hash", "sha512"]);
    anew.expect(0, &["replaced a signature", "note the certificate does not say"], &[""]);
}

#[test]
fn what_is_wrong_with_a_key_is_said() {
    let place = place();
    let sign = |key, cert| place.kmend(&["sign", "x.ko", "--key", key, "--cert", cert]);
    sign("rsa.pem", "p256.crt").expect(
        2,
        &[""],
        &["refused[KM0753]", "p256.crt is for another key than rsa.pem"],
    );
    sign("rsa-encrypted.pem", "rsa.crt").expect(2, &[""], &["refused[KM0751]", "no passphrase is given"]);
    sign("none", "rsa.crt").expect(1, &[""], &["error[KM0002]", "none"]);
    place.shell("KBUILD_SIGN_PIN=kmend kmend sign x.ko --key rsa-encrypted.pem --cert rsa.crt").expect(
        0,
        &["signed"],
        &[""],
    );
    place.write("pass", "kmend\nmore\n");
    let line = "kmend sign x.ko --key rsa-encrypted.pem --cert rsa.crt --passphrase-file pass";
    place.shell(line).expect(0, &["signed"], &[""]);
    place.write("x.patch", "").kmend(&["build", "x.patch", "--sign", "rsa.pem"]).expect(
        2,
        &[""],
        &["KM0001", "--cert"],
    );
}

#[test]
fn without_a_certificate_nothing_is_verified() {
    let place = place();
    place.kmend(&["verify", "x.ko", "--trusted", "none"]).expect(2, &["not verified"], &["KM0760", "KM0759"]);
    place.kmend(&["verify", "x.ko", "--cert", "rsa.pem"]).expect(2, &[""], &["KM0752"]);
}
