# What happens in a guest that tortures the consistency engine. Read by the steps of xtask/src/torture/engine.rs, after the prelude of
# the engine's trial and guest.sh.

TRACE=/sys/kernel/tracing
PATCHES="kmend_leaf2 kmend_thread2 kmend_vmlinux2"

# The engine with the patches and their target. Under the load a transition may take its time, with user space standing still, too.
engine_load() {
    insmod /m/kmend_engine.ko && insmod /m/kmend_target.ko || return
    for patch in $PATCHES; do
        insmod /m/$patch.ko || return
        echo 90000 > $S/$patch/timeout_ms
    done
}

# The load, and who is in the functions all the time: two readers for each patch that is read, besides the target's own kernel thread
# and timer. They are as nice as the load: what ftrace waits for, at the end of each patch, is that each task of the load had its turn.
readers() {
    renice 19 -p $$
    for file in /proc/kmend_target/leaf /proc/cmdline; do
        for reader in 1 2; do
            while [ ! -e /tmp/rest ]; do read x < $file; done &
        done
    done
    wait
}
engine_hogs() {
    start_hogs
    sh -c '. /engine.sh; readers' > /dev/null 2>&1 < /dev/null &
}

# What looks on, by the round's number: nothing, the function tracer, both kinds of probes, the function graph tracer.
watch() {
    echo > $TRACE/trace
    case $1 in
    1) echo function > $TRACE/current_tracer ;;
    2) echo 1 > $TRACE/events/kprobes/enable ;;
    3) echo function_graph > $TRACE/current_tracer ;;
    esac
}
unwatch() {
    echo nop > $TRACE/current_tracer
    echo 0 > $TRACE/events/kprobes/enable
}
# Fails if who looks on does not see a call of a function that is patched, or has been.
saw() {
    [ $1 = 0 ] && return
    echo > $TRACE/trace
    read x < $T/leaf
    i=0
    until grep -q kt_leaf $TRACE/trace; do
        i=$((i + 1))
        [ $i -lt 20 ] || { echo "tracing is lost ($1)"; return 1; }
        read x < $T/leaf
    done
}

# What each round does begins no process of its own: beside the load that would take longer than what is to be tortured.
at() { read -r $1 rest < /proc/uptime; }
# A tenth of a second: nobody writes to what is read.
nap() { read -r -t 0.1 nothing <> /tmp/silence; }

# PATCH 0|1: waits for the end, and fails if that is not it.
ended() {
    i=0
    while read -r moving < $S/$1/transition && [ $moving = 1 ]; do
        i=$((i + 1))
        [ $i -lt 1000 ] || break
        nap
    done
    read -r stands < $S/$1/enabled && read -r error < $S/$1/error
    [ "$moving $stands $error" = "0 $2 0" ] || { enabled $1; cat $S/$1/blocking; return 1; }
}

# MODEL COUNT SPAN: enables and disables one patch after the other, whose callers jump in one of four rounds. Who looks on does so for SPAN rounds, and is asked three times what
# it sees, once for each patch (so SPAN is a multiple of 3, and its third is not).
engine_rounds() {
    round=0
    while [ $round -lt $2 ]; do
        case $((round % 3)) in 0) patch=kmend_leaf2 ;; 1) patch=kmend_thread2 ;; 2) patch=kmend_vmlinux2 ;; esac
        [ $((round % 4)) = 3 ] && redirect=jump || redirect=ftrace
        echo $redirect > $S/$patch/redirect || return
        [ $((round % $3)) != 0 ] || { unwatch; eye=$((round / $3 % 4)); watch $eye; }
        [ $((round % ($3 / 3))) = 0 ] && asked=$eye || asked=0
        round=$((round + 1))
        at begin
        begin $patch $1 1 && ended $patch 1 || return
        at middle
        read -r held < $S/$patch/pause_ns
        saw $asked || return
        at again
        begin $patch $1 0 && ended $patch 0 || return
        at end
        saw $asked || return
        read -r pause < $S/$patch/pause_ns
        read -r leaf < $T/leaf
        [ "$leaf" = 1 ] || { echo "the leaf is not what it was"; return 1; }
        echo "round $round enable $begin $middle disable $again $end held $held $pause"
    done
}

# MODEL COUNT SPAN: the same under the load.
engine_torture() {
    echo kt_leaf > $TRACE/set_ftrace_filter || return
    echo p:kp kmend_target:kt_leaf > $TRACE/kprobe_events && echo r:kr kmend_target:kt_leaf >> $TRACE/kprobe_events || return
    [ -p /tmp/silence ] || mkfifo /tmp/silence || return
    engine_hogs
    engine_rounds $1 $2 $3
    status=$?
    if [ $status -ne 0 ]; then
        dmesg | tail -n 40
        cat /proc/kmend/state
    fi
    stop_hogs
    wait
    unwatch
    echo > $TRACE/kprobe_events
    echo > $TRACE/set_ftrace_filter
    return $status
}

# All of it can go.
engine_unload() {
    for patch in $PATCHES; do rmmod $patch || return; done
    rmmod kmend_target || return
    i=0
    until rmmod kmend_engine; do
        i=$((i + 1))
        [ $i -lt 50 ] || return
        sleep 0.1
    done
}
