//! What is done with redirections by a jump, and with functions of odd shapes, after all else and with the engine loaded anew.

use super::checks::{Check, check};

/// All steps in their order.
pub(super) const JUMPS: &[Check] = &[
    check(
        "load again",
        "insmod /m/kmend_engine.ko; for m in target shapes leaf2 leaf3 replace4 plain2 recur2 tail2 cold2 loop2 key2 stay2; do insmod /m/kmend_$m.ko; done
         cat $S/kmend_leaf2/redirect; (echo leap > $S/kmend_leaf2/redirect) 2>&1 | grep -c Invalid; jump kmend_leaf2; cat $S/kmend_leaf2/redirect; how kmend_leaf2",
        "ftrace\n1\njump\nkmend_target kt_leaf absent",
    ),
    check(
        "a jump under every model",
        "for m in immediate stop-machine hybrid lazy refcount quiesce; do turn kmend_leaf2 $m 1; call leaf; how kmend_leaf2; turn kmend_leaf2 $m 0; call leaf; done
         turn kmend_leaf2 hybrid 1; (echo ftrace > $S/kmend_leaf2/redirect) 2>&1 | grep -c busy; grep leaf2 /proc/kmend/state | tr -s ' ' | cut -d' ' -f2-; turn kmend_leaf2 hybrid 0",
        "2\nkmend_target kt_leaf patched jump\n1\n2\nkmend_target kt_leaf patched jump\n1\n2\nkmend_target kt_leaf patched jump\n1\n2\nkmend_target kt_leaf patched jump\n1\n2\nkmend_target kt_leaf patched jump\n1\n2\nkmend_target kt_leaf patched jump\n1
         1\nkmend_leaf2 enabled hybrid jump",
    ),
    check(
        "tracers before, during and after a jump",
        "cd /sys/kernel/tracing; echo kt_leaf > set_ftrace_filter; echo p:kp kmend_target:kt_leaf > kprobe_events; echo r:kr kmend_target:kt_leaf >> kprobe_events
         on() { echo function > current_tracer; echo 1 > events/kprobes/enable; }; off() { echo nop > current_tracer; echo 0 > events/kprobes/enable; }
         seen() { echo > trace; call leaf; echo $(grep -c 'kt_leaf <-' trace) $(grep -c ' kp: ' trace) $(grep -c ' kr: ' trace); }
         on; seen; turn kmend_leaf2 hybrid 1; seen; how kmend_leaf2; off; call leaf; on; seen; turn kmend_leaf2 stop-machine 0; seen
         off; turn kmend_leaf2 hybrid 1; on; seen; turn kmend_leaf2 hybrid 0; seen; off; seen; echo > kprobe_events; echo > set_ftrace_filter",
        "1\n1 1 1\n2\n1 1 1\nkmend_target kt_leaf patched jump\n2\n2\n1 1 1\n1\n1 1 1\n2\n1 1 1\n1\n1 1 1\n1\n0 0 0",
    ),
    check(
        "a kprobe where the jump is",
        "cd /sys/kernel/tracing; turn kmend_leaf2 hybrid 1; echo p:kt kmend_target:kt_leaf+5 > kprobe_events 2>/tmp/no || echo p:kt kmend_target:kt_leaf+9 > kprobe_events
         echo 1 > events/kprobes/enable; call leaf; begin kmend_leaf2 hybrid 0 2>&1 | grep -c busy; call leaf; how kmend_leaf2; tr -s ' ' < kprobe_profile
         echo 0 > events/kprobes/enable; echo > kprobe_events; turn kmend_leaf2 hybrid 0; call leaf",
        "2\n1\n2\nkmend_target kt_leaf patched jump\n kt 2 0\n1",
    ),
    check(
        "versions that jump",
        "jump kmend_leaf3; turn kmend_leaf2 hybrid 1; turn kmend_leaf3 stop-machine 1; call leaf; how kmend_leaf2; how kmend_leaf3
         turn kmend_leaf3 hybrid 0; call leaf; how kmend_leaf2; turn kmend_leaf2 immediate 0; call leaf",
        "3\nkmend_target kt_leaf covered\nkmend_target kt_leaf patched jump\n2\nkmend_target kt_leaf patched jump\n1",
    ),
    check(
        "jumps are replaced",
        "for m in hybrid stop-machine immediate; do turn kmend_leaf2 hybrid 1; turn kmend_replace4 $m 1; call leaf; how kmend_replace4; enabled kmend_leaf2; turn kmend_replace4 $m 0; call leaf; jump kmend_replace4; done",
        "4\nkmend_target kt_leaf patched\nkmend_leaf2 0 0 0\n1\n4\nkmend_target kt_leaf patched jump\nkmend_leaf2 0 0 0\n1\n4\nkmend_target kt_leaf patched jump\nkmend_leaf2 0 0 0\n1",
    ),
    check(
        "a module whose functions jump goes and comes",
        "turn kmend_leaf2 hybrid 1; rmmod kmend_target; how kmend_leaf2; insmod /m/kmend_target.ko; call leaf; how kmend_leaf2; turn kmend_leaf2 hybrid 0; call leaf",
        "kmend_target kt_leaf absent\n2\nkmend_target kt_leaf patched jump\n1",
    ),
    check(
        "the kernel's livepatch is kept from a function that jumps",
        "turn kmend_leaf2 hybrid 1; insmod /m/kmend_mainline.ko 2>&1 | grep -c busy; call leaf; how kmend_leaf2; turn kmend_leaf2 hybrid 0; call leaf",
        "1\n2\nkmend_target kt_leaf patched jump\n1",
    ),
    check(
        "no room for a jump",
        "T=/proc/kmend_shapes; for f in loop key; do jump kmend_${f}2; begin kmend_${f}2 hybrid 1 2>&1 | grep -c 'not supported'; enabled kmend_${f}2
         echo ftrace > $S/kmend_${f}2/redirect; turn kmend_${f}2 hybrid 1; call $f; turn kmend_${f}2 hybrid 0; call $f; done
         dmesg | grep -o 'no room.* is within' | sed 's/.*: //'",
        "1\nkmend_loop2 0 0 0\n2\n1\n1\nkmend_key2 0 0 0\n2\n1\nwhere the function branches to is within\na static branch is within",
    ),
    check(
        "a function that ftrace does not know",
        "T=/proc/kmend_shapes; begin kmend_plain2 stop-machine 1 2>&1 | grep -c 'not supported'; jump kmend_plain2; for m in hybrid refcount; do begin kmend_plain2 $m 1 2>&1 | grep -c 'not supported'; done
         for m in stop-machine quiesce; do turn kmend_plain2 $m 1; call plain; how kmend_plain2; begin kmend_plain2 hybrid 0 2>&1 | grep -c 'not supported'; call plain; turn kmend_plain2 $m 0; call plain; done
         busy plain 2 kmend_plain2 stop-machine 0; turn kmend_plain2 stop-machine 1; rmmod kmend_shapes; insmod /m/kmend_shapes.ko; call plain; how kmend_plain2; turn kmend_plain2 stop-machine 0; call plain",
        "1\n1\n1\n2\nkmend_shapes ks_plain patched jump\n1\n2\n1\n2\nkmend_shapes ks_plain patched jump\n1\n2\n1\n1 2\n2\nkmend_shapes ks_plain patched jump\n1",
    ),
    // 11: recursion by a pointer, a part that was moved away, a tail call.
    check(
        "recursion: immediate breaks, others hold",
        "T=/proc/kmend_shapes; busy recur 4 kmend_recur2 immediate 0 0; busy recur 1 kmend_recur2 stop-machine 0.1; busy recur 1 kmend_recur2 refcount 0.1; jump kmend_recur2; for m in hybrid lazy quiesce; do busy recur 4 kmend_recur2 $m 0; done",
        "0 1\n1\n1\n1\n1\n1",
    ),
    check(
        "a task in a part that was moved away",
        "T=/proc/kmend_shapes; call tire; (read x < $T/cold; echo $x) > /tmp/slept & sleep 0.3; echo 2000 > $S/kmend_cold2/timeout_ms; jump kmend_cold2
         for m in stop-machine hybrid; do begin kmend_cold2 $m 1; sleep 1; cut -d' ' -f3- < $S/kmend_cold2/blocking; late kmend_cold2; enabled kmend_cold2; done
         turn kmend_cold2 immediate 1; how kmend_cold2; call cold wake; wait; cat /tmp/slept; turn kmend_cold2 hybrid 0; call cold",
        "1\nks_cold\nkmend_cold2 0 0 -110\nks_cold\nkmend_cold2 0 0 -110\nkmend_shapes ks_cold patched jump\n2 1\n1\n1",
    ),
    check(
        "a helper that was jumped to keeps the patch's module",
        "T=/proc/kmend_shapes; jump kmend_tail2; for m in hybrid stop-machine refcount immediate; do turn kmend_tail2 $m 1; (read x < $T/tail; echo $x) > /tmp/slept & sleep 0.3; begin kmend_tail2 $m 0; enabled kmend_tail2; rmmod kmend_tail2 2>&1 | grep -c -i resource
         late kmend_tail2; enabled kmend_tail2; wait; cat /tmp/slept; done",
        "kmend_tail2 0 1 0\n1\nkmend_tail2 0 0 0\n2\nkmend_tail2 0 1 0\n1\nkmend_tail2 0 0 0\n2\nkmend_tail2 0 1 0\n1\nkmend_tail2 0 0 0\n2\nkmend_tail2 0 1 0\n1\nkmend_tail2 0 0 0\n2",
    ),
    // 13: in the middle of a transition a second one is declined, and a target goes and comes.
    check(
        "a target goes and comes in a transition",
        "T=/proc/kmend_shapes; call tire; (read x < $T/cold; echo $x) > /tmp/slept & sleep 0.3; jump kmend_stay2; begin kmend_stay2 hybrid 1; begin kmend_leaf3 hybrid 1 2>&1 | grep -c busy; how kmend_stay2
         rmmod kmend_target; how kmend_stay2; insmod /m/kmend_target.ko; how kmend_stay2; call wake; late kmend_stay2; wait; how kmend_stay2; cat /proc/kmend_target/leaf; call cold; turn kmend_stay2 hybrid 0; cat /proc/kmend_target/leaf",
        "1\n1\nkmend_shapes ks_cold changing\nkmend_target kt_leaf changing\nkmend_shapes ks_cold changing\nkmend_target kt_leaf absent\nkmend_shapes ks_cold changing\nkmend_target kt_leaf changing
         1\nkmend_shapes ks_cold patched jump\nkmend_target kt_leaf patched jump\n2\n2\n1",
    ),
    // 12: CPUs go and come.
    check(
        "a CPU goes and comes",
        "C=/sys/devices/system/cpu/cpu1/online; rm -f /tmp/stop; (while [ ! -e /tmp/stop ]; do echo 0 > $C; sleep 0.1; echo 1 > $C; sleep 0.1; done) &
         for m in hybrid lazy stop-machine refcount quiesce immediate; do turn kmend_leaf2 $m 1; call leaf; turn kmend_leaf2 $m 0; call leaf; done; touch /tmp/stop; wait; cat $C",
        "2\n1\n2\n1\n2\n1\n2\n1\n2\n1\n2\n1\n1",
    ),
    check(
        "unload again",
        "for m in leaf2 leaf3 replace4 plain2 recur2 tail2 cold2 loop2 key2 stay2 target shapes; do rmmod kmend_$m || echo $m stays; done; i=0
         while ! rmmod kmend_engine 2>/tmp/no && [ $i -lt 50 ]; do i=$((i+1)); sleep 0.1; done; grep -c kmend /proc/modules",
        "0",
    ),
];
