use super::*;

const RELEASE: &str = "6.1.0-test";

/// A livepatch of a load that was killed in its transition, and of which `kmend load` then awaits the end.
const LOAD: &str = r#"== kill load 900000 again 137
== kernel
livepatch livepatch_torture_one 1 1
module livepatch_torture_one
== list 0
{"livepatches":[{"name":"livepatch_torture_one","enabled":true,"transition":true}],
 "installed":[{"name":"livepatch_torture_two","sha256":"22","held":null}]}
== complaints
== status 0
{"livepatches":[{"name":"livepatch_torture_one","enabled":true,"transition":true}],"rests":[]}
== complaints
== history 0
{"records":[],"unreadable":0}
== complaints
== files
./6.1.0-test/22.ko
./6.1.0-test/installed.json
./history.jsonl
./loading.json
./lock
== hashes
22  /var/lib/kmend/6.1.0-test/22.ko
== loading
{"schema":1,"loads":[]}
== mend load 0
loaded livepatch_torture_one in 0.52 s
== complaints
== then
livepatch livepatch_torture_one 1 0
module livepatch_torture_one
== files
./lock
"#;

/// A change of the set that was killed, with what is left of it.
fn install(left: &str, end: &str) -> String {
    LOAD.replace("kill load", "kill install")
        .replace("mend load", "mend install")
        .replace("./lock\n== hashes", &format!("./lock\n{left}== hashes"))
        .replace("== files\n./lock\n", &format!("== files\n{end}"))
}

fn complaints(log: &str) -> Vec<String> {
    judge(log, RELEASE).complaints
}

#[test]
fn a_kill_that_is_mended_is_counted_by_what_it_left() {
    let log = format!(
        "{LOAD}{}",
        LOAD.replace("1 1\n", "1 0\n").replace("\"transition\":true", "\"transition\":false")
    );
    let verdict = judge(&log, RELEASE);
    assert_eq!((verdict.kills, verdict.bad, verdict.complaints), (2, 0, Vec::<String>::new()));
    let states = &verdict.seen.0[&Kind::Load];
    assert_eq!((states["enabling"], states["enabled"]), (1, 1));
}

#[test]
fn whoever_says_something_else_than_the_kernel_is_found_out() {
    let twist = |from: &str, to: &str| {
        let log = LOAD.replace(from, to);
        assert_ne!(log, LOAD, "{from}");
        complaints(&log).first().cloned().unwrap_or_default()
    };
    assert!(twist("one 1 1\n", "one 1 0\n").contains("`list`"));
    assert!(twist("1 1\nmodule livepatch_torture_one\n", "1 1\n").contains("the modules are {}"));
    assert!(twist("== status 0\n{", "== status 1\n{").contains("`kmend status` ends with Some(\"1\")"));
    assert!(twist("\"unreadable\":0", "\"unreadable\":1").contains("history"));
    assert!(twist("\"loads\":[]}", "").contains("the crash memory is damaged"));
    assert!(twist("\"held\":null", "\"held\":{}").contains("is held"));
    assert!(twist("22  /var", "23  /var").contains("is not whole"));
    assert!(twist("\"livepatch_torture_two\"", "\"other\"").contains("the set is [\"other\"]"));
    assert!(twist("== mend load 0", "== mend load 1").contains("ends with Some(\"1\") afterwards"));
    assert!(
        twist("== then\nlivepatch livepatch_torture_one 1 0", "== then\n")
            .contains("is in memory after `load`")
    );
}

#[test]
fn what_is_left_may_be_there_until_the_next_install() {
    const WHOLE: &str = "./6.1.0-test/22.ko\n./6.1.0-test/33.ko\n./6.1.0-test/installed.json\n./lock\n";
    let verdict = judge(&install("./6.1.0-test/.new\n", WHOLE), RELEASE);
    assert_eq!(verdict.complaints, Vec::<String>::new());
    assert_eq!(verdict.seen.0[&Kind::Install]["not installed, and something to sweep"], 1);
    assert_eq!(complaints(&install("", &format!("{WHOLE}./.new\n"))).len(), 1);
    assert_eq!(complaints(&install("", &format!("{WHOLE}./6.1.0-test/44.ko\n"))).len(), 1);
}

#[test]
fn a_log_that_ends_in_the_middle_is_no_panic() {
    for length in 0..LOAD.len() {
        judge(&LOAD[..length], RELEASE);
    }
}
