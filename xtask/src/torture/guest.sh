# What happens in a torture's guest. Read by the steps of xtask/src/torture/guest.rs.

# The load: on each processor one that computes (tests/torture/hog.c) and one that begins processes; besides files and pipes, and
# connections over the network. They keep every processor busy, and are nicer than what loads and unloads, which else would take
# minutes to get its turn on an emulated machine. Those that are shells end when a file is there: whoever kills a shell leaves what
# that has begun.
hogs() {
    renice 19 -p $$
    at_work() { [ ! -e /tmp/rest ]; }
    mkdir -p /tmp/hogs
    dd if=/dev/zero of=/tmp/hogs/page bs=64k count=8
    httpd -f -p 7777 -h /tmp/hogs &
    server=$!
    for processor in /sys/devices/system/cpu/cpu[0-9]*; do
        /hog & computing="$computing $!"
        while at_work; do /bin/busybox true; done &
    done
    while at_work; do
        dd if=/dev/zero bs=64k count=8 | cat > /tmp/hogs/file
        rm /tmp/hogs/file
    done &
    while at_work; do wget -q -O /dev/null http://127.0.0.1:7777/page; done &
    while at_work; do sleep 1; done
    kill $server $computing
    wait
}
start_hogs() {
    rm -f /tmp/rest
    # A shell of its own: `$$` of a part of this one would be this one.
    sh -c '. /torture.sh; hogs' > /dev/null 2>&1 < /dev/null &
    all_hogs=$!
}
stop_hogs() {
    touch /tmp/rest
    wait $all_hogs
}

now() { read -r up idle < /proc/uptime; echo "$up"; }

# COUNT: loads and unloads.
rounds() {
    round=0
    while [ $round -lt "$1" ]; do
        begin=$(now)
        kmend load /torture_one.ko || return
        middle=$(now)
        kmend unload livepatch_torture_one || return
        round=$((round + 1))
        echo "round $round load $begin $middle unload $middle $(now)"
    done
}

# COUNT: one livepatch takes the place of the other, in turns.
replaces() {
    [ "$1" -gt 0 ] || return 0
    kmend load /torture_one.ko || return
    replaced=0 next=two last=one
    while [ $replaced -lt "$1" ]; do
        begin=$(now)
        kmend replace /torture_$next.ko || return
        replaced=$((replaced + 1))
        echo "round $replaced replace $begin $(now)"
        case $next in one) next=two last=one ;; *) next=one last=two ;; esac
    done
    # The one that was in force last, and the module that it replaced.
    kmend unload livepatch_torture_$last || return
    [ ! -e /sys/module/livepatch_torture_$next ] || kmend unload livepatch_torture_$next
}

# ROUNDS REPLACES: both under the load. What it failed of is looked for while the load is there.
torture() {
    start_hogs
    rounds "$1" && replaces "$2"
    status=$?
    if [ $status -ne 0 ]; then
        kmend blocking --stacks
        dmesg | tail -n 30
    fi
    stop_hogs
    return $status
}

# What is counted before and after. Sockets that wait for their time to be over are no leak.
settle() { echo 0 > /proc/sys/net/ipv4/tcp_max_tw_buckets; }
sample() {
    sync
    # What has been used lately is only marked the first time.
    for time in 1 2 3; do
        sleep 1
        echo 3 > /proc/sys/vm/drop_caches
    done
    echo "modules $(grep -c . /proc/modules)"
    sed -n 's/^VmallocUsed: *\([0-9]*\) kB/vmalloc \1/p' /proc/meminfo
    echo "processors $(nproc)"
    # For one object a processor takes several slabs, and what is free in these counts as used. So nothing begins a process between the
    # two, and the cache of what the kernel keeps of an open file of sysfs comes last, by a file that is open.
    # What is freed after a grace period may wait five seconds for company (Linux, kernel/rcu/tree.c, KFREE_DRAIN_JIFFIES): the looks last
    # longer than that.
    exec 9> /sys/kernel/slab/kmalloc-96/shrink
    for look in 1 2 3 4 5 6 7 8; do
        sleep 0.8
        for cache in /sys/kernel/slab/*/shrink; do echo 1 > "$cache"; done 2> /dev/null
        echo 1 >&9
        slabs
    done
    exec 9>&-
}
# The caches that have objects: NAME IN_USE OBJECTS_OF_A_SLAB
slabs() {
    while read -r name active all size each rest; do
        case $name in slabinfo | '#') ;; *) echo "slab $name $active $each" ;; esac
    done < /proc/slabinfo
}
