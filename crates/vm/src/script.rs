//! The script that runs the steps: the guest's init, or a unit of the system on its disk.

use crate::initramfs::LIBRARIES;
use std::fmt::Write;

/// Where the guest has the `kmend` that compares memory.
pub(crate) const AUDITOR: &str = "/bin/kmend-auditor";

/// One step as the guest sees it: paths are the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GuestStep {
    /// Run the shell script at a path.
    Run { script: String },
    /// Hand a file over.
    Fetch { path: String },
    /// Load a module.
    Insert { path: String, must_succeed: bool },
    /// Unload a module.
    Remove { module: String },
    /// Load a livepatch and wait for its transition.
    Load { path: String, module: String },
    /// Compare a livepatch's memory with a module's file.
    Audit { path: String },
    /// Disable a livepatch, wait, and unload it.
    Unload { module: String },
}

impl GuestStep {
    /// Whether the scenario ends if this step fails. What a command's status means is known by the caller.
    fn must_succeed(&self) -> bool {
        !matches!(self, GuestStep::Run { .. } | GuestStep::Insert { must_succeed: false, .. })
    }
}

/// Port of the protocol; the console has the first.
const PROTOCOL_PORT: &str = "/dev/ttyS1";

/// Mounts what a guest without a system of its own needs.
const MOUNTS: &str = r"
/bin/busybox mkdir -p /kmend /proc /sys /dev /tmp /run /etc /sbin /usr/bin /usr/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
ip link set lo up
";

/// Opens the port, and defines what talks over it.
const PORT: &str = r#"
stty -F "$port" raw -echo 115200
exec 3> "$port"
say() { echo "$marker $*" >&3; }
taint() { cat /proc/sys/kernel/tainted; }
finish() {
    say "outcome $1 $(taint)"
    exec 3>&-
    sync
    $power_off
    sleep 60
}
# HOW NUMBER COMMAND...: runs a command and hands its output over.
take() {
    how=$1; number=$2; shift 2
    say "begin $number"
    "$@" > /kmend/out.$number 2>&1 < /dev/null 3>&-
    status=$?
    size=$(stat -c %s /kmend/out.$number)
    say "$how $number $size"
    head -c "$size" /kmend/out.$number >&3
    echo >&3
    say "end $number $status"
    rm /kmend/out.$number
    return $status
}
"#;

/// Loads and unloads livepatches where there is no kmend.
const LIVEPATCHES: &str = r#"
# Where a livepatch of the kernel is, or one of kmend's consistency engine.
livepatch() { if by_engine "$1"; then echo "/sys/kernel/kmend/$1"; else echo "/sys/kernel/livepatch/$1"; fi; }
by_engine() { [ -e "/sys/kernel/kmend/$1/enabled" ]; }
transition_over() { [ "$(cat "$(livepatch "$1")/transition" 2>&1)" = 0 ]; }
patch_gone() { [ ! -e "/sys/kernel/livepatch/$1" ]; }
pinned() { [ "$(cat "/sys/module/$1/parameters/pinned" 2>&1)" = Y ]; }
module_free() { [ "$(cat "/sys/module/$1/refcnt" 2>&1)" = 0 ]; }
# Since the boot: looks at sysfs take an emulated guest longer than the pauses between them.
seconds() { read -r up idle < /proc/uptime; echo "${up%.*}"; }
# CONDITION MODULE: waits until it holds.
await() {
    end=$(($(seconds) + patience))
    until "$1" "$2"; do
        if [ "$(seconds)" -gt $end ]; then
            echo "$2: $1 is not reached; tasks in the old state:"
            blockers
            return 1
        fi
        usleep 50000
    done
}
blockers() {
    if by_engine "$module"; then cat "/sys/kernel/kmend/$module/blocking"; return; fi
    target=$(cat "/sys/kernel/livepatch/$module/enabled")
    for task in /proc/[0-9]*/task/[0-9]*; do
        case $(cat $task/patch_state) in
            -1|"$target"|"") ;;
            *) echo "${task##*/} $(cat $task/comm): $(sed 's/^\[[^]]*\] //' $task/stack | tr '\n' ' ')" ;;
        esac
    done
}
load_livepatch() {
    module=$2
    insmod "$1" || return
    by_engine "$2" && { echo 1 > "/sys/kernel/kmend/$2/enabled" || return; }
    await transition_over "$2"
}
unload_livepatch() {
    module=$1
    echo 0 > "$(livepatch "$1")/enabled" || return
    if by_engine "$1"; then await transition_over "$1"; else await patch_gone "$1"; fi || return
    # What a livepatch wrote into the kernel may lead to it: then it stays in memory.
    pinned "$1" || { await module_free "$1" && rmmod "$1"; }
}
"#;

