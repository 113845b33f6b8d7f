//! What the command line takes, and what it says when it does not.

mod command;

use command::Place;

#[test]
fn help_is_the_manual() {
    let place = Place::new();
    place.kmend(&["--help"]).expect(
        0,
        &["kmend kernel fetch", "docs/refusals.md", "Exit codes: 0 done"],
        &[""],
    );
    for command in [
        &["build"][..],
        &["diff"],
        &["inspect"],
        &["audit"],
        &["prove"],
        &["load"],
        &["unload"],
        &["list"],
        &["kernel", "fetch"],
        &["kernel", "import"],
        &["kernel", "list"],
        &["kernel", "remove"],
    ] {
        let example = format!("  kmend {}", command.join(" "));
        place.kmend(&[command, &["--help"]].concat()).expect(0, &["Usage:", "Example", &example], &[""]);
    }
    place.kmend(&["--version"]).expect(0, &[concat!("kmend ", env!("CARGO_PKG_VERSION"))], &[""]);
}

#[test]
fn a_closed_pipe_ends_help_quietly_and_a_full_disk_does_not() {
    let place = Place::new();
    place.shell("kmend build --help | true; echo ${PIPESTATUS[0]}").expect(0, &["0\n"], &[""]);
    place.shell("kmend build --help > /dev/full").expect(1, &[""], &["error[KM0002]", "standard output"]);
}

#[test]
fn bad_usage_is_a_refusal_in_the_common_form() {
    let place = Place::new();
    place.kmend::<&str>(&[]).expect(2, &[""], &["Usage: kmend"]);
    let form = ["refused[KM0001]: bad usage\n  ", "\n  way out: "];
    place.kmend(&["frob"]).expect(2, &[""], &form);
    place.kmend(&["diff", "one.o"]).expect(2, &[""], &form);
    place.kmend(&["build", "x.patch", "--frob"]).expect(2, &[""], &["'--frob'"]);
    place.kmend(&["build", "x.patch", "--source", "."]).expect(2, &[""], &["--config <FILE>"]);
    place.kmend(&["build", "x.patch", "--before", "true"]).expect(2, &[""], &["--prove is not given"]);
    place.kmend(&["load", "x.ko", "--timeout", "soon"]).expect(2, &[""], &["soon"]);
}

#[test]
fn bad_usage_is_json_if_that_is_asked_for() {
    let ended = Place::new().kmend(&["diff", "--json"]);
    ended.expect(2, &[], &[""]);
    let refusal = &ended.json()["refusals"][0];
    assert_eq!((&refusal["code"], &refusal["title"]), (&"KM0001".into(), &"bad usage".into()));
}

#[test]
fn names_with_slashes_are_refused() {
    let place = Place::new();
    place.kmend(&["build", "x.patch", "--name", "../x"]).expect(2, &[""], &["KM0001", "'../x'"]);
    place.kmend(&["unload", "a/b"]).expect(2, &[""], &["KM0001", "'a/b'"]);
    place.kmend(&["uninstall", "../x"]).expect(2, &[""], &["KM0001", "'../x'"]);
    place.kmend(&["uninstall", "x", "--kernel", "../x", "--dry-run"]).expect(
        3,
        &[""],
        &["KM0736", "for ../x"],
    );
    place.kmend(&["release", "a\nb"]).expect(2, &[""], &["KM0001"]);
    place.kmend(&["history", "a/b"]).expect(2, &[""], &["KM0001", "'a/b'"]);
    place.kmend(&["kernel", "remove", "../x"]).expect(2, &[""], &["KM0001", "`../x`"]);
    place.kmend(&["kernel", "fetch", "debian:../x"]).expect(2, &[""], &["KM0001", "`debian:../x`"]);
    place.write("x.patch", "").kmend(&["build", "x.patch", "--kernel", "a/b"]).expect(2, &[""], &["KM0001"]);
}

#[test]
fn parameters_are_for_one_module_and_not_every_refusal_can_be_overridden() {
    let place = Place::new();
    let bad = |arguments: &[&str], why: &str| {
        place.kmend(arguments).expect(2, &[""], &["KM0001", why]);
    };
    bad(&["load", "x.ko", "--", "a=\"b"], "cannot be told to the kernel");
    bad(&["load", "x.ko", "y.ko", "--", "a=1"], "one by one");
    bad(&["load", "x.ko", "--despite", "KM0759"], "KM0711");
}

#[test]
fn the_cache_is_empty_at_first() {
    let place = Place::new();
    place.kmend(&["kernel", "list"]).expect(0, &["kmend kernel fetch"], &[""]);
    let list = place.kmend(&["kernel", "list", "--verbose", "--json"]);
    assert_eq!((list.code, list.json()), (0, serde_json::json!({"schema": 1, "kernels": [], "damaged": []})));
    let unknown =
        ["refused[KM0101]: no such kernel in the cache", "6.1.0-none", "way out: `kmend kernel list`"];
    place.kmend(&["kernel", "remove", "6.1.0-none"]).expect(2, &[""], &unknown);
    place.write("x.patch", "");
    place.kmend(&["build", "x.patch"]).expect(2, &[""], &["KM0101", "the cache holds none at all"]);
    place.kmend(&["build", "x.patch", "--kernel", "6.1.0-none"]).expect(2, &[""], &unknown);
}

