//! The kernel's own livepatch selftests on a real system: its scripts and modules as they are in its source, with kmend in the
//! place of insmod, modprobe and rmmod.

use super::{Debian, Guest, TIMEOUT, complaint};
use crate::kernels;
use crate::narrate;
use crate::trial::Bench;
use anyhow::{Context, Result, ensure};
use kmend_kernel::Module;
use kmend_process::Command;
use kmend_store::Kernel;
use kmend_vm::{GuestFile, StepOutcome};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the scripts are in the kernel's source.
const SCRIPTS: &str = "tools/testing/selftests/livepatch";
/// Where their modules are: beside them since Linux 6.9, and among the kernel's own before.
const MODULES: [&str; 2] = ["tools/testing/selftests/livepatch/test_modules", "lib/livepatch"];
/// A program that some scripts call: it calls `getpid` for ever.
const HAMMER: &str = "test_klp-call_getpid";
/// What stands for insmod, modprobe and rmmod.
const KMOD: &str = "tests/selftests/kmod.sh";
/// Where all of it is in the guest.
const FOLDER: &str = "/kmend/selftests";

/// The package, the programs that are in the place of others, and the modules where modprobe looks for them. `build` only has to
/// be there.
const PREPARE: &str = "dpkg -i /kmend/kmend.deb && mkdir bin && cp kmod.sh bin/insmod && cp kmod.sh bin/modprobe && \
                       cp kmod.sh bin/rmmod && chmod 755 bin/* && modules=/lib/modules/$(uname -r) && \
                       mkdir -p $modules/build && cp test_modules/* $modules && depmod";

/// The scripts of a kernel's source and what they need, made for that kernel.
struct Suite {
    /// Each script's name and text, in the order of their names.
    scripts: Vec<(String, String)>,
    files: Vec<GuestFile>,
    /// The names of the modules that are livepatches.
    livepatches: BTreeSet<String>,
}

