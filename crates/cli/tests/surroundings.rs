//! What is around a command: outputs that are closed or full, limits, an environment without anything, and readers of what it
//! prints. The exit code stays what it is, but where a result cannot be printed.

mod command;

use command::{Place, words};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

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
    let place = Place::with_files();
    for (line, code) in WELL {
        let plain = place.kmend(&words(line, ""));
        // What is not installed is nothing to do; where no kernel tells its release it fails.
        let code = if line.ends_with("none") { plain.code } else { *code };
        assert_eq!(plain.code, code, "kmend {line}:\n{}", plain.stderr);
        if line.ends_with("--json") {
            assert_eq!(plain.json()["schema"], 1, "kmend {line}");
        }
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
    let place = Place::with_files();
    place.shell("kmend inspect none.ko --json > /dev/full").expect(1, &[""], &["error[KM0002]", "none.ko"]);
}

#[test]
fn paths_that_are_not_utf8_can_be_shown_as_json() {
    let place = Place::with_files();
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
    let place = Place::with_files();
    let before = place.contents();
    let ended = place.shell("ulimit -f 1; kmend sign x.ko --key rsa.pem --cert rsa.crt");
    ended.expect_reason("kmend sign", &[1]);
    assert!(ended.stderr.contains("x.ko"), "{}", ended.stderr);
    assert_eq!(place.contents(), before);
    place.shell("ulimit -f 0; kmend generate out").expect_reason("kmend generate", &[1]);
}

#[test]
fn an_environment_without_anything_is_borne() {
    let place = Place::with_files();
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
        ended.expect_reason(&format!("KMEND_CACHE={cache}"), &[1, 2]);
    }
}