#[test]
fn a_damaged_kernel_is_told_and_can_be_removed() {
    let place = Place::new();
    place.kmend(&["kernel", "list"]).expect(0, &[], &[]);
    std::fs::create_dir(place.path("cache/kernels/6.1.0-half")).unwrap();
    place.kmend(&["kernel", "list"]).expect(0, &[], &["warning", "6.1.0-half is not complete"]);
    place.write("x.patch", "");
    place.kmend(&["build", "x.patch", "--kernel", "6.1.0-half"]).expect(1, &[""], &["error[KM0110]"]);
    place.kmend(&["kernel", "remove", "6.1.0-half"]).expect(0, &["removed 6.1.0-half\n"], &[""]);
    place.kmend(&["kernel", "list"]).expect(0, &[], &[""]);
}

#[test]
fn files_that_are_not_there_are_errors_with_their_paths() {
    let place = Place::new();
    place.kmend(&["build", "none.patch"]).expect(1, &[""], &["error[KM0002]", "none.patch"]);
    place.kmend(&["inspect", "none.ko"]).expect(1, &[""], &["error[KM0002]", "none.ko"]);
    place.kmend(&["prove", "none.ko"]).expect(1, &[""], &["error[KM0002]", "none.ko"]);
    place.kmend(&["load", "none.ko"]).expect(1, &[""], &["error[KM0002]", "none.ko"]);
    place.kmend(&["install", "none.ko"]).expect(1, &[""], &["error[KM0002]", "none.ko"]);
}

#[test]
fn what_is_no_module_is_said_to_be_none() {
    let place = Place::new();
    place.write("x.ko", "text").compile("plain.ko", "int x;", &[]);
    place.kmend(&["inspect", "x.ko"]).expect(1, &[""], &["error[KM0107]", "x.ko"]);
    place.kmend(&["inspect", "plain.ko"]).expect(1, &[""], &["error[KM0107]", "not a module"]);
    let module =
        "const char i[] __attribute__((section(\".modinfo\"), used)) = \"name=frob\\0vermagic=6.1.0 SMP\";";
    place.compile("frob.ko", module, &[]);
    place.kmend(&["inspect", "frob.ko"]).expect(2, &[""], &["refused[KM0702]", "frob is no livepatch"]);
}

#[test]
fn every_command_has_a_page_and_shells_accept_the_completions() {
    let place = Place::new();
    place.kmend(&["generate", "out"]).expect(0, &["out/man\nout/completions\n"], &[""]);
    for (page, example) in [
        ("kmend.1", "kmend kernel fetch"),
        ("kmend-load.1", "kmend load"),
        ("kmend-kernel-fetch.1", "kmend kernel fetch"),
    ] {
        let text = std::fs::read_to_string(place.path("out/man").join(page)).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(example), "{page}: {text}");
    }
    let pages = std::fs::read_dir(place.path("out/man")).unwrap();
    let hidden = pages.flatten().find(|page| page.file_name() == "kmend-generate.1");
    assert!(hidden.is_none(), "it is for those who package kmend");
    place
        .shell("bash -n out/completions/kmend.bash && . out/completions/kmend.bash && complete -p kmend")
        .expect(0, &["_kmend"], &[""]);
    for file in ["_kmend", "kmend.fish"] {
        let text = std::fs::read_to_string(place.path("out/completions").join(file)).unwrap();
        assert!(text.contains("unload") && text.contains("doctor"), "{file}");
    }
    place.kmend(&["generate", "/dev/null/x"]).expect(1, &[""], &["error[KM0002]"]);
}

#[test]
fn the_doctor_tells_what_is_missing_and_makes_nothing() {
    let place = Place::new();
    let ended = place.kmend(&["doctor", "--for", "build", "--json"]);
    let diagnosis = ended.json();
    let group = &diagnosis["groups"][0];
    assert_eq!((&group["purpose"], &group["ready"]), (&"build".into(), &false.into()));
    let findings = group["findings"].as_array().unwrap();
    let kernels = findings.iter().find(|finding| finding["what"] == "kernels").unwrap();
    assert_eq!((ended.code, &kernels["verdict"]), (1, &"missing".into()), "the cache is empty");
    assert!(!place.path("cache").exists());
    place.kmend(&["doctor", "--for", "cooking"]).expect(2, &[""], &["refused[KM0001]", "cooking"]);
}

#[test]
fn metrics_go_to_standard_output_or_a_file_and_are_no_json() {
    let place = Place::new();
    place.kmend(&["status", "--prometheus"]).expect(0, &["# TYPE kmend_kernel_info gauge\n"], &[""]);
    place.kmend(&["status", "--prometheus", "kmend.prom"]).expect(0, &[], &[""]);
    let text = std::fs::read_to_string(place.path("kmend.prom")).unwrap();
    assert!(text.contains("\nkmend_livepatch_rests "), "{text}");
    place.kmend(&["status", "--prometheus", "--json"]).expect(2, &["KM0001"], &[""]);
    place.kmend(&["status", "--prometheus", "none/kmend.prom"]).expect(1, &[""], &["error[KM0002]"]);
}
