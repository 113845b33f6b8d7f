use crate::fake::Fake;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A sample: its metric, its labels, its value.
type Sample = (String, Vec<(String, String)>, f64);

/// Reads the format back; a line that is not of it panics.
fn parse(text: &str) -> Vec<Sample> {
    let (mut declared, mut samples) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            match words[0] {
                "HELP" => assert!(!words[2].is_empty()),
                "TYPE" => {
                    assert_eq!(words[2], "gauge");
                    assert!(!declared.contains(&words[1]), "{} is declared twice", words[1]);
                    declared.push(words[1]);
                }
                other => panic!("{other}"),
            }
            continue;
        }
        let end = line.find(['{', ' ']).unwrap();
        assert_eq!(declared.last(), Some(&&line[..end]), "samples stand below their declaration");
        let (labels, value) = match line[end..].strip_prefix('{') {
            Some(rest) => parse_labels(rest),
            None => (Vec::new(), &line[end..]),
        };
        samples.push((line[..end].to_owned(), labels, value.trim_start().parse().unwrap()));
    }
    samples
}

fn parse_labels(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut labels = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        let (mut value, mut characters) = (String::new(), after.char_indices());
        let end = loop {
            match characters.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    other => panic!("\\{other}"),
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (labels, rest.strip_prefix('}').unwrap()),
        }
    }
}

fn value(samples: &[Sample], metric: &str, label: (&str, &str)) -> Option<f64> {
    let label = (label.0.to_owned(), label.1.to_owned());
    let found = samples.iter().find(|(name, labels, _)| name == metric && labels.contains(&label));
    found.map(|(_, _, value)| *value)
}

fn two() -> Fake {
    let fake = Fake::new();
    fake.write("proc/sys/kernel/tainted", "45056\n");
    fake.write("proc/sys/kernel/version", "#1 \"odd\" \\ name\n");
    fake.patch("livepatch_a", true, false);
    fake.module("livepatch_a", 1);
    fake.write("sys/module/livepatch_a/parameters/fixes", "CVE-2026-1,CVE-2026-2\n");
    fake.write("sys/module/livepatch_a/parameters/subject", "two\nlines\n");
    fake.patch("livepatch_b", true, true);
    fake.module("livepatch_b", 1);
    fake.task(7, 7, "stalls", 0, "0\n", "");
    fake.task(8, 8, "moved", 0, "1\n", "");
    fake
}

#[test]
fn metrics_read_back() {
    let text = two().system().metrics().unwrap();
    let samples = parse(&text);
    assert_eq!(value(&samples, "kmend_livepatch_info", ("subject", "two\nlines")), Some(1.0), "{text}");
    assert_eq!(value(&samples, "kmend_livepatch_info", ("fixes", "CVE-2026-1,CVE-2026-2")), Some(1.0));
    assert_eq!(value(&samples, "kmend_kernel_info", ("version", "#1 \"odd\" \\ name")), Some(1.0));
    assert_eq!(value(&samples, "kmend_livepatch_transition", ("name", "livepatch_b")), Some(1.0));
    assert_eq!(value(&samples, "kmend_livepatch_blocking_tasks", ("name", "livepatch_b")), Some(1.0));
    assert_eq!(value(&samples, "kmend_livepatch_blocking_tasks", ("name", "livepatch_a")), Some(0.0));
    assert_eq!(value(&samples, "kmend_livepatch_in_force", ("name", "livepatch_a")), Some(1.0));
    assert_eq!(value(&samples, "kmend_livepatch_in_force", ("name", "livepatch_b")), Some(0.0));
    assert_eq!(value(&samples, "kmend_fix_in_force", ("fix", "CVE-2026-2")), Some(1.0));
    assert_eq!(value(&samples, "kmend_kernel_taint_flag", ("letter", "K")), Some(1.0));
}

#[test]
fn a_kernel_without_livepatches_has_metrics_too() {
    let fake = Fake::new();
    fs::remove_dir(fake.path("sys/kernel/livepatch")).unwrap();
    let samples = parse(&fake.system().metrics().unwrap());
    assert!(samples.iter().any(|sample| sample.0 == "kmend_kernel_livepatch_supported" && sample.2 == 0.0));
    assert!(!samples.iter().any(|sample| sample.0 == "kmend_livepatch_enabled"));
}

#[test]
fn the_file_is_written_whole_readable_and_alone() {
    let fake = two();
    fake.folder("textfile");
    let file = fake.path("textfile/kmend.prom");
    // What is at its place, a link elsewhere even, is replaced and not followed.
    fake.write("elsewhere", "untouched");
    std::os::unix::fs::symlink(fake.path("elsewhere"), &file).unwrap();
    fake.system().write_metrics(&file).unwrap();
    assert_eq!(fake.read("elsewhere"), "untouched");
    parse(&fs::read_to_string(&file).unwrap());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(fake.path("textfile")).unwrap().count(), 1);
    assert!(fake.system().write_metrics(&fake.path("no/such/kmend.prom")).is_err());
}