/// Runs all the scripts. Every one of their tests must say `ok`, and kmend must have loaded and unloaded every livepatch.
pub(crate) fn run(bench: &Bench, debian: &Debian, kernel: &Kernel) -> Result<()> {
    let mut guest = Guest::new(bench, debian)?;
    let suite = Suite::make(kernel, guest.folder.path())?;
    guest.files.extend(suite.files.iter().cloned());
    let scripts = suite.scripts.iter().map(|(name, _)| format!("PATH={FOLDER}/bin:$PATH bash ./{name}"));
    let commands: Vec<String> = std::iter::once(PREPARE.to_owned())
        .chain(scripts)
        .map(|command| format!("cd {FOLDER} && {command}"))
        .chain(["kmend history --json".to_owned(), "kmend list".to_owned()])
        .collect();
    let expectations: Vec<_> = commands.iter().map(|command| (command.as_str(), "")).collect();
    let mut scenario = guest.scenario(kernel, &expectations);
    // Three minutes of an emulated guest's own time, as far as it gets any.
    scenario.machine.timeout = 4 * TIMEOUT;
    let transcript = scenario.run()?;
    let [prepare, scripts @ .., history, list] = transcript.steps.as_slice() else {
        anyhow::bail!("the guest ran {} steps", transcript.steps.len());
    };
    let mut wrong: Vec<String> =
        complaint(prepare, "Setting up kmend").into_iter().chain(complaint(list, "no livepatch")).collect();
    for ((name, script), step) in suite.scripts.iter().zip(scripts) {
        let said: Vec<String> = tests_in(&step.text()).collect();
        for line in &said {
            narrate::say(&format!("{} {name}: {line}", kernels::series(&kernel.release)));
        }
        wrong.extend(failures(name, script, step));
    }
    wrong.extend(suite.unseen(&history.text())?);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

impl Suite {
    /// Takes the scripts of a kernel's source and builds their modules in a folder.
    fn make(kernel: &Kernel, folder: &Path) -> Result<Suite> {
        let source = kernel.source.join(SCRIPTS);
        let mut suite = Suite { scripts: Vec::new(), files: Vec::new(), livepatches: BTreeSet::new() };
        suite.add(&crate::root().join(KMOD), "kmod.sh", false);
        for path in ending_in(&source, "sh")? {
            let name = file_name(&path);
            suite.add(&path, &name, false);
            if name.starts_with("test-") {
                let text = fs::read_to_string(&path).with_context(|| name.clone())?;
                suite.scripts.push((name, text));
            }
        }
        if source.join(format!("{HAMMER}.c")).is_file() {
            let program = folder.join(HAMMER);
            let compile = Command::new(&kernel.compiler).args(["-static", "-O2", "-o"]).arg(&program);
            compile.arg(source.join(format!("{HAMMER}.c"))).run()?;
            suite.add(&program, HAMMER, true);
        }
        for path in build_modules(kernel, &folder.join("modules"))? {
            let module = Module::open(&path)?;
            if module.modinfo("livepatch").any(|value| value == "Y") {
                suite.livepatches.insert(module.name().to_owned());
            }
            suite.add(&path, &format!("test_modules/{}", file_name(&path)), false);
        }
        ensure!(
            !suite.scripts.is_empty() && !suite.livepatches.is_empty(),
            "the kernel's source has no such tests"
        );
        Ok(suite)
    }

    fn add(&mut self, host: &Path, name: &str, program: bool) {
        self.files.push(GuestFile { host: host.to_owned(), guest: format!("{FOLDER}/{name}"), program });
    }

    /// The livepatches that kmend's own history does not have as loaded and as unloaded.
    fn unseen(&self, history: &str) -> Result<Vec<String>> {
        let history: serde_json::Value = serde_json::from_str(history).context(history.to_owned())?;
        let records = history["records"].as_array().map(Vec::as_slice).unwrap_or_default();
        let seen = |event: &str, name: &str| {
            records
                .iter()
                .any(|it| it["event"] == event && it["livepatch"] == name && it["outcome"] != "failed")
        };
        let unseen = self.livepatches.iter().filter(|name| !seen("load", name) || !seen("unload", name));
        Ok(unseen.map(|name| format!("kmend did not load and unload {name}")).collect())
    }
}

/// Builds the tests' modules, with the kernel's build system as for any module.
fn build_modules(kernel: &Kernel, folder: &Path) -> Result<Vec<PathBuf>> {
    let sources = MODULES.iter().map(|below| kernel.source.join(below)).find(|path| path.is_dir());
    let sources = sources.context("the kernel's source has no modules for its livepatch selftests")?;
    fs::create_dir_all(folder)?;
    for path in ending_in(&sources, "c")?.into_iter().chain([sources.join("Makefile")]) {
        fs::copy(&path, folder.join(file_name(&path))).with_context(|| path.display().to_string())?;
    }
    let make = Command::new("make").arg("-C").arg(&kernel.headers).arg(format!("M={}", folder.display()));
    make.args(["-s", "-j2", "CONFIG_TEST_LIVEPATCH=m", "CONFIG_DEBUG_INFO_BTF_MODULES=", "KCFLAGS=-g0"])
        .arg(format!("CC={}", kernel.compiler))
        .arg("modules")
        .run()?;
    ending_in(folder, "ko")
}

/// What is wrong with a script's end.
fn failures(name: &str, script: &str, step: &StepOutcome) -> Option<String> {
    let tests = script.lines().filter_map(|line| line.strip_prefix("start_test \"")?.strip_suffix('"'));
    let expected: Vec<String> = tests.map(|test| format!("TEST: {test} ... ok")).collect();
    let text = step.text();
    let said: Vec<String> = tests_in(&text).collect();
    if step.status == 0 && !expected.is_empty() && said == expected {
        return None;
    }
    Some(format!("{name} ended with {} and has {} tests:\n{text}", step.status, expected.len()))
}

/// The lines that say how a test ended.
fn tests_in(output: &str) -> impl Iterator<Item = String> {
    output.lines().filter(|line| line.starts_with("TEST: ")).map(str::to_owned)
}

/// The files in a folder whose names have this ending, in the order of their names.
fn ending_in(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let mut paths: Vec<PathBuf> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|other| other == ending)).collect();
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SCRIPT: &str = "start_test \"one\"\nload_lp x\nstart_test \"two\"\n";

    #[track_caller]
    fn check(status: i32, output: &str, passes: bool) {
        let step = StepOutcome { name: String::new(), status, output: output.into(), time: Duration::ZERO };
        assert_eq!(failures("x", SCRIPT, &step).is_none(), passes, "{output}");
    }

    #[test]
    fn every_test_must_say_ok_and_once() {
        check(0, "TEST: one ... ok\nTEST: two ... ok\n", true);
        check(0, "TEST: one ... ok\nkilled\nTEST: two ... ok\n", true);
        check(1, "TEST: one ... ok\nTEST: two ... ok\n", false);
        check(0, "TEST: one ... ok\n", false);
        check(0, "TEST: one ... ok\nTEST: two ... not ok\n", false);
        check(4, "", false);
    }

    #[test]
    fn what_kmend_did_not_do_is_told() {
        let livepatches = BTreeSet::from(["x".to_owned(), "y".to_owned()]);
        let suite = Suite { scripts: Vec::new(), files: Vec::new(), livepatches };
        let record = |event: &str, outcome: &str| serde_json::json!({ "event": event, "livepatch": "x", "outcome": outcome });
        let history = |outcome| {
            serde_json::json!({ "records": [record("load", "left"), record("unload", outcome)] }).to_string()
        };
        assert_eq!(suite.unseen(&history("done")).unwrap(), ["kmend did not load and unload y"]);
        assert_eq!(suite.unseen(&history("failed")).unwrap().len(), 2);
        assert!(suite.unseen("none").is_err());
    }
}
