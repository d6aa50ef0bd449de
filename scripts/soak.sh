#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# The long forms of the driver's tests, on one kernel after the other until the time is over; what has
# begun by then is finished. At the end, and on Ctrl-C, a summary to paste into a report.
#
#     scripts/soak.sh [--hours H] [--kernels stock,rt,lockdep,kasan] [--checks LIST] [--seed S]
#
#     --hours H      1.5 is an hour and a half (default 1)
#     --kernels LIST (default all four)
#     --checks LIST  of driver,torture,unbind,module,unplug,surprise,fuzz,busted (default all):
#                    driver    all checks of test-file and test-driver
#                    torture   60 s with storms and faults, the law at every pause
#                    unbind, module   1,000 removals of that kind under load, no leak
#                    unplug, surprise   the same with hot-plug slots, the guest asked (not rt) and unasked
#                    fuzz      random ioctls for 60 s
#                    busted    the driver with one lock taken away must be caught
#     --seed S       the seed of the first pass; each further pass has the next one (default: the time)
#
# Exit status: 0 all good, 42 a finding, 2 usage, 69 the machine lacks something, 130 Ctrl-C.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cd "$here/.."

fail() {
    echo "soak.sh: $1; see soak.sh --help" >&2
    exit 2
}

# words OPTION LIST ALLOWED: the list's words, each of which must be among those allowed.
words() {
    local word list=${2//,/ }
    [[ -n ${list// /} ]] || fail "$1 is empty"
    for word in $list; do
        [[ " $3 " == *" $word "* ]] || fail "$1 knows ${3// /, }, not '$word'"
    done
    echo "$list"
}

readonly all_kernels='stock rt lockdep kasan' all_checks='driver torture unbind module unplug surprise fuzz busted'
hours=1 kernels=$all_kernels checks=$all_checks seed=$(($(date +%s) % 1000000))
while (($# > 0)); do
    case $1 in
    --help | -h) sed -n '4,21s/^# \{0,1\}//p' "$here/soak.sh" && exit ;;
    --hours | --kernels | --checks | --seed) (($# > 1)) || fail "$1 needs a value" ;;&
    --hours) [[ $2 =~ ^[0-9]{1,4}(\.[0-9]{1,3})?$ ]] || fail "--hours takes a number like 1.5, not '$2'" && hours=$2 ;;
    --kernels) kernels=$(words "$1" "$2" "$all_kernels") ;;
    --checks) checks=$(words "$1" "$2" "$all_checks") ;;
    --seed) [[ $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || fail "--seed takes a number up to 999999999, not '$2'" && seed=$2 ;;
    *) fail "unknown option '$1'" ;;
    esac
    shift 2
done

"$here/host-needs.sh"
# shellcheck source=images/cache.sh
. images/cache.sh
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
work=$(mktemp -d)
began=$SECONDS end=$((SECONDS + $(awk "BEGIN { printf \"%d\", $hours * 3600 }")))
declare -A runs passes figures releases
findings=() machine=''

# shellcheck disable=SC2317  # called by the trap
finish() {
    [[ -z $machine ]] || { kill "$machine" 2>/dev/null && wait "$machine"; } || true
    summary
    rm -rf "$work"
}

summary() {
    local kernel check finding key
    echo
    echo "lockstorm soak: $(git describe --always --dirty 2>/dev/null || echo 'no git'), $(((SECONDS - began) / 60)) min, from seed $seed"
    echo "machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort -u | paste -sd,), $(nproc) CPUs, Linux $(uname -r)"
    printf '%-8s %-9s %5s %5s  %s\n' kernel check runs good last
    for kernel in $kernels; do
        for check in $checks; do
            key=$kernel-$check
            [[ -z ${runs[$key]-} ]] ||
                printf '%-8s %-9s %5s %5s  %s\n' "$kernel" "$check" "${runs[$key]}" "${passes[$key]-0}" "${figures[$key]-}"
        done
        [[ -z ${releases[$kernel]-} ]] || echo "         Linux ${releases[$kernel]}"
    done
    for finding in "${findings[@]}"; do echo "FINDING  $finding"; done
    ((${#findings[@]} > 0)) || echo 'no finding'
}

# soak KERNEL CHECK SEED STATUS PATTERN BOOT_OPTION…: one run, which is good if both come out.
soak() {
    local kernel=$1 check=$2 this=$3 expected=$4 pattern=$5 key=$1-$2 status=0 boot=boot.sh start kept
    [[ $check != @(unplug|surprise) ]] || boot=hot-plug.sh
    shift 5
    start=$(microseconds)
    [[ ! -t 1 ]] || printf '        %s, %s, seed %s …\r' "$kernel" "$check" "$this"
    "scripts/$boot" --kernel "$kernel" --timeout "$longest" "$@" >"$work/said" 2>&1 </dev/null &
    machine=$!
    wait "$machine" || status=$?
    machine=
    ((status != 69 && status != 2)) || { tail -n 5 "$work/said" && exit "$status"; }
    runs[$key]=$((${runs[$key]-0} + 1))
    figures[$key]=$(grep -a -- "$pattern" "$work/said" | tail -n 1 | tr -d '\r' || true)
    if ((status == expected)) && [[ -n ${figures[$key]} ]]; then
        passes[$key]=$((${passes[$key]-0} + 1))
        echo "ok      $kernel, $check, seed $this … $(seconds_since "$start")"
    else
        [[ -n ${figures[$key]} ]] || figures[$key]=$(grep -aE '^(Bail out!|not ok|boot.sh:)' "$work/said" | head -n 1 | tr -d '\r' || true)
        kept=$cache/logs/soak-$(date +%Y%m%d-%H%M%S)-$key.log
        mv "$work/said" "$kept"
        findings+=("$kernel, $check, seed $this: status $status, expected $expected; $kept")
        echo "FAILED  $kernel, $check, seed $this … $(seconds_since "$start"): status $status, expected $expected; $kept"
    fi
}

soak_kernel() { # KERNEL SEED
    local check storms=() round release command
    release=$(images/kernel.sh "$1")/release
    releases[$1]=$(<"$release")
    for check in $checks; do
        ((SECONDS < end)) || return 0
        storms=()
        case $check in
        driver) soak "$1" driver "$2" 0 '^ok 35 ' --run 'test-file && test-driver' ;;
        torture)
            for round in {1..6}; do
                storms+=(--storm "rate=1000,burst=8,seconds=5,seed=$round")
                storms+=(--storm "rate=1000,burst=8,seconds=5,seed=$round,$faults")
            done
            soak "$1" torture "$2" 0 '^# End of test: SUCCESS' --devices 2 "${storms[@]}" \
                --run "torture --seconds 60 --seed $2 --settle 120"
            ;;
        unbind | module)
            # Each device has four rings; with more of it, a kernel that checks all does little else.
            soak "$1" "$check" "$2" 0 "^ok 1 - $check: " --devices 4 --storm "rate=10,seconds=$longest" \
                --run "test-removal --kind $check --rounds 1000 --seed $2"
            ;;
        unplug | surprise)
            # Linux 7.3 never lets go of a device there: README.md tells why.
            [[ $1-$check != rt-unplug ]] || continue
            command="test-removal --kind $check --rounds 1000 --limit 60 --seed $2"
            # This is about leaks: while each lock's order is proven and its waits are counted, 1,000 rounds
            # take very long. The few rounds of test.sh have that.
            [[ $1 != lockdep ]] || command="echo 0 >/proc/sys/kernel/prove_locking && echo 0 >/proc/sys/kernel/lock_stat && $command"
            soak "$1" "$check" "$2" 0 "^ok 1 - $check: " --ports 4 --run "$command"
            ;;
        fuzz) soak "$1" fuzz "$2" 0 ' 0 findings; the driver works' --run "fuzz-ioctl --seconds 60 --seed $2" ;;
        busted)
            soak "$1" busted "$2" 42 'events came twice' --run \
                'rmmod evgen && insmod /lib/modules/evgen-busted.ko && stress --seconds 5 --injectors 4'
            ;;
        esac
    done
}

# Most seconds of one check: all rounds may be done three times.
readonly longest=14400
readonly faults=lost-interrupt=100,duplicate-interrupt=100,corrupt-checksum=100,duplicate-event=100,reordered-event=100,unmapped-dma=100,hang=5000,stuck-busy=5000,self-reset=5000
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
pass=0
while ((SECONDS < end)); do
    for kernel in $kernels; do soak_kernel "$kernel" $((seed + pass)); done
    pass=$((pass + 1))
done
((${#findings[@]} == 0)) || exit 42
