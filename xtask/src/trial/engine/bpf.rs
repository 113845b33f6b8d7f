//! BPF programs at a function of the kernel proper, while it is patched with a jump (tests/engine/tracer.c counts its calls).

use super::checks::{Check, check};

/// All steps in their order.
pub(super) const BPF: &[Check] = &[
    check(
        "load for BPF",
        "insmod /m/kmend_engine.ko; for m in target leaf2 vmlinux2 bpf3; do insmod /m/kmend_$m.ko; done; jump kmend_vmlinux2; jump kmend_bpf3",
        "",
    ),
    check(
        "fentry and fexit before, during and after a jump",
        "seen() { echo $(grep -c 'by the engine' /proc/cmdline) $(ask); }
         for m in immediate stop-machine hybrid lazy refcount quiesce; do attach cmdline_proc_show fentry fexit; seen
         turn kmend_vmlinux2 $m 1; seen; how kmend_vmlinux2; turn kmend_vmlinux2 $m 0; seen; detach; grep -c 'by the engine' /proc/cmdline; done",
        "attached\n0 1 1\n1 2 2\nvmlinux cmdline_proc_show patched jump\n0 3 3\n0\nattached\n0 1 1\n1 2 2\nvmlinux cmdline_proc_show patched jump\n0 3 3\n0
         attached\n0 1 1\n1 2 2\nvmlinux cmdline_proc_show patched jump\n0 3 3\n0\nattached\n0 1 1\n1 2 2\nvmlinux cmdline_proc_show patched jump\n0 3 3\n0
         attached\n0 1 1\n1 2 2\nvmlinux cmdline_proc_show patched jump\n0 3 3\n0\nattached\n0 1 1\n1 2 2\nvmlinux cmdline_proc_show patched jump\n0 3 3\n0",
    ),
    check(
        "fentry and fexit come and go while a function jumps",
        "seen() { echo $(grep -c 'by the engine' /proc/cmdline) $(ask); }
         turn kmend_vmlinux2 hybrid 1; attach cmdline_proc_show fentry fexit; seen; detach; grep -c 'by the engine' /proc/cmdline
         attach cmdline_proc_show fexit; seen; turn kmend_vmlinux2 stop-machine 0; seen; turn kmend_vmlinux2 hybrid 1; seen; detach
         grep -c 'by the engine' /proc/cmdline; how kmend_vmlinux2; turn kmend_vmlinux2 hybrid 0; grep -c 'by the engine' /proc/cmdline",
        "attached\n1 1 1\n1\nattached\n1 1\n0 2\n1 3\n1\nvmlinux cmdline_proc_show patched jump\n0",
    ),
    // Since Linux 6.4 (5b481acab4ce) this function is for programs of every kind, where Debian's kernels have no other.
    check(
        "programs of every kind that the kernel lets in",
        "kinds='fentry fexit'; ! grep -q register_btf_fmodret_id_set /proc/kallsyms || kinds='fentry modify_return fexit sleepable'
         seen() { echo $(ask call | tr ' ' '\\n' | uniq); }
         attach bpf_fentry_test1 $kinds; seen; turn kmend_bpf3 hybrid 1; seen; how kmend_bpf3; detach; attach bpf_fentry_test1 $kinds; seen
         turn kmend_bpf3 refcount 0; seen; echo ftrace > $S/kmend_bpf3/redirect; turn kmend_bpf3 stop-machine 1; seen; turn kmend_bpf3 immediate 0; seen; detach; jump kmend_bpf3",
        "attached\nsame 1\nother 2\nvmlinux bpf_fentry_test1 patched jump\nattached\nother 1\nsame 2\nother 3\nsame 4",
    ),
    check(
        "programs come and go all the time",
        "rm -f /tmp/stop; (while [ ! -e /tmp/stop ]; do attach cmdline_proc_show fexit fentry; ask > /tmp/counts; detach; done | sort -u > /tmp/attached) &
         for m in hybrid stop-machine refcount immediate lazy quiesce; do turn kmend_vmlinux2 $m 1; grep -c 'by the engine' /proc/cmdline; turn kmend_vmlinux2 $m 0; grep -c 'by the engine' /proc/cmdline; done | tr '\\n' ' '
         touch /tmp/stop; wait; enabled kmend_vmlinux2; cat /tmp/attached",
        "1 0 1 0 1 0 1 0 1 0 1 0 kmend_vmlinux2 0 0 0\nattached",
    ),
    // The kernel cannot walk a stack with a BPF trampoline on it.
    check(
        "a task that sleeps below fexit",
        "attach pipe_read fexit; mkfifo /tmp/pipe; (sleep 1000 > /tmp/pipe) & (read x < /tmp/pipe) & sleep 0.5; echo 2000 > $S/kmend_leaf2/timeout_ms
         begin kmend_leaf2 stop-machine 1; sleep 1; cut -d' ' -f3- < $S/kmend_leaf2/blocking; late kmend_leaf2; enabled kmend_leaf2
         turn kmend_leaf2 hybrid 1; enabled kmend_leaf2; turn kmend_leaf2 hybrid 0; exec 3>&- 4<&-; kill $(jobs -p); wait",
        "attached\n(unreliable stack)\nkmend_leaf2 0 0 -110\nkmend_leaf2 1 0 0",
    ),
    check(
        "unload after BPF",
        "for m in leaf2 vmlinux2 bpf3 target; do rmmod kmend_$m || echo $m stays; done; i=0
         while ! rmmod kmend_engine 2>/tmp/no && [ $i -lt 50 ]; do i=$((i+1)); sleep 0.1; done; grep -c kmend /proc/modules",
        "0",
    ),
];
