//! What the kernel's selftests for livepatch (tools/testing/selftests/livepatch) ask of it, asked of the engine.
//!
//! docs/consistency.md has the table of which scenario is which step. busybox' insmod tries twice what is refused, which is seen in the log.

use super::checks::{Check, check};

/// All steps in their order.
pub(super) const SELFTESTS: &[Check] = &[
    check(
        "hooks at load and unload",
        "insmod /m/kmend_engine.ko; said > /dev/null; insmod /m/kmend_calls2.ko decline=-19 2>&1 | grep -c 'No such device'; ls $S | grep -c kmend_calls2; said | uniq
         insmod /m/kmend_calls2.ko; rmmod kmend_calls2; said; insmod /m/kmend_calls2.ko; insmod /m/kmend_calls3.ko; said",
        "1\n0\ncalls2: load\ncalls2: load\ncalls2: unload\ncalls2: load\ncalls3: load",
    ),
    check(
        "callbacks: no target is there",
        "turn kmend_calls2 hybrid 1; said; turn kmend_calls2 hybrid 0; said",
        "calls2: pre_patch vmlinux there\ncalls2: post_patch vmlinux there\nengine: 'kmend_calls2': enabled
         calls2: pre_unpatch vmlinux there\ncalls2: post_unpatch vmlinux there\nengine: 'kmend_calls2': disabled",
    ),
    check(
        "callbacks: the target was there before",
        "insmod /m/kmend_target.ko; turn kmend_calls2 hybrid 1; call leaf; said; turn kmend_calls2 hybrid 0; call leaf; said; rmmod kmend_target",
        "2\ncalls2: pre_patch vmlinux there\ncalls2: pre_patch kmend_target live\ncalls2: post_patch vmlinux there\ncalls2: post_patch kmend_target live\nengine: 'kmend_calls2': enabled
         1\ncalls2: pre_unpatch vmlinux there\ncalls2: pre_unpatch kmend_target live\ncalls2: post_unpatch vmlinux there\ncalls2: post_unpatch kmend_target live\nengine: 'kmend_calls2': disabled",
    ),
    check(
        "callbacks: the target comes, and is there at the end",
        "turn kmend_calls2 hybrid 1; said; insmod /m/kmend_target.ko; said; call leaf; turn kmend_calls2 hybrid 0; said; call leaf; rmmod kmend_target; said",
        "calls2: pre_patch vmlinux there\ncalls2: post_patch vmlinux there\nengine: 'kmend_calls2': enabled
         calls2: pre_patch kmend_target coming\ncalls2: post_patch kmend_target coming\n2
         calls2: pre_unpatch vmlinux there\ncalls2: pre_unpatch kmend_target live\ncalls2: post_unpatch vmlinux there\ncalls2: post_unpatch kmend_target live\nengine: 'kmend_calls2': disabled\n1",
    ),
    check(
        "callbacks: the target was there, and goes",
        "insmod /m/kmend_target.ko; turn kmend_calls2 hybrid 1; said | wc -l; rmmod kmend_target; said; turn kmend_calls2 hybrid 0; said",
        "5\ncalls2: pre_unpatch kmend_target going\ncalls2: post_unpatch kmend_target going
         calls2: pre_unpatch vmlinux there\ncalls2: post_unpatch vmlinux there\nengine: 'kmend_calls2': disabled",
    ),
    check(
        "callbacks: the target comes and goes",
        "turn kmend_calls2 hybrid 1; said | wc -l; insmod /m/kmend_target.ko; how kmend_calls2; rmmod kmend_target; how kmend_calls2; said; turn kmend_calls2 hybrid 0; said",
        "3\nkmend_target kt_leaf patched\nkmend_shapes ks_cold absent\nkmend_shapes ks_calm absent\nkmend_target kt_leaf absent\nkmend_shapes ks_cold absent\nkmend_shapes ks_calm absent
         calls2: pre_patch kmend_target coming\ncalls2: post_patch kmend_target coming\ncalls2: pre_unpatch kmend_target going\ncalls2: post_unpatch kmend_target going
         calls2: pre_unpatch vmlinux there\ncalls2: post_unpatch vmlinux there\nengine: 'kmend_calls2': disabled",
    ),
    check(
        "pre_patch declines: the patch, then a target",
        "P=/sys/module/kmend_calls2/parameters/decline; insmod /m/kmend_target.ko; echo -19 > $P; begin kmend_calls2 hybrid 1 2>&1 | grep -c 'No such device'; said; enabled kmend_calls2; call leaf; rmmod kmend_target
         echo 0 > $P; turn kmend_calls2 hybrid 1; said; echo -19 > $P; insmod /m/kmend_target.ko 2>&1 | grep -c 'No such device'; grep -c kmend_target /proc/modules; said | sort -u; echo 0 > $P; insmod /m/kmend_target.ko; said; call leaf
         rmmod kmend_target; turn kmend_calls2 hybrid 0; said",
        "1\ncalls2: pre_patch vmlinux there\nkmend_calls2 0 0 0\n1\ncalls2: pre_patch vmlinux there\ncalls2: post_patch vmlinux there\nengine: 'kmend_calls2': enabled
         1\n0\ncalls2: pre_patch kmend_target coming\nengine: 'kmend_calls2' cannot patch module kmend_target (-19), which is refused
         calls2: pre_patch kmend_target coming\ncalls2: post_patch kmend_target coming\n2
         calls2: pre_unpatch kmend_target going\ncalls2: post_unpatch kmend_target going
         calls2: pre_unpatch vmlinux there\ncalls2: post_unpatch vmlinux there\nengine: 'kmend_calls2': disabled",
    ),
    check(
        "callbacks: several targets",
        "insmod /m/kmend_shapes.ko; turn kmend_calls2 hybrid 1; insmod /m/kmend_target.ko; rmmod kmend_target; turn kmend_calls2 hybrid 0; said",
        "calls2: pre_patch vmlinux there\ncalls2: pre_patch kmend_shapes live\ncalls2: post_patch vmlinux there\ncalls2: post_patch kmend_shapes live\nengine: 'kmend_calls2': enabled
         calls2: pre_patch kmend_target coming\ncalls2: post_patch kmend_target coming\ncalls2: pre_unpatch kmend_target going\ncalls2: post_unpatch kmend_target going
         calls2: pre_unpatch vmlinux there\ncalls2: pre_unpatch kmend_shapes live\ncalls2: post_unpatch vmlinux there\ncalls2: post_unpatch kmend_shapes live\nengine: 'kmend_calls2': disabled",
    ),
    // While a transition is held up, a target that comes gets its post_patch() when the transition ends, and one that went never did.
    check(
        "callbacks: a busy target, and a transition that is reversed",
        "for m in hybrid stop-machine; do cat /proc/kmend_shapes/tire; (read x < /proc/kmend_shapes/cold; echo $x) > /tmp/slept & sleep 0.3; begin kmend_calls2 $m 1; said
         insmod /m/kmend_target.ko; rmmod kmend_target; said; echo 0 > $S/kmend_calls2/enabled; late kmend_calls2; said; cat /proc/kmend_shapes/wake; wait; cat /tmp/slept; done",
        "1\ncalls2: pre_patch vmlinux there\ncalls2: pre_patch kmend_shapes live\ncalls2: pre_patch kmend_target coming\ncalls2: post_unpatch kmend_target going
         calls2: post_unpatch vmlinux there\ncalls2: post_unpatch kmend_shapes live\nengine: 'kmend_calls2': disabled\n1\n1
         1\ncalls2: pre_patch vmlinux there\ncalls2: pre_patch kmend_shapes live\ncalls2: pre_patch kmend_target coming\ncalls2: post_unpatch kmend_target going
         calls2: post_unpatch vmlinux there\ncalls2: post_unpatch kmend_shapes live\nengine: 'kmend_calls2': disabled\n1\n1",
    ),
    // refcount does not count what the kernel forbids kprobes in (ks_calm).
    check(
        "callbacks: a transition that cannot begin",
        "turn kmend_calls2 hybrid 1; said | wc -l; begin kmend_calls2 refcount 0 2>&1 | grep -c 'not supported'; said; enabled kmend_calls2; turn kmend_calls2 hybrid 0; said | wc -l
         begin kmend_calls2 refcount 1 2>&1 | grep -c 'not supported'; said; enabled kmend_calls2",
        "5\n1\ncalls2: pre_unpatch vmlinux there\ncalls2: pre_unpatch kmend_shapes live\ncalls2: post_patch vmlinux there\ncalls2: post_patch kmend_shapes live\nkmend_calls2 1 0 0\n5
         1\ncalls2: pre_patch vmlinux there\ncalls2: pre_patch kmend_shapes live\ncalls2: post_unpatch vmlinux there\ncalls2: post_unpatch kmend_shapes live\nkmend_calls2 0 0 0",
    ),
    check(
        "callbacks: a target comes to a transition that ends",
        "cat /proc/kmend_shapes/tire; (read x < /proc/kmend_shapes/cold; echo $x) > /tmp/slept & sleep 0.3; begin kmend_calls2 hybrid 1; insmod /m/kmend_target.ko; cat /proc/kmend_shapes/wake; wait
         late kmend_calls2; call leaf; said; turn kmend_calls2 hybrid 0; said | wc -l; rmmod kmend_target; rmmod kmend_shapes",
        "1\n1\n2\ncalls2: pre_patch vmlinux there\ncalls2: pre_patch kmend_shapes live\ncalls2: pre_patch kmend_target coming
         calls2: post_patch vmlinux there\ncalls2: post_patch kmend_target live\ncalls2: post_patch kmend_shapes live\nengine: 'kmend_calls2': enabled\n7",
    ),
    check(
        "callbacks: several patches",
        "turn kmend_calls2 hybrid 1; turn kmend_calls3 hybrid 1; turn kmend_calls3 hybrid 0; turn kmend_calls2 hybrid 0; said",
        "calls2: pre_patch vmlinux there\ncalls2: post_patch vmlinux there\nengine: 'kmend_calls2': enabled\ncalls3: pre_patch vmlinux there\ncalls3: post_patch vmlinux there\nengine: 'kmend_calls3': enabled
         calls3: pre_unpatch vmlinux there\ncalls3: post_unpatch vmlinux there\nengine: 'kmend_calls3': disabled\ncalls2: pre_unpatch vmlinux there\ncalls2: post_unpatch vmlinux there\nengine: 'kmend_calls2': disabled",
    ),
    check(
        "callbacks of a patch that is replaced are not called",
        "rmmod kmend_calls3; insmod /m/kmend_calls3.ko replace=1; said | wc -l; turn kmend_calls2 hybrid 1; said | wc -l; turn kmend_calls3 hybrid 1; said; enabled kmend_calls2; rmmod kmend_calls2
         turn kmend_calls3 hybrid 0; rmmod kmend_calls3; said",
        "2\n3\ncalls3: pre_patch vmlinux there\nengine: 'kmend_calls2': disabled\ncalls3: post_patch vmlinux there\nengine: 'kmend_calls3': enabled\nkmend_calls2 0 0 0
         calls2: unload\ncalls3: pre_unpatch vmlinux there\ncalls3: post_unpatch vmlinux there\nengine: 'kmend_calls3': disabled\ncalls3: unload",
    ),
    check(
        "a replaced patch can be unloaded",
        "for m in target vmlinux2 leaf2 replace4; do insmod /m/kmend_$m.ko; done; turn kmend_vmlinux2 hybrid 1; turn kmend_leaf2 hybrid 1; grep -c engine /proc/cmdline; turn kmend_replace4 hybrid 1; grep -c engine /proc/cmdline; call leaf
         rmmod kmend_vmlinux2; rmmod kmend_leaf2; grep -c kmend_ /proc/kmend/state; call leaf; turn kmend_replace4 hybrid 0; call leaf; rmmod kmend_replace4; rmmod kmend_target",
        "1\n0\n4\n1\n4\n1",
    ),
    check(
        "two patches of the kernel proper",
        "insmod /m/kmend_vmlinux2.ko; insmod /m/kmend_bpf3.ko; turn kmend_vmlinux2 hybrid 1; turn kmend_bpf3 hybrid 1; grep -c engine /proc/cmdline; how kmend_bpf3; turn kmend_vmlinux2 hybrid 0; grep -c engine /proc/cmdline; how kmend_bpf3; turn kmend_bpf3 hybrid 0; rmmod kmend_bpf3",
        "1\nvmlinux bpf_fentry_test1 patched\n0\nvmlinux bpf_fentry_test1 patched",
    ),
    // A state of the system is handed over with a shadow variable.
    check(
        "a state that is changed and given back",
        "said > /dev/null; V=/proc/sys/kernel/panic; echo 5 > $V; insmod /m/kmend_state2.ko; turn kmend_state2 hybrid 1; cat $V; turn kmend_state2 hybrid 0; cat $V; said",
        "1002\n5\nstate2: begin\nengine: 'kmend_state2': enabled\nstate2: end\nengine: 'kmend_state2': disabled",
    ),
    check(
        "a state that a replacing patch takes over",
        "V=/proc/sys/kernel/panic; insmod /m/kmend_state3.ko; turn kmend_state2 hybrid 1; turn kmend_state3 hybrid 1; cat $V; enabled kmend_state2; begin kmend_state2 hybrid 1 2>&1 | grep -c Invalid; cat $V; turn kmend_state3 hybrid 0; cat $V; rmmod kmend_state3; said
         insmod /m/kmend_state3.ko version=2; turn kmend_state2 hybrid 1; turn kmend_state3 hybrid 1; turn kmend_state2 hybrid 1; cat $V; turn kmend_state2 hybrid 0; cat $V; said; rmmod kmend_state2; rmmod kmend_state3",
        "1003\nkmend_state2 0 0 0\n1\n1003\n5\nstate2: begin\nengine: 'kmend_state2': enabled\nstate3: take over\nengine: 'kmend_state2': disabled\nengine: 'kmend_state3': enabled\nstate3: end\nengine: 'kmend_state3': disabled
         1002\n5\nstate2: begin\nengine: 'kmend_state2': enabled\nstate3: take over\nengine: 'kmend_state2': disabled\nengine: 'kmend_state3': enabled
         state2: take over\nengine: 'kmend_state3': disabled\nengine: 'kmend_state2': enabled\nstate2: end\nengine: 'kmend_state2': disabled",
    ),
    check(
        "ftrace is turned off",
        "F=/proc/sys/kernel/ftrace_enabled; echo 0 > $F; begin kmend_vmlinux2 hybrid 1 2>&1 | grep -c busy; grep -c engine /proc/cmdline; echo 1 > $F; turn kmend_vmlinux2 hybrid 1; (echo 0 > $F) 2>&1 | grep -c busy; cat $F; grep -c engine /proc/cmdline
         turn kmend_vmlinux2 hybrid 0; jump kmend_vmlinux2; turn kmend_vmlinux2 hybrid 1; echo 0 > $F; cat $F; grep -c engine /proc/cmdline; begin kmend_vmlinux2 hybrid 0 2>&1 | grep -c busy; grep -c engine /proc/cmdline; how kmend_vmlinux2
         echo 1 > $F; turn kmend_vmlinux2 hybrid 0; grep -c engine /proc/cmdline; echo ftrace > $S/kmend_vmlinux2/redirect",
        "1\n0\n1\n1\n1\n0\n1\n1\n1\nvmlinux cmdline_proc_show patched jump\n0",
    ),
    check(
        "files and their rights",
        "turn kmend_vmlinux2 hybrid 1; cd $S/kmend_vmlinux2; stat -c '%A %n' . *; cat enabled transition replace; turn kmend_vmlinux2 hybrid 0; insmod /m/kmend_replace4.ko; cat $S/kmend_replace4/replace; rmmod kmend_replace4",
        "drwxr-xr-x .\n-r--r--r-- blocking\n-rw-r--r-- enabled\n-r--r--r-- error\n-r--r--r-- functions\n-rw-r--r-- model\n-r--r--r-- pause_ns\n-rw-r--r-- redirect\n-r--r--r-- replace\n-r--r--r-- switch_ns
         -rw-r--r-- timeout_ms\n-r--r--r-- transition\n1\n0\n0\n1",
    ),
    check(
        "a system call that two tasks make all the time",
        "insmod /m/kmend_getpid2.ko; for r in ftrace jump; do echo $r > $S/kmend_getpid2/redirect; /m/getpid > /tmp/one & one=$!; /m/getpid > /tmp/two & two=$!; until [ -s /tmp/one ] && [ -s /tmp/two ]; do sleep 0.1; done
         for m in hybrid lazy stop-machine refcount quiesce; do turn kmend_getpid2 $m 1; sleep 0.5; turn kmend_getpid2 $m 0; sleep 0.5; done; kill $one $two; wait
         echo $(cat /tmp/one); echo $(cat /tmp/two); done; rmmod kmend_getpid2",
        "living patched living patched living patched living patched living patched living\nliving patched living patched living patched living patched living patched living
         living patched living patched living patched living patched living patched living\nliving patched living patched living patched living patched living patched living",
    ),
    // One with a handler for afterwards changes where its function's callers go, as a patch does. Scripts for it came with Linux 6.13.
    check(
        "a kprobe at the entry, and one that wants the function for itself",
        "F=/sys/module/kmend_probe/parameters/hits; insmod /m/kmend_probe.ko; turn kmend_vmlinux2 hybrid 1; grep -c engine /proc/cmdline; cat $F; turn kmend_vmlinux2 hybrid 0; rmmod kmend_probe
         insmod /m/kmend_probe.ko after=1; begin kmend_vmlinux2 hybrid 1 2>&1 | grep -c busy; grep -c engine /proc/cmdline; cat $F; rmmod kmend_probe; turn kmend_vmlinux2 hybrid 1; insmod /m/kmend_probe.ko after=1 2>&1 | grep -c busy; turn kmend_vmlinux2 hybrid 0
         jump kmend_vmlinux2; turn kmend_vmlinux2 hybrid 1; insmod /m/kmend_probe.ko after=1; grep -c engine /proc/cmdline; cat $F; begin kmend_vmlinux2 hybrid 0 2>&1 | grep -c busy; grep -c engine /proc/cmdline; rmmod kmend_probe
         turn kmend_vmlinux2 hybrid 0; grep -c engine /proc/cmdline; rmmod kmend_vmlinux2",
        "1\n1\n1\n0\n1\n1\n1\n1\n1\n1\n0",
    ),
    check(
        "unload",
        "i=0; while ! rmmod kmend_engine 2>/tmp/no && [ $i -lt 50 ]; do i=$((i+1)); sleep 0.1; done; grep -c kmend /proc/modules",
        "0",
    ),
];
