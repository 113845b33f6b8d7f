//! Bad files and bad names, for all the commands: the end is an exit code with a reason that
//! names what is wrong and the way out, and never a panic, a signal, a wait without end or a half written file.
//!
//! What would change the running system is a dry run here, because these tests may run as root.

mod command;

use command::{Place, words};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;

/// Every argument of every command that names a file to read. The other files of a line are good.
const READERS: &[&str] = &[
    "inspect @",
    "inspect x.ko --cert @",
    "audit @",
    "audit x.ko --patch @",
    "load --dry-run @",
    "load --dry-run x.ko @",
    "replace --dry-run @",
    "install --dry-run @",
    "prove @",
    "sign @ --key rsa.pem --cert rsa.crt",
    "sign @ --key rsa.pem --cert rsa.crt -o other.ko",
    "sign x.ko --dry-run --key @ --cert rsa.crt",
    "sign x.ko --dry-run --key rsa.pem --cert @",
    "sign x.ko --dry-run --key rsa-encrypted.pem --cert rsa.crt --passphrase-file @",
    "verify @ --cert rsa.crt",
    "verify x.ko --cert @",
    "verify x.ko --cert rsa.crt --manifest @",
    "verify x.ko --cert rsa.crt --patch @",
    "diff @ b.o",
    "diff a.o @",
    "build @",
    "build x.patch @ -R",
    "build x.patch @ -p1 --fuzz 3",
    "build x.patch --source tree --config config --image @",
    "kernel import --source tree --config config --image @",
    "kernel import --source @ --config config --image image --release 6.1.0-x",
    "kernel import --source tree --config @ --image image --release 6.1.0-x",
    "kernel import --source tree --config config --image image --release 6.1.0-x --headers @",
];

/// Every argument of every command that names a file or folder to write.
const WRITERS: &[&str] =
    &["sign x.ko --key rsa.pem --cert rsa.crt -o @", "generate @", "status --prometheus @"];

/// Every argument that is a name.
const NAMES: &[&str] = &[
    "load --dry-run @",
    "load --dry-run x.ko --despite @",
    "load --dry-run x.ko -- @",
    "load --dry-run x.ko -- @=1",
    "load --dry-run x.ko -- a=@",
    "load --dry-run x.ko --model @",
    "load --dry-run x.ko --redirect @",
    "replace --dry-run x.ko --model @",
    "unload --dry-run @",
    "unload --dry-run x --model @",
    "enable --dry-run @",
    "enable --dry-run x --model @",
    "enable --dry-run x --redirect @",
    "disable --dry-run @",
    "disable --dry-run x --model @",
    "wait @ --timeout 0",
    "blocking @",
    "signal --dry-run @",
    "signal --dry-run --stop-cont @",
    "force --dry-run @",
    "status @",
    "history @",
    "uninstall --dry-run @",
    "uninstall --dry-run x --kernel @",
    "release --dry-run @",
    "release --dry-run x --kernel @",
    "prove x.ko --kernel @",
    "prove x.ko --module @",
    "prove x.ko --timeout @",
    "build x.patch --kernel @",
    "build x.patch --name @",
    "build x.patch -p @",
    "build x.patch --fuzz @",
    "build x.patch --fixes @",
    "build x.patch --engine --model @",
    "build x.patch --engine --redirect @",
    "sign x.ko --dry-run --key rsa.pem --cert rsa.crt --hash @",
    "kernel remove @",
    "kernel fetch @",
    "kernel fetch debian:@",
    "doctor --for @",
    "@",
    "kernel @",
    "list @",
    "list --x@",
];

