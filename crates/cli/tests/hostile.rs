//! Bad files, bad names, bad outputs and a bad environment, for all the commands: the end is an exit code with a reason that
//! names what is wrong and the way out, and never a panic, a signal, a wait without end or a half written file.
//!
//! What would change the running system is a dry run here, because these tests may run as root.

mod command;

use command::{Ended, Place};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::Path;

/// A place for the bad file in a command line.
const BAD: &str = "@";

/// Every argument of every command that names a file to read. The other files of a line are good.
const READERS: &[&str] = &[
    "inspect @",
    "inspect x.ko --cert @",
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
    "unload --dry-run @",
    "enable --dry-run @",
    "disable --dry-run @",
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
    "build x.patch --fixes @",
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

/// A folder with good files.
fn place() -> Place {
    let place = Place::new();
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sign/tests/keys");
    for name in ["rsa.pem", "rsa.crt", "rsa-encrypted.pem"] {
        place.write(name, std::fs::read(keys.join(name)).unwrap());
    }
    place.compile("a.o", "int f(int n) { return n; }", &["-ffunction-sections", "-fdata-sections"]);
    place.compile("b.o", "int f(int n) { return n + 1; }", &["-ffunction-sections", "-fdata-sections"]);
    let modinfo = "name=livepatch_x\\0vermagic=6.1.0-none SMP \\0livepatch=Y\\0depends=\\0kmend_fixes=CVE-1";
    let source = format!(
        "const char i[] __attribute__((section(\".modinfo\"), used)) = \"{modinfo}\"; extern int g(void);\n\
         int f(int n) {{ return g() + n; }} void *table[] = {{ f, table }};"
    );
    place.compile("x.ko", &source, &[]);
    place.write("x.patch", "--- a/fs/x.c\n+++ b/fs/x.c\n@@ -1 +1 @@\n-old\n+new\n");
    place.write("config", "CONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian) 12.2.0\"\n").write("image", "no image");
    std::fs::create_dir_all(place.path("tree/empty")).unwrap();
    place.write("tree/Makefile", "").write("tree/Module.symvers", "x");
    place
}

/// The words of a line, with the bad one in its place.
fn words(line: &str, bad: &OsStr) -> Vec<OsString> {
    let word = |word: &str| match word.split_once(BAD) {
        None => word.into(),
        Some((before, after)) => [before.as_ref(), bad, after.as_ref()].into_iter().collect(),
    };
    line.split(' ').map(word).collect()
}

/// Checks that a command has one of the codes, and says why in the common form.
#[track_caller]
fn expect_reason(what: &str, ended: &Ended, codes: &[i32]) {
    let Ended { code, stdout, stderr } = ended;
    assert!(codes.contains(code), "{what} ended with {code}:\n{stdout}{stderr}");
    assert!(stderr.contains("[KM") && stderr.contains("\n  way out: "), "{what} gives no reason:\n{stderr}");
    assert!(!stderr.contains("KM0009") && !stderr.contains("panicked"), "{what}:\n{stderr}");
    let tame = stderr.chars().all(|c| c == '\n' || c == '\t' || !c.is_control());
    assert!(tame, "{what} lets a terminal obey:\n{stderr:?}");
}

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
    let place = place();
    let names = bad_files(&place);
    let before = place.contents();
    for line in READERS {
        for (name, shown) in &names {
            let what = format!("kmend {line} with {shown}");
            let ended = place.kmend_in_time(&words(line, name));
            // What is no file may be the name of an installed livepatch, which is not there.
            let codes: &[i32] = if line.starts_with("load") { &[1, 2, 3] } else { &[1, 2] };
            expect_reason(&what, &ended, codes);
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
    let place = place();
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
                (format!("kmend {line}, input {number}"), place.kmend_in_time(&words(line, "".as_ref())));
            if ended.code != 0 {
                expect_reason(&what, &ended, &[1, 2]);
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
    let place = place();
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
            expect_reason(&what, &place.kmend_in_time(&words(line, name.as_ref())), &[1, 2]);
            assert_eq!(place.contents(), before, "{what} leaves something");
        }
    }
}

#[test]
fn an_image_that_is_not_read_must_be_a_file_all_the_same() {
    let place = place();
    bad_files(&place);
    for name in ["pipe", "folder", "/dev/zero", "none", "loop"] {
        let line = "kernel import --source tree --config config --release 6.1.0-x --image @";
        expect_reason(name, &place.kmend_in_time(&words(line, name.as_ref())), &[2]);
    }
}

#[test]
fn a_name_that_is_none_is_refused() {
    let place = place();
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
                expect_reason(&what, &ended, &[1, 2, 3]);
            }
            assert_eq!(place.contents(), before, "{what} leaves something");
        }
    }
}

#[test]
fn numbers_without_measure_are_no_panic() {
    let place = place();
    let most = u64::MAX.to_string();
    for line in
        ["load --dry-run x.ko --timeout @", "wait --timeout @", "prove x.ko --timeout @", "history --last @"]
    {
        let ended = place.kmend_in_time(&words(line, most.as_ref()));
        assert!((0..=3).contains(&ended.code), "kmend {line} ended with {}:\n{}", ended.code, ended.stderr);
    }
}

