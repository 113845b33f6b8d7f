//! Patches that `kmend build --engine` makes, as a user loads and watches them.

use super::{Bench, GUEST_TIMEOUT, whole};
use anyhow::{Result, bail, ensure};
use kmend_kernel::ModuleTree;
use kmend_store::Kernel;
use kmend_vm::{GuestFile, Machine, Scenario, Step};
use std::path::{Path, PathBuf};

/// What becomes one module: functions of vmlinux, of a module that is there and of one that comes; callbacks, data that is
/// exchanged, and a function in which a task sleeps.
const PATCHES: [&str; 4] = ["stall", "callback", "modules-and-vmlinux", "update-value"];
/// What becomes a livepatch of the kernel, and patches a function of the other.
const KERNELS: &str = "callback";

/// What becomes one more module: a function that ftrace does not know.
const UNTRACED: &str = "notrace";
/// Shows what that function returns: a clock that is years ahead if it is patched.
const CLOCK: &str =
    "cd /sys/kernel/tracing; echo perf > trace_clock; echo mark > trace_marker; grep mark trace";
/// How its time begins then, in seconds.
const AHEAD: &str = " 14411";

/// What is run in the guest, and what it must print. A `!` before a text: it must not.
const STEPS: &[(&str, &[&str])] = &[
    (
        "kmend load /mend.ko; echo \"load $?\"; kmend inspect /mend.ko; kmend engine load /kmend_engine.ko; kmend load /kmend_engine.ko
         kmend load /mend.ko --model quick; kmend load /mend.ko --model immediate; kmend load /kernel.ko --engine; kmend install /mend.ko",
        &[
            "refused[KM0801]", "load 2", "kmend's consistency engine, interface", "model the engine's default",
            "callback pre_patch: version_prepare", "misc_seq_show", "depends on  kmend_engine", "loaded kmend_engine", "kmend engine load",
            "refused[KM0808]", "hybrid, immediate", "refused[KM0811]", "refused[KM0807]", "refused[KM0813]", "!panic",
        ],
    ),
    (
        "kmend load --engine /mend.ko; cat /proc/version /proc/misc /sys/block/zram0/disksize; stat -c %a /proc/self/personality
         insmod /kmend/modules/dummy.ko; ip link add kmend1 type dummy; cat /sys/class/net/kmend1/mtu; ip link del kmend1
         kmend list; kmend status; kmend load /kernel.ko; kmend unload kmend_engine; kmend engine unload",
        &[
            "loaded livepatch_mend, by kmend's engine (hybrid, ftrace)", "\nmended\n", "mended-misc", "0 mended-zram", "444", "\n1111\n",
            "livepatch_mend enabled, by kmend's engine", "dummy_setup patched", "(kernel log)", "refused[KM0810]", "refused[KM0702]", "refused[KM0803]",
        ],
    ),
    (
        "kmend disable livepatch_mend --model stop-machine; kmend list; cat /proc/version; stat -c %a /proc/self/personality
         kmend enable livepatch_mend; kmend enable livepatch_mend; kmend status --prometheus | grep -e engine_info -e pause; kmend status --effective
         kmend unload livepatch_mend --model hybrid; grep -c mended /proc/version /proc/misc; ip link add kmend1 type dummy
         cat /sys/class/net/kmend1/mtu; rmmod dummy; dmesg | sed -n 's/.*version: //p' | tr '\\n' ' '",
        &[
            "disabled livepatch_mend", "livepatch_mend disabled", "\n400\n", "enabled livepatch_mend after", "KM0704",
            "kmend_livepatch_engine_info{name=\"livepatch_mend\",model=\"stop-machine\",redirect=\"ftrace\"} 1", "in force livepatch_mend",
            "unloaded livepatch_mend", "/proc/version:0", "/proc/misc:0", "\n1500\n", "started stopping stopped started stopping stopped",
            "!pause_nanoseconds{name=\"livepatch_mend\"} 0",
        ],
    ),
    (
        "mkfifo /tmp/pipe; (sleep 100000 > /tmp/pipe &) ; cat /tmp/pipe & task=$!; sleep 1
         kmend load --model stop-machine --timeout 2 /mend.ko; echo \"load $?\"; grep -c mended /proc/version; grep -c livepatch_mend /proc/modules
         kmend load --model stop-machine --wait 1 /mend.ko; echo \"left $?\"; kmend blocking; kmend status --effective; kmend signal; kmend force --yes
         kmend unload livepatch_mend; echo \"unload $?\"; kmend load --model stop-machine --wait 1 /mend.ko
         kill $task; kmend wait --timeout 60 || [ $? = 3 ]; echo \"wait $?\"; kmend status; kmend history --last 3; kmend unload livepatch_mend
         echo \"last $?\"",
        &[
            "error[KM0715]", "(cat) is in pipe_read", "it is unloaded again", "load 1", "\n0\n0\n", "error[KM0707]", "left 1", "1 task holds it",
            "wake it by themselves", "not in force livepatch_mend: it is enabling", "refused[KM0812]", "!forced", "unload 0", "wait 0",
            "livepatch_mend enabled, 1 in the stack, by kmend's engine (stop-machine, ftrace)", "held all CPUs for", "last 0",
        ],
    ),
    (
        "kmend load /untraced.ko --model hybrid; echo \"load $?\"; kmend load /untraced.ko --redirect ftrace; kmend load /untraced.ko
         cd /sys/kernel/tracing; echo perf > trace_clock; echo mark > trace_marker; grep mark trace; kmend engine status
         kmend disable livepatch_untraced --model hybrid; echo \"disable $?\"; kmend unload livepatch_untraced --model quiesce
         echo perf > trace_clock; echo later > trace_marker; grep later trace",
        &[
            "refused[KM0815]", "ftrace does not know: only model quiesce or stop-machine", "load 2", "only redirect jump",
            "loaded livepatch_untraced, by kmend's engine (stop-machine, jump)", AHEAD, "vmlinux trace_clock: patched", "disable 1",
            "this model and this redirect cannot switch", "unloaded livepatch_untraced", "mark_write: later",
        ],
    ),
    (
        "kmend engine status; kmend engine unload; grep -c kmend /proc/modules; kmend unload livepatch_mend; echo \"gone $?\"",
        &["the engine is loaded, and has no patch", "unloaded kmend_engine", "\n0\n", "gone 3"],
    ),
    (
        "kmend install /mend.ko /kmend_engine.ko --dry-run; kmend install /mend.ko /kmend_engine.ko; kmend boot --dry-run; kmend boot; cat /proc/version
         kmend boot; kmend uninstall kmend_engine; kmend status; kmend unload livepatch_mend; kmend engine unload; kmend uninstall livepatch_mend
         ls /var/lib/kmend; kmend boot; echo \"boot $?\"",
        &[
            "would install kmend_engine", "installed livepatch_mend for", "would load kmend_engine\nwould load livepatch_mend",
            "\nloaded kmend_engine\nloaded livepatch_mend\n", "\nmended\n", "loaded before kmend_engine", "refused[KM0816]",
            "  kmend_engine loaded at every boot", "uninstalled livepatch_mend", "\nhistory.jsonl\n", "nothing is installed for", "boot 3",
        ],
    ),
];