/// The steps can begin.
const READY: &str = r#"
read -r release < /proc/sys/kernel/osrelease
say "ready $(taint) $release"
cd /
"#;

/// The init script. Names and paths are quoted; `nonce` is letters and digits. `kmend` says whether the guest
/// has a kmend that loads and unloads. `patience` is the seconds that the script itself waits for a transition.
pub(crate) fn init_script(nonce: &str, steps: &[GuestStep], kmend: bool, patience: u64) -> String {
    let mut script = format!(
        "#!/bin/sh\nexport PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ LD_LIBRARY_PATH=/{LIBRARIES}\n\
         marker=KMEND-{nonce}\nport={PROTOCOL_PORT}\npatience={patience}\npower_off='poweroff -f'\n\
         {MOUNTS}{PORT}{LIVEPATCHES}{READY}"
    );
    add_steps(&mut script, steps, kmend);
    script
}

/// The script for a system that is up, which is shut down in order after the last step. Its shell and programs are those of
/// the system, and livepatches are loaded by its kmend.
pub(crate) fn system_script(nonce: &str, steps: &[GuestStep]) -> String {
    let mut script = format!(
        "#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8\n\
         marker=KMEND-{nonce}\nport={PROTOCOL_PORT}\npower_off='systemctl poweroff'\n{PORT}{READY}"
    );
    add_steps(&mut script, steps, true);
    script
}

fn add_steps(script: &mut String, steps: &[GuestStep], kmend: bool) {
    for (number, step) in steps.iter().enumerate() {
        let command = command(step, kmend);
        let how = if matches!(step, GuestStep::Fetch { .. }) { "packed" } else { "out" };
        let otherwise = if step.must_succeed() { " || finish stopped" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(script, "take {how} {number} {command}{otherwise}");
    }
    script.push_str("finish done\n");
}

fn command(step: &GuestStep, kmend: bool) -> String {
    match step {
        GuestStep::Run { script } => format!("sh {}", quoted(script)),
        GuestStep::Fetch { path } => format!("gzip -1 -c {}", quoted(path)),
        GuestStep::Insert { path, .. } => format!("insmod {}", quoted(path)),
        GuestStep::Remove { module } => format!("rmmod {}", quoted(module)),
        GuestStep::Load { path, .. } if kmend => format!("kmend load {}", quoted(path)),
        GuestStep::Load { path, module } => format!("load_livepatch {} {}", quoted(path), quoted(module)),
        GuestStep::Audit { path } => format!("{AUDITOR} audit --running {}", quoted(path)),
        GuestStep::Unload { module } if kmend => format!("kmend unload {}", quoted(module)),
        GuestStep::Unload { module } => format!("unload_livepatch {}", quoted(module)),
    }
}

fn quoted(word: &str) -> String {
    kmend_process::quote(word.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn example(kmend: bool) -> String {
        let steps = [
            GuestStep::Load { path: "/kmend/modules/it's.ko".into(), module: "x".into() },
            GuestStep::Run { script: "/kmend/steps/1".into() },
            GuestStep::Fetch { path: "/proc/kallsyms".into() },
            GuestStep::Unload { module: "x".into() },
        ];
        init_script("abc", &steps, kmend, 30)
    }

    #[test]
    fn the_steps_are_in_order_and_quoted() {
        let script = example(false);
        let steps: Vec<&str> = script.lines().filter(|line| line.starts_with("take ")).collect();
        assert_eq!(
            steps,
            [
                r"take out 0 load_livepatch '/kmend/modules/it'\''s.ko' x || finish stopped",
                "take out 1 sh /kmend/steps/1",
                "take packed 2 gzip -1 -c /proc/kallsyms || finish stopped",
                "take out 3 unload_livepatch x || finish stopped",
            ]
        );
        assert!(script.ends_with("finish done\n") && script.contains("patience=30\n"));
        assert!(example(true).contains("take out 3 kmend unload x ||"));
    }

    #[test]
    fn a_shell_accepts_the_scripts() {
        let run = [GuestStep::Run { script: "/kmend/steps/0".into() }];
        for script in [example(false), system_script("abc", &run)] {
            let output = Command::new("sh").args(["-n", "-c", &script]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
