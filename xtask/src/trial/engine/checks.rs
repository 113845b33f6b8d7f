//! What is done with the engine in the guest, in order, and what must be seen.
//!
//! A model that theory says is too weak must be seen to break: otherwise a check that holds says nothing.

use std::borrow::Cow;

/// What every step can call. A transition that lasts 20 s is stuck.
pub(crate) const PRELUDE: &str = r#"
S=/sys/kernel/kmend
T=/proc/kmend_target
late() { i=0; while [ "$(cat $S/$1/transition)" = 1 ]; do
    i=$((i+1)); [ $i = 200 ] && { echo stuck: $1; cat $S/$1/blocking; break; }; sleep 0.1; done; }
# begin PATCH MODEL 0|1; turn waits for the end as well. On a machine that is busy with other guests user space may stand still for long.
begin() {
    [ $2 != quiesce ] || [ $(cat $S/$1/timeout_ms) != 0 ] || echo 60000 > $S/$1/timeout_ms
    echo $2 > $S/$1/model && echo $3 > $S/$1/enabled
}
turn() { begin $1 $2 $3 && late $1; }
jump() { echo jump > $S/$1/redirect; }
how() { cat $S/$1/functions; }
call() { for f; do cat $T/$f; done | tr '\n' ' '; echo; }
enabled() { echo $1 $(cat $S/$1/enabled $S/$1/transition $S/$1/error); }
# attach FUNCTION KIND...: has BPF programs count the calls of a function (tests/engine/tracer.c); ask says the counts, after what its
# argument asks for; detach takes them away.
attach() {
    rm -f /tmp/ask /tmp/say; mkfifo /tmp/ask /tmp/say; /m/tracer "$@" < /tmp/ask > /tmp/say & tracer=$!
    exec 3> /tmp/ask 4< /tmp/say; read x <&4; echo $x
}
ask() { echo $1 >&3; read x <&4; echo $x; }
detach() { exec 3>&- 4<&-; wait $tracer; }
# What the kernel's log has of callbacks and of the engine's patches since the last time.
said() { dmesg -c | sed -n "s/^\[[^]]*\] kmend_\(calls.: \|state.: \|engine: '\)/\1/p"; }
# busy FILE READERS PATCH MODEL PAUSE [ANSWER]: turns the patch on and off twice while FILE is read again and again, with pauses of
# so many seconds, and shows each answer once. A meeting of old and new that is possible need not come about in two turns: with an
# ANSWER that must be seen there are as many as it takes, up to ten.
busy() {
    rm -f /tmp/stop
    n=0; while [ $n -lt $2 ]; do
        n=$((n+1)); (while [ ! -e /tmp/stop ]; do read x < $T/$1; echo $x; [ $5 = 0 ] || sleep $5; done > /tmp/answers.$n) & done
    sleep 0.2
    for k in 1 2 3 4 5 6 7 8 9 10; do
        turn $3 $4 1; sleep 0.1; turn $3 $4 0; sleep 0.1
        [ $k = 1 ] || { [ "$6" ] && ! grep -qx "$6" /tmp/answers.*; } || break
    done
    touch /tmp/stop; wait; cat /tmp/answers.* | sort -u | tr '\n' ' '; echo; rm /tmp/answers.*
}
"#;

/// A step.
pub(super) struct Check {
    /// How it is called.
    pub(super) name: Cow<'static, str>,
    /// The shell's text, after [`PRELUDE`].
    pub(super) commands: Cow<'static, str>,
    /// What it prints; spaces count as one.
    pub(super) prints: Cow<'static, str>,
}

pub(super) const fn check(name: &'static str, commands: &'static str, prints: &'static str) -> Check {
    Check { name: Cow::Borrowed(name), commands: Cow::Borrowed(commands), prints: Cow::Borrowed(prints) }
}