/// Files that are none to read, by their names in the folder or absolute, and what of the name a message must show.
fn bad_files(place: &Place) -> Vec<(OsString, &'static str)> {
    let pipe = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, place.path("pipe"), pipe, mode, 0).unwrap();
    std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    symlink("loop", place.path("loop")).unwrap();
    symlink("nowhere", place.path("dangling")).unwrap();
    std::fs::create_dir(place.path("folder")).unwrap();
    place.write("empty", "").write("a\nb", "text").write("text", "text\n");
    std::fs::write(place.path("").join(OsStr::from_bytes(b"\xff\x1b[2J.ko")), [0; 64]).unwrap();
    let mut names: Vec<(OsString, &str)> = [
        "none",
        "pipe",
        "socket",
        "loop",
        "dangling",
        "folder",
        "empty",
        "text",
        "text/x",
        "/dev/zero",
        "/dev/null",
    ]
    .into_iter()
    .map(|name| (name.into(), name))
    .collect();
    names.push(("a\nb".into(), "b"));
    names.push((OsString::from_vec(b"\xff\x1b[2J.ko".to_vec()), "\u{fffd}\\u{1b}[2J.ko"));
    names.push(("n".repeat(10_000).into(), "nnnn"));
    names
}

#[test]
fn what_is_no_file_to_read_is_told_with_its_name() {
    let place = Place::with_files();
    let names = bad_files(&place);
    let before = place.contents();
    for line in READERS {
        for (name, shown) in &names {
            let what = format!("kmend {line} with {shown}");
            let ended = place.kmend_in_time(&words(line, name));
            // What is no file may be the name of an installed livepatch, which is not there.
            let codes: &[i32] = if line.starts_with("load") { &[1, 2, 3] } else { &[1, 2] };
            ended.expect_reason(&what, codes);
            // There is no kernel to build for, the passphrase is wrong, nobody has signed: what is there was read.
            let read = ["KM0101", "KM0751", "KM0759"].iter().any(|code| ended.stderr.contains(code));
            assert!(read || ended.stderr.contains(shown), "{what} does not name it:\n{}", ended.stderr);
            // What verify finds is its result, whatever it says.
            assert!(
                ended.stdout.is_empty() || line.starts_with("verify"),
                "{what} prints:\n{}",
                ended.stdout
            );
            assert_eq!(place.contents(), before, "{what} leaves something");
        }
    }
}

#[test]
fn a_damaged_module_is_a_reason_or_a_module_and_nothing_else() {
    let place = Place::with_files();
    let whole = std::fs::read(place.path("x.ko")).unwrap();
    place.kmend(&["sign", "x.ko", "--key", "rsa.pem", "--cert", "rsa.crt", "-o", "signed.ko"]).expect(
        0,
        &[],
        &[],
    );
    let signed = std::fs::read(place.path("signed.ko")).unwrap();
    place.shell("gzip -k x.ko && xz -k x.ko").expect(0, &[], &[]);
    let mut inputs = vec![];
    for name in ["x.ko.gz", "x.ko.xz"] {
        let packed = std::fs::read(place.path(name)).unwrap();
        inputs.extend(damaged(&packed, 4));
    }
    inputs.extend(damaged(&whole, 14));
    inputs.extend(damaged(&signed, 8));
    // A signature alone, and one whose length reaches beyond the file.
    inputs.push(signed[whole.len()..].to_vec());
    inputs.push([&[0xff; 12][..], b"~Module signature appended~\n"].concat());
    place.write("bad.ko", "");
    let names = |place: &Place| place.contents().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    let before = names(&place);
    for (number, input) in inputs.iter().enumerate() {
        place.write("bad.ko", input);
        for line in [
            "inspect bad.ko --cert rsa.crt",
            "load --dry-run bad.ko",
            "replace --dry-run bad.ko",
            "install --dry-run bad.ko",
            "prove bad.ko",
            "sign bad.ko --key rsa.pem --cert rsa.crt --dry-run",
            "verify bad.ko --cert rsa.crt",
        ] {
            let (what, ended) =
                (format!("kmend {line}, input {number}"), place.kmend_in_time(&words(line, "")));
            if ended.code != 0 {
                ended.expect_reason(&what, &[1, 2]);
                let named = ["bad.ko", "livepatch", "6.1.0"].iter().any(|name| ended.stderr.contains(name));
                assert!(named, "{what} does not name it:\n{}", ended.stderr);
            }
        }
        assert_eq!(names(&place), before, "input {number} leaves something");
    }
}

