//! A signed livepatch, as the kernel's own tools, OpenSSL and the kernel take it.

use super::whole::{PATCH, kmend};
use super::{Bench, GUEST_TIMEOUT};
use anyhow::{Context, Result, bail, ensure};
use kmend_process::Command;
use kmend_store::Kernel;
use kmend_vm::{GuestFile, Machine, Scenario, Step};
use std::fs;
use std::path::{Path, PathBuf};

/// What is run in the guest, its exit status (of insmod the errno, EBADMSG), and what it must print. A kernel that does not demand signatures takes what it
/// has no key for; one that does demands a key.
const STEPS: [(&str, i32, &[&str]); 9] = [
    ("kmend load /signed.ko && kmend unload livepatch_meminfo", 0, &["loaded livepatch_meminfo in"]),
    // Damaged in the middle of the CMS message's first header.
    ("kmend load /damaged.ko", 2, &["KM0756"]),
    ("insmod /damaged.ko", 74, &["Bad message"]),
    (
        "mkdir -p /etc/kmend/trusted && cp /signer.crt /etc/kmend/trusted/ && kmend load /unsigned.ko",
        2,
        &["KM0759"],
    ),
    ("kmend load /signed.ko && kmend unload livepatch_meminfo", 0, &["signed by CN=kmend test RSA"]),
    ("kmend load /changed.ko", 2, &["KM0757"]),
    (
        "echo 1 > /sys/module/module/parameters/sig_enforce && kmend load /signed.ko",
        1,
        &["KM0764", "module.sig_enforce is on", "Loading of module with unavailable key is rejected"],
    ),
    ("kmend load /unsigned.ko", 2, &["KM0713", "KM0759"]),
    ("kmend status", 0, &["needed", "that a certificate in /etc/kmend/trusted signed"]),
];

/// Builds a signed livepatch, compares it with what others make of it, and boots the kernel to try it.
pub(crate) fn run(bench: &Bench, kernel: &Kernel) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = Place { folder: folder.path(), keys: crate::root().join("crates/sign/tests/keys") };
    let [key, cert] = ["rsa.pem", "rsa.crt"].map(|name| place.key(name));
    let output = place.text("");
    kmend(
        bench,
        &["build", PATCH, "--kernel", &kernel.release, "-o", &output, "--sign", &key, "--cert", &cert],
    )?;
    let module = place.text("livepatch-meminfo.ko");
    let signed = fs::read(&module)?;
    let contents = kmend_sign::unsigned(&signed)?.to_vec();
    place.write("unsigned.ko", &contents)?;
    as_sign_file(&place, kernel, &signed)?;
    for name in ["p256", "p384"] {
        let [key, cert] = ["pem", "crt"].map(|ending| place.key(&format!("{name}.{ending}")));
        let output = place.text(&format!("{name}.ko"));
        kmend(bench, &["sign", &module, "--key", &key, "--cert", &cert, "-o", &output])?;
        as_openssl(&place, &format!("{name}.ko"), &cert)?;
    }
    as_openssl(&place, "livepatch-meminfo.ko", &cert)?;
    let manifest = place.text("livepatch-meminfo.kmend.json");
    openssl(&place, &manifest, &format!("{manifest}.p7s"), &cert)?;
    kmend(bench, &["verify", &module, "--cert", &cert, "--patch", PATCH])?;
    guest(bench, kernel, &place, &signed, contents.len())
}

/// Files of this trial, and the keys.
struct Place<'a> {
    folder: &'a Path,
    keys: PathBuf,
}

impl Place<'_> {
    fn text(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    fn key(&self, name: &str) -> String {
        self.keys.join(name).to_string_lossy().into_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<String> {
        fs::write(self.folder.join(name), bytes)?;
        Ok(self.text(name))
    }
}

/// The kernel's own program makes the same bytes.
fn as_sign_file(place: &Place<'_>, kernel: &Kernel, signed: &[u8]) -> Result<()> {
    let program = kernel.kbuild.join("scripts/sign-file");
    let [unsigned, theirs] = ["unsigned.ko", "sign-file.ko"].map(|name| place.text(name));
    let [key, cert] = ["rsa.pem", "rsa.crt"].map(|name| place.key(name));
    let program = program.to_str().context("the kernel's folder is no text")?;
    Command::new(program).args(["sha256", &key, &cert, &unsigned, &theirs]).run()?;
    ensure!(fs::read(theirs)? == signed, "sign-file makes other bytes of the same key and module");
    Ok(())
}

/// OpenSSL verifies the message that is appended to a module.
fn as_openssl(place: &Place<'_>, module: &str, cert: &str) -> Result<()> {
    let signed = fs::read(place.folder.join(module))?;
    let contents = kmend_sign::unsigned(&signed)?;
    // The message lies between the contents and the 40 bytes of trailer and mark.
    let message = signed.get(contents.len()..signed.len() - 40).context("the module has no signature")?;
    openssl(place, &place.write("contents", contents)?, &place.write("message", message)?, cert)
}

fn openssl(place: &Place<'_>, contents: &str, message: &str, cert: &str) -> Result<()> {
    let out = place.text("verified");
    let arguments = ["-verify", "-binary", "-inform", "DER", "-purpose", "any", "-out", &out];
    let files = ["-in", message, "-content", contents, "-certfile", cert, "-CAfile", cert];
    Command::new("openssl").args(["cms"]).args(arguments).args(files).run()?;
    Ok(())
}

fn guest(bench: &Bench, kernel: &Kernel, place: &Place<'_>, signed: &[u8], contents: usize) -> Result<()> {
    let (mut changed, mut damaged) = (signed.to_vec(), signed.to_vec());
    let version = signed.windows(9).position(|bytes| bytes == b"vermagic=").context("no vermagic")?;
    // Another byte of a text that nothing checks: the space before `SMP`.
    let space = signed.iter().skip(version).position(|&byte| byte == b' ').context("no space")?;
    changed[version + space + 1] = b's';
    damaged[contents] ^= 0xff;
    let mut scenario = Scenario::new(&kernel.image);
    scenario.machine =
        Machine { accelerator: bench.accelerator, timeout: GUEST_TIMEOUT, ..Machine::new(&kernel.image) };
    scenario.kmend = Some(bench.kmend.clone());
    let files = [
        ("signed.ko", place.write("signed.ko", signed)?),
        ("unsigned.ko", place.text("unsigned.ko")),
        ("changed.ko", place.write("changed.ko", &changed)?),
        ("damaged.ko", place.write("damaged.ko", &damaged)?),
        ("signer.crt", place.key("rsa.crt")),
    ];
    let file = |(guest, host): (&str, String)| GuestFile {
        host: host.into(),
        guest: format!("/{guest}"),
        program: false,
    };
    scenario.files = files.into_iter().map(file).collect();
    let step = |(command, ..): &(&str, i32, &[&str])| Step::Run {
        name: (*command).into(),
        command: (*command).into(),
    };
    scenario.steps = STEPS.iter().map(step).collect();
    let transcript = scenario.run()?;
    for (outcome, (_, status, texts)) in transcript.steps.iter().zip(&STEPS) {
        let text = outcome.text();
        let complete = texts.iter().all(|expected| text.contains(expected));
        if outcome.status != *status || !complete {
            bail!("{}: {} and not {status} with {texts:?}:\n{text}", outcome.name, outcome.status);
        }
    }
    Ok(())
}