/// Commands that end well without a running kernel that has livepatches, and what they end with.
const WELL: &[(&str, i32)] = &[
    ("--help", 0),
    ("--version", 0),
    ("kernel list", 0),
    ("kernel list --json", 0),
    ("inspect x.ko", 0),
    ("inspect x.ko --json", 0),
    ("diff a.o b.o", 0),
    ("diff a.o b.o --json", 0),
    ("sign x.ko --key rsa.pem --cert rsa.crt --dry-run", 0),
    ("sign x.ko --key rsa.pem --cert rsa.crt --dry-run --json", 0),
    ("verify x.ko --cert rsa.crt", 2),
    ("verify x.ko --cert rsa.crt --json", 2),
    ("load --dry-run none", 1),
    ("load --dry-run text.ko --json", 1),
];

#[test]
fn outputs_that_take_nothing_change_no_exit_code_but_a_full_one_does() {
    let place = place();
    for (line, code) in WELL {
        let plain = place.kmend(&words(line, "".as_ref()));
        // What is not installed is nothing to do; where no kernel tells its release it fails.
        let code = if line.ends_with("none") { plain.code } else { *code };
        assert_eq!(plain.code, code, "kmend {line}:\n{}", plain.stderr);
        for end in ["2>&-", "2> /dev/full", "<&-", ">&-", ">&- 2>&-", "2>&1 | true"] {
            let ended = place.shell(&format!("kmend {line} {end}; echo ${{PIPESTATUS[0]}} >&2"));
            assert!(!ended.stderr.contains("panicked"), "kmend {line} {end}:\n{}", ended.stderr);
            let last = ended.stderr.lines().last().unwrap_or_default();
            assert_eq!(last, code.to_string(), "kmend {line} {end}:\n{}", ended.stderr);
        }
        if plain.stdout.is_empty() || line.starts_with("load") {
            continue;
        }
        let full = place.shell(&format!("kmend {line} > /dev/full"));
        full.expect(1, &[""], &["error[KM0002]", "standard output", "way out"]);
    }
}

#[test]
fn reasons_that_cannot_be_printed_as_json_are_printed_as_text() {
    let place = place();
    place.shell("kmend inspect none.ko --json > /dev/full").expect(1, &[""], &["error[KM0002]", "none.ko"]);
}

#[test]
fn every_document_has_a_version() {
    let place = place();
    let (list, made) = ("kernel list --verbose", "generate out");
    let done = WELL.iter().map(|(line, _)| *line).filter(|line| line.ends_with("--json"));
    let failed = READERS.iter().chain(NAMES).chain(WRITERS).copied();
    for line in
        done.chain(failed).chain([list, made, "doctor", "history", "list", "status", "boot --dry-run"])
    {
        let mut words = words(line, "/dev/null/x".as_ref());
        if !line.ends_with("--json") {
            words.push("--json".into());
        }
        let ended = place.kmend_in_time(&words);
        let json = ended.json();
        assert_eq!(json["schema"], 1, "kmend {line}:\n{}", ended.stdout);
    }
}

#[test]
fn paths_that_are_not_utf8_can_be_shown_as_json() {
    let place = place();
    let name = OsStr::from_bytes(b"\xff.ko");
    std::fs::copy(place.path("x.ko"), place.path("").join(name)).unwrap();
    let ended = place.kmend(&words("sign @ --key rsa.pem --cert rsa.crt --json", name));
    ended.expect(0, &[], &[""]);
    assert_eq!(ended.json()["module"], "\u{fffd}.ko");
}

#[test]
fn what_a_module_says_is_no_line_of_kmends_own() {
    let place = Place::new();
    let modinfo =
        "name=x\\0vermagic=6.1 SMP\\0livepatch=Y\\0kmend_subject=fix\\nsignature   valid, by CN=you\\033[2J";
    let source = format!("const char i[] __attribute__((section(\".modinfo\"), used)) = \"{modinfo}\";");
    place.compile("x.ko", &source, &[]);
    let ended = place.kmend(&["inspect", "x.ko"]);
    ended.expect(0, &["fix\\nsignature   valid, by CN=you\\u{1b}[2J\n", "\nsignature   none\n"], &[""]);
}

#[test]
fn a_limit_on_sizes_ends_a_write_and_leaves_what_was_there() {
    let place = place();
    let before = place.contents();
    let ended = place.shell("ulimit -f 1; kmend sign x.ko --key rsa.pem --cert rsa.crt");
    expect_reason("kmend sign", &ended, &[1]);
    assert!(ended.stderr.contains("x.ko"), "{}", ended.stderr);
    assert_eq!(place.contents(), before);
    expect_reason("kmend generate", &place.shell("ulimit -f 0; kmend generate out"), &[1]);
}

#[test]
fn an_environment_without_anything_is_borne() {
    let place = place();
    let clean = "env -i PATH=$PATH";
    place.shell(&format!("{clean} kmend kernel list")).expect(2, &[""], &["KM0001", "HOME"]);
    for bad in ["LC_ALL=xx_YY.none LANG=\u{1}", "TMPDIR=/none/there", "TERM=none COLUMNS=0", "PATH="] {
        let line = format!("{clean} KMEND_CACHE=cache {bad} $(command -v kmend) kernel list");
        place.shell(&line).expect(0, &["no kernels"], &[""]);
        let line = format!("{clean} HOME= {bad} $(command -v kmend) inspect x.ko");
        place.shell(&line).expect(0, &["livepatch_x"], &[""]);
    }
    let cannot = ["/dev/null", "/proc/none", "x.ko/cache", "'a b'", "$'\\xff'", "$'a\\nb'"];
    for cache in cannot {
        let ended = place.shell(&format!("KMEND_CACHE={cache} kmend kernel list"));
        expect_reason(&format!("KMEND_CACHE={cache}"), &ended, &[1, 2]);
    }
}