/// Pieces of a file, and the file with some bytes changed: the same ones every time.
fn damaged(whole: &[u8], count: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ whole.len() as u64;
    let mut random = move |below: usize| {
        // xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let pieces: Vec<Vec<u8>> =
        (0..count).map(|number| whole[..whole.len() * number / count].to_vec()).collect();
    let changed = (0..count).map(|number| {
        let mut bytes = whole.to_vec();
        // The headers, in which most is at stake, have their part of it.
        let below = if number % 2 == 0 { 64 } else { bytes.len() };
        for _ in 0..=number % 4 {
            let at = random(below.min(bytes.len()));
            bytes[at] ^= random(255) as u8 + 1;
        }
        bytes
    });
    let changed: Vec<Vec<u8>> = changed.collect();
    [pieces, changed].concat()
}

#[test]
fn what_cannot_be_written_is_told_and_stays_as_it_is() {
    let place = Place::with_files();
    bad_files(&place);
    symlink("/proc", place.path("read-only")).unwrap();
    let before = place.contents();
    for line in WRITERS {
        for name in ["none/x/y", "text/x", "pipe", "folder/none/x", "read-only/x"] {
            // A folder is made where there is none.
            if line.starts_with("generate") && name.contains("none") {
                continue;
            }
            let what = format!("kmend {line} with {name}");
            place.kmend_in_time(&words(line, name)).expect_reason(&what, &[1, 2]);
            assert_eq!(place.contents(), before, "{what} leaves something");
        }
    }
}

#[test]
fn an_image_that_is_not_read_must_be_a_file_all_the_same() {
    let place = Place::with_files();
    bad_files(&place);
    for name in ["pipe", "folder", "/dev/zero", "none", "loop"] {
        let line = "kernel import --source tree --config config --release 6.1.0-x --image @";
        place.kmend_in_time(&words(line, name)).expect_reason(name, &[2]);
    }
}

#[test]
fn a_name_that_is_none_is_refused() {
    let place = Place::with_files();
    let long = "n".repeat(10_000);
    let names = [
        "../x",
        "/",
        "a/b",
        "a\nb",
        "..",
        "\x1b]0;title\x07",
        "-",
        "\u{202e}x",
        &long,
        "18446744073709551616",
    ];
    let mut names: Vec<OsString> = names.iter().map(OsString::from).collect();
    names.push(OsString::from_vec(vec![0xff, 0xfe]));
    names.push(OsString::new());
    let before = place.contents();
    for line in NAMES {
        for name in &names {
            let what = format!(
                "kmend {line} with {:?}",
                name.to_string_lossy().chars().take(24).collect::<String>()
            );
            let ended = place.kmend_in_time(&words(line, name));
            let is_history = line.starts_with("history") && ended.code == 3;
            if !is_history {
                ended.expect_reason(&what, &[1, 2, 3]);
            }
            assert_eq!(place.contents(), before, "{what} leaves something");
        }
    }
}

#[test]
fn numbers_without_measure_are_no_panic() {
    let place = Place::with_files();
    let most = u64::MAX.to_string();
    for line in
        ["load --dry-run x.ko --timeout @", "wait --timeout @", "prove x.ko --timeout @", "history --last @"]
    {
        let ended = place.kmend_in_time(&words(line, &most));
        assert!((0..=3).contains(&ended.code), "kmend {line} ended with {}:\n{}", ended.code, ended.stderr);
    }
}

#[test]
fn every_document_has_a_version() {
    let place = Place::with_files();
    let lines = READERS.iter().chain(NAMES).chain(WRITERS).copied();
    let others =
        ["kernel list --verbose", "generate out", "doctor", "history", "list", "status", "boot --dry-run"];
    for line in lines.chain(others) {
        let mut words = words(line, "/dev/null/x");
        // Behind `--` it would be a parameter.
        words.insert(0, "--json".into());
        let ended = place.kmend_in_time(&words);
        assert_eq!(ended.json()["schema"], 1, "kmend {line}:\n{}", ended.stdout);
    }
}
