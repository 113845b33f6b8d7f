# What happens in a guest in which kmend is killed. Read by the steps of xtask/src/torture/kills.rs, after guest.sh.

one=livepatch_torture_one two=livepatch_torture_two

# KIND: what is killed, and what does the opposite.
command_of() {
    case $1 in
        load) echo kmend load /torture_one.ko ;;
        unload) echo kmend unload $one ;;
        install) echo kmend install /torture_one.ko ;;
        uninstall) echo kmend uninstall $one ;;
    esac
}
opposite_of() {
    case $1 in load) echo unload ;; unload) echo load ;; install) echo uninstall ;; uninstall) echo install ;; esac
}

is_installed() { grep -sq $one /var/lib/kmend/*/installed.json; }

# KIND: makes it have something to do.
prepare() {
    case $1 in
        load) [ ! -e /sys/module/$one ] || kmend unload $one ;;
        unload) [ -e /sys/kernel/livepatch/$one ] || kmend load /torture_one.ko ;;
        install) ! is_installed || kmend uninstall $one ;;
        uninstall) is_installed || kmend install /torture_one.ko ;;
    esac
}

# In hundredths of a second.
clock() { read -r up idle < /proc/uptime; echo "${up%.*}${up#*.}"; }

# KIND: how long it takes if nobody kills it, the longest of three times.
measure() {
    words=$(command_of "$1") longest=1
    for time in 1 2 3; do
        prepare "$1" && begin=$(clock) && $words || return
        took=$(($(clock) - begin))
        [ $took -le $longest ] || longest=$took
    done > /dev/null
    echo $longest
}

# What the kernel shows.
kernel() {
    for patch in /sys/kernel/livepatch/*; do
        [ ! -e "$patch/enabled" ] || echo "livepatch ${patch##*/} $(cat "$patch/enabled") $(cat "$patch/transition")"
    done
    sed -n 's/^\(livepatch_[^ ]*\) .*/module \1/p' /proc/modules
} 2> /dev/null

section() { echo "== $*"; }

# NAME COMMAND...: its output below a line with its status.
show() {
    name=$1; shift
    "$@" > /kmend/shown 2> /kmend/complaints
    section "$name" $?
    cat /kmend/shown
    section complaints
    cat /kmend/complaints
}

# What kmend says, between two looks at the kernel that saw the same: transitions end by themselves.
look() {
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        kernel > /kmend/kernel
        { show list kmend list --json; show status kmend status --json; } > /kmend/said
        kernel > /kmend/kernel.after
        ! cmp -s /kmend/kernel /kmend/kernel.after || break
    done
    section kernel
    cat /kmend/kernel.after
    cat /kmend/said
    show history kmend history --json
    files
}

files() {
    section files
    (cd /var/lib/kmend && find . ! -type d | sort)
    section hashes
    find /var/lib/kmend -name '*.ko' -exec sha256sum {} +
    section loading
    # It has no newline at its end.
    [ ! -e /var/lib/kmend/loading.json ] || { cat /var/lib/kmend/loading.json; echo; }
}

# KIND: does it, whatever the killed one has left. Each kind ends with what the host expects.
mend() {
    show "mend $1" $(command_of "$1")
    # It was being disabled, which cannot be turned into a load before it is over.
    if grep -q KM0709 /kmend/complaints; then
        kmend wait $one > /dev/null 2>&1
        show "mend $1" $(command_of "$1")
    fi
}

# KIND WAIT WAY: begins it, kills it after so many microseconds, looks, and does it again or turns it back.
kill_one() {
    words=$(command_of "$1")
    prepare "$1" > /kmend/prepared 2>&1 || { section unprepared; cat /kmend/prepared; return 1; }
    $words > /kmend/killed 2>&1 &
    victim=$!
    usleep "$2"
    kill -9 $victim 2> /dev/null
    wait $victim
    section "kill $1 $2 $3 $?"
    look
    case $3 in again) mend "$1" ;; back) mend "$(opposite_of "$1")" ;; esac
    # Every change of the set ends with an install, which leaves nothing that does not belong there.
    case $1 in install | uninstall) mend install ;; esac
    section then
    kernel
    files
}

# Works off the plan: KIND MOMENT WAY in each line, a moment in ten-thousandths of the time that it takes.
kills() {
    kmend install /torture_two.ko > /dev/null || return
    nice -n 19 /hog &
    hog=$!
    for kind in load unload install uninstall; do
        eval "long_$kind=\$(measure $kind)" || return
        eval "echo takes $kind \$long_$kind"
    done
    while read -r kind moment way <&4; do
        eval "long=\$long_$kind"
        kill_one "$kind" $((long * moment)) "$way" || return
    done 4< /kills.plan > /kills.log
    kill $hog
    wait
}