/// Builds the modules and boots the kernel with them.
pub(crate) fn run(bench: &Bench, kernel: &Kernel) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name);
    let said = build(bench, kernel, &PATCHES, &["--engine", "--name", "mend"], folder.path())?;
    ensure!(
        said.contains("advice model hybrid"),
        "the build does not say which model suits the patch:\n{said}"
    );
    build(bench, kernel, &[KERNELS], &["--name", "kernel"], folder.path())?;
    prove_untraced(bench, kernel, folder.path())?;
    whole::build_engine(bench, kernel, folder.path())?;
    let tree = ModuleTree::open(&kernel.modules)?;
    let mut scenario = Scenario::new(&kernel.image);
    scenario.machine =
        Machine { accelerator: bench.accelerator, timeout: GUEST_TIMEOUT, ..Machine::new(&kernel.image) };
    scenario.kmend = Some(bench.kmend.clone());
    scenario.files = ["livepatch-mend.ko", "livepatch-kernel.ko", "livepatch-untraced.ko", "kmend_engine.ko"]
        .map(|name| guest_file(place(name)))
        .to_vec();
    scenario.steps.extend(tree.load_order_of(&["zram".into()])?.into_iter().map(Step::LoadModule));
    // It is in the guest then, and out of the kernel.
    scenario.steps.extend(tree.load_order_of(&["dummy".into()])?.into_iter().map(Step::LoadModule));
    scenario.steps.push(Step::UnloadModule("dummy".into()));
    let first = scenario.steps.len();
    scenario.steps.extend(
        STEPS
            .iter()
            .map(|(command, _)| Step::Run { name: "engine".into(), command: format!("({command}) 2>&1") }),
    );
    let transcript = scenario.run()?;
    let mut complaints = Vec::new();
    for (step, (command, wanted)) in transcript.steps.iter().skip(first).zip(STEPS) {
        let shown = format!("\n{}", step.text());
        let wrong = |text: &&&str| match text.strip_prefix('!') {
            Some(forbidden) => shown.contains(forbidden),
            None => !shown.contains(**text),
        };
        let wrong: Vec<_> = wanted.iter().filter(wrong).collect();
        if !wrong.is_empty() {
            complaints.push(format!("{wrong:?} of\n{command}\nprinted\n{shown}"));
        }
    }
    if complaints.is_empty() { Ok(()) } else { bail!("{}", complaints.join("\n")) }
}

/// A function that ftrace does not know: what the build says of it, and the proof in a guest of its own.
fn prove_untraced(bench: &Bench, kernel: &Kernel, folder: &Path) -> Result<()> {
    let (after, before) = (format!("{CLOCK} | grep '{AHEAD}'"), format!("{CLOCK} | grep -v '{AHEAD}'"));
    let proof = ["--engine", "--name", "untraced", "--prove", "--before", &before, "--after", &after];
    let said = build(bench, kernel, &[UNTRACED], &proof, folder)?;
    for wanted in [
        "trace_clock: it has no ftrace entry: only a jump redirects it",
        "model stop-machine, redirect jump",
        "advice model stop-machine: trace_clock has no ftrace entry",
        "proved",
    ] {
        ensure!(said.contains(wanted), "the build does not say `{wanted}`:\n{said}");
    }
    Ok(())
}

/// `kmend build` of patches of tests/patches; what it says.
fn build(bench: &Bench, kernel: &Kernel, names: &[&str], more: &[&str], output: &Path) -> Result<String> {
    let files: Vec<String> = names.iter().map(|name| format!("tests/patches/{name}.patch")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    Ok(whole::build_with(bench, kernel, &files, more, output)?.text())
}

/// A module, under the guest's name for it.
fn guest_file(host: PathBuf) -> GuestFile {
    let name = host.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let guest = format!("/{}", name.strip_prefix("livepatch-").unwrap_or(&name));
    GuestFile { host, guest, program: false }
}