/// All steps in their order.
pub(super) const CHECKS: &[Check] = &[
    check(
        "load",
        "insmod /m/kmend_engine.ko; for m in target leaf2 leaf3 pair2 carry2 sleep2 nap2 thread2 vmlinux2 replace4; do insmod /m/kmend_$m.ko; done
         head -n2 /proc/kmend/state; call leaf pair carry step tick",
        "Index Patch State Model Redirect\n1 kmend_leaf2 disabled hybrid ftrace\n1 100100 1 1 1",
    ),
    // 1: a leaf. Every model converges, both ways, and again.
    check(
        "a leaf under every model",
        "for m in immediate stop-machine hybrid lazy refcount quiesce; do turn kmend_leaf2 $m 1; call leaf; enabled kmend_leaf2; turn kmend_leaf2 $m 0; call leaf; done",
        "2\nkmend_leaf2 1 0 0\n1\n2\nkmend_leaf2 1 0 0\n1\n2\nkmend_leaf2 1 0 0\n1\n2\nkmend_leaf2 1 0 0\n1\n2\nkmend_leaf2 1 0 0\n1\n2\nkmend_leaf2 1 0 0\n1",
    ),
    check(
        "vmlinux",
        "turn kmend_vmlinux2 stop-machine 1; cat /proc/cmdline; turn kmend_vmlinux2 hybrid 0; grep -c patched /proc/cmdline",
        "patched by the engine\n0",
    ),
    // 2: caller and callee change an argument's meaning, and the caller sleeps between two calls.
    check("a pair: immediate breaks", "busy pair 4 kmend_pair2 immediate 0 100010 | grep -c 100010", "1"),
    check("a pair: stop-machine holds", "busy pair 1 kmend_pair2 stop-machine 0.1", "100100"),
    check("a pair: refcount holds", "busy pair 1 kmend_pair2 refcount 0.1", "100100"),
    check("a pair: hybrid holds", "busy pair 4 kmend_pair2 hybrid 0", "100100"),
    check("a pair: lazy holds", "busy pair 4 kmend_pair2 lazy 0", "100100"),
    check("a pair: quiesce holds", "busy pair 4 kmend_pair2 quiesce 0", "100100"),
    // 3: a caller that is not patched carries a value from one to the other.
    check("a carried value: immediate breaks", "busy carry 4 kmend_carry2 immediate 0 0", "0 1"),
    check("a carried value: stop-machine breaks", "busy carry 4 kmend_carry2 stop-machine 0 0", "0 1"),
    check("a carried value: refcount breaks", "busy carry 4 kmend_carry2 refcount 0 0", "0 1"),
    check("a carried value: hybrid breaks", "busy carry 4 kmend_carry2 hybrid 0 0", "0 1"),
    check("a carried value: lazy holds", "busy carry 4 kmend_carry2 lazy 0", "1"),
    check("a carried value: quiesce holds", "busy carry 4 kmend_carry2 quiesce 0", "1"),
    // 8: a task asleep for ever in the function.
    check(
        "a sleeper: all but immediate name it and reverse",
        "call tire; cat $T/sleep > /tmp/slept & sleep 0.3; echo 3000 > $S/kmend_sleep2/timeout_ms
         for m in stop-machine refcount hybrid lazy; do begin kmend_sleep2 $m 1; sleep 1; enabled kmend_sleep2
         cut -d' ' -f2- < $S/kmend_sleep2/blocking; late kmend_sleep2; enabled kmend_sleep2; call leaf; done
         call wake; wait; cat /tmp/slept",
        "1\nkmend_sleep2 1 1 0\ncat kt_sleep\nkmend_sleep2 0 0 -110\n1\nkmend_sleep2 1 1 0\ncat kt_sleep\nkmend_sleep2 0 0 -110\n1
         kmend_sleep2 1 1 0\ncat kt_sleep\nkmend_sleep2 0 0 -110\n1
         kmend_sleep2 1 1 0\ncat (has not left the kernel)\nkmend_sleep2 0 0 -110\n1\n1\n1",
    ),
    check(
        "a sleeper: quiesce lets everyone go on",
        "call tire; cat $T/sleep > /tmp/slept & sleep 0.3; echo 0 > $S/kmend_sleep2/timeout_ms; echo quiesce > $S/kmend_sleep2/model; echo 1 > $S/kmend_sleep2/enabled; late kmend_sleep2; enabled kmend_sleep2
         cut -d' ' -f2- < $S/kmend_sleep2/blocking; [ $(cat $S/kmend_sleep2/pause_ns) -ge 4900000000 ] && echo stood; call leaf wake; wait; cat /tmp/slept",
        "1\nkmend_sleep2 0 0 -110\ncat (has not left the kernel)\nstood\n1 1\n1",
    ),
    check(
        "quiesce takes who is stopped and who has a child by vfork along",
        "sleep 1000 & stopped=$!; kill -STOP $stopped; rm -f /tmp/stop; (while [ ! -e /tmp/stop ]; do echo 1 2 3 4 5 6 7 8 | xargs -n1 true; done) &
         for i in 1 2 3; do turn kmend_leaf2 quiesce 1; call leaf; turn kmend_leaf2 quiesce 0; call leaf; done; enabled kmend_leaf2
         touch /tmp/stop; kill -KILL $stopped; wait",
        "2\n1\n2\n1\n2\n1\nkmend_leaf2 0 0 0",
    ),
    check(
        "a sleeper: immediate converges at once",
        "call tire; cat $T/sleep > /tmp/slept & sleep 0.3; turn kmend_sleep2 immediate 1; call sleep leaf
         turn kmend_sleep2 immediate 0; call leaf; call wake; wait; cat /tmp/slept",
        "1\n2 2\n1\n1\n1",
    ),
    check(
        "a sleeper that can be nudged: hybrid converges",
        "call tire; (read x < $T/nap; echo $x) > /tmp/slept & sleep 0.5; turn kmend_nap2 hybrid 1; wait; cat /tmp/slept; call nap; turn kmend_nap2 hybrid 0; call wake nap",
        "1\n-4\n2\n1 1",
    ),
    // 9, 10: a kernel thread that loops around the function, and soft interrupts.
    check(
        "a kernel thread and interrupts",
        "for m in stop-machine refcount quiesce hybrid lazy; do turn kmend_thread2 $m 1; sleep 0.2; call step tick; turn kmend_thread2 $m 0; sleep 0.2; call step tick; done",
        "2 2\n1 1\n2 2\n1 1\n2 2\n1 1\n2 2\n1 1\n2 2\n1 1",
    ),
    // 13: reverse, and the module of the target comes and goes.
    check(
        "a transition is reversed",
        "call tire; cat $T/sleep > /tmp/slept & sleep 0.3; echo 0 > $S/kmend_sleep2/timeout_ms
         for m in stop-machine refcount hybrid lazy; do begin kmend_sleep2 $m 1; sleep 0.2; enabled kmend_sleep2; echo 0 > $S/kmend_sleep2/enabled
         late kmend_sleep2; enabled kmend_sleep2; call leaf; done
         turn kmend_leaf2 hybrid 1; call leaf; turn kmend_leaf2 hybrid 0; call wake; wait; cat /tmp/slept",
        "1\nkmend_sleep2 1 1 0\nkmend_sleep2 0 0 0\n1\nkmend_sleep2 1 1 0\nkmend_sleep2 0 0 0\n1\nkmend_sleep2 1 1 0\nkmend_sleep2 0 0 0\n1\nkmend_sleep2 1 1 0\nkmend_sleep2 0 0 0\n1\n2\n1\n1",
    ),
    check(
        "the target's module goes and comes",
        "turn kmend_leaf2 hybrid 1; rmmod kmend_target; cat $S/kmend_leaf2/functions; insmod /m/kmend_target.ko; call leaf
         cat $S/kmend_leaf2/functions; turn kmend_leaf2 hybrid 0; call leaf; rmmod kmend_target; insmod /m/kmend_target.ko
         turn kmend_leaf2 stop-machine 1; call leaf; turn kmend_leaf2 stop-machine 0; call leaf",
        "kmend_target kt_leaf absent\n2\nkmend_target kt_leaf patched\n1\n2\n1",
    ),
    // 14: versions stack up.
    check(
        "three versions",
        "turn kmend_leaf2 hybrid 1; turn kmend_leaf3 stop-machine 1; call leaf; cat $S/kmend_leaf2/functions $S/kmend_leaf3/functions
         begin kmend_leaf2 hybrid 0 2>&1 | grep -c busy; turn kmend_leaf3 hybrid 0; call leaf; turn kmend_leaf2 immediate 0; call leaf",
        "3\nkmend_target kt_leaf covered\nkmend_target kt_leaf patched\n1\n2\n1",
    ),
    check(
        "one patch replaces all others",
        "for m in hybrid stop-machine refcount quiesce lazy immediate; do turn kmend_leaf2 hybrid 1; turn kmend_thread2 hybrid 1; turn kmend_leaf3 hybrid 1; turn kmend_replace4 $m 1; sleep 0.2
         call leaf step tick; enabled kmend_leaf2; enabled kmend_leaf3; enabled kmend_thread2; turn kmend_replace4 $m 0; call leaf; done",
        "4 1 1\nkmend_leaf2 0 0 0\nkmend_leaf3 0 0 0\nkmend_thread2 0 0 0\n1\n4 1 1\nkmend_leaf2 0 0 0\nkmend_leaf3 0 0 0\nkmend_thread2 0 0 0\n1
         4 1 1\nkmend_leaf2 0 0 0\nkmend_leaf3 0 0 0\nkmend_thread2 0 0 0\n1\n4 1 1\nkmend_leaf2 0 0 0\nkmend_leaf3 0 0 0\nkmend_thread2 0 0 0\n1
         4 1 1\nkmend_leaf2 0 0 0\nkmend_leaf3 0 0 0\nkmend_thread2 0 0 0\n1\n4 1 1\nkmend_leaf2 0 0 0\nkmend_leaf3 0 0 0\nkmend_thread2 0 0 0\n1",
    ),
    check(
        "beside the kernel's livepatch",
        "L=/sys/kernel/livepatch/kmend_mainline; over() { i=0; while [ -e $L ] && [ $(cat $L/transition)$1 != 01 ] && [ $i -lt 200 ]; do i=$((i+1)); sleep 0.1; done; }
         insmod /m/kmend_mainline.ko; turn kmend_thread2 hybrid 1; over 1; call leaf; begin kmend_leaf2 hybrid 1 2>&1 | grep -c busy; enabled kmend_leaf2
         echo 0 > $L/enabled; turn kmend_thread2 hybrid 0; over; rmmod kmend_mainline; call leaf
         turn kmend_leaf2 hybrid 1; insmod /m/kmend_mainline.ko 2>&1 | grep -c busy; call leaf; turn kmend_leaf2 hybrid 0; call leaf",
        "9\n1\nkmend_leaf2 0 0 0\n1\n1\n2\n1",
    ),
    check(
        "what is in force stays",
        "turn kmend_leaf2 hybrid 1; rmmod kmend_leaf2 2>&1 | grep -c -i resource; (echo 1 > $S/kmend_leaf2/enabled) 2>&1 | grep -c Invalid; rmmod kmend_engine 2>&1 | grep -c -i resource
         turn kmend_leaf2 hybrid 0; call leaf",
        "1\n1\n1\n1",
    ),
    check(
        "a probe in the function",
        "cd /sys/kernel/tracing; echo p:kt kmend_target:kt_leaf+5 > kprobe_events 2>/tmp/no || echo p:kt kmend_target:kt_leaf+9 > kprobe_events
         begin kmend_leaf2 hybrid 1 2>&1 | grep -c busy; call leaf; echo > kprobe_events; turn kmend_leaf2 hybrid 1; call leaf; turn kmend_leaf2 hybrid 0; call leaf",
        "1\n1\n2\n1",
    ),
    check(
        "returns are hooked by others, too",
        "cd /sys/kernel/tracing; echo r:kr kmend_target:kt_a > kprobe_events; echo 1 > events/kprobes/kr/enable
         echo 'kt_a kt_b' > set_ftrace_filter; echo function_graph > current_tracer; busy pair 1 kmend_pair2 refcount 0.1; busy pair 4 kmend_pair2 hybrid 0
         grep -c kt_a trace > /tmp/seen; [ $(cat /tmp/seen) -gt 4 ] && echo traced; echo 0 > events/kprobes/kr/enable; echo nop > current_tracer; echo > set_ftrace_filter; echo > kprobe_events; call pair",
        "100100\n100100\ntraced\n100100",
    ),
    // 12: fork and exit, and a pinned hog.
    check(
        "forks and a hog",
        "rm -f /tmp/stop; (while [ ! -e /tmp/stop ]; do :; done) & (while [ ! -e /tmp/stop ]; do sh -c :; done) &
         for m in hybrid lazy stop-machine refcount quiesce immediate; do turn kmend_pair2 $m 1; call pair; turn kmend_pair2 $m 0; call pair; done; touch /tmp/stop; wait",
        "100100\n100100\n100100\n100100\n100100\n100100\n100100\n100100\n100100\n100100\n100100\n100100",
    ),
    check(
        "times",
        "for m in stop-machine quiesce; do turn kmend_leaf2 $m 1; [ $(cat $S/kmend_leaf2/pause_ns) -gt 0 ] && echo held; turn kmend_leaf2 refcount 0; cat $S/kmend_leaf2/pause_ns; done
         turn kmend_leaf2 hybrid 1; turn kmend_leaf2 hybrid 0; cat $S/kmend_leaf2/pause_ns; [ $(cat $S/kmend_leaf2/switch_ns) -gt 0 ] && echo took",
        "held\n0\nheld\n0\n0\ntook",
    ),
    check(
        "unload",
        "for m in leaf2 leaf3 pair2 carry2 sleep2 nap2 thread2 vmlinux2 replace4 target; do rmmod kmend_$m || echo $m stays; done; i=0
         while ! rmmod kmend_engine 2>/tmp/no && [ $i -lt 50 ]; do i=$((i+1)); sleep 0.1; done; ls /proc/kmend /sys/kernel/kmend 2>&1 | grep -c 'No such'; grep -c kmend /proc/modules",
        "2\n0",
    ),
];
