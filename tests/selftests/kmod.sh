#!/bin/sh
# insmod, modprobe and rmmod for the kernel's livepatch selftests, by the name that it is called by: livepatches go through
# kmend. Of a failure it says what those programs say (kmod 30), because the tests compare that. All else is for the
# programs themselves.
program=${0##*/}

is_livepatch() {
    [ "$(modinfo -F livepatch "$1" 2>&1)" = Y ]
}

# FILE WHAT PARAMETERS...: loads a file; WHAT is how the program calls it.
load() {
    file=$1 what=$2
    shift 2
    # insmod returns when the module is in the kernel, and leaves it to the kernel to object to ftrace being off.
    said=$(kmend load --wait 0 --despite KM0712 "$file" -- "$@" 2>&1) && exit 0
    why=$(echo "$said" | sed -n 's/.*(\(.*\) (os error [0-9]*)).*/\1/p')
    # Without an errno it was not the kernel that refused: the tests show it as it is.
    [ -n "$why" ] || why=$said
    [ "$program $why" != "insmod Invalid argument" ] || why="Invalid parameters"
    echo "$program: ERROR: could not insert $what: $why" >&2
    exit 1
}

case $program in
insmod)
    if is_livepatch "$1"; then
        file=$1
        shift
        load "$file" "module $file" "$@"
    fi
    ;;
modprobe)
    if is_livepatch "$1"; then
        name=$1
        shift
        load "$(modinfo -n "$name")" "'$name'" "$@"
    fi
    ;;
rmmod)
    if grep -q K "/sys/module/$1/taint"; then
        said=$(kmend unload "$1" 2>&1) && exit 0
        echo "$said" >&2
        exit 1
    fi
    ;;
esac
exec "/usr/sbin/$program" "$@"
