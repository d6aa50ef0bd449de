# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by test.sh: what boot.sh does with guests that behave, misbehave, hang and die.

guest_tests() {
    # Not within a check, because it can take minutes and is to be seen.
    if images/guest-initramfs.sh >"$work/images" && images/host-initramfs.sh >>"$work/images"; then
        check 'a boot, and the status of a command' expect 7 '' boot --run 'exit 7'
    else
        check 'images' false
    fi
    if ((failed_last)); then
        skip 'all other guest tests' 'a guest does not even boot'
        return
    fi
    build_other_kernels
    start_kernel_tests
    check 'demo: 100,000 events, all accounted for' demo_balances
    check 'a withheld event turns stress red, storm.sh' withheld_event_is_found
    check 'torture: every actor and all unrest, the law at every pause' torture_balances
    check 'BUSTED control: a driver with one lock taken away is caught' busted_driver_is_caught
    check 'control socket: all that it can do to a running guest' control_socket
    check 'each fault on its own is survived, and a token repeats a storm' each_fault_is_survived
    check '1,000,000 stormed events with every fault, all reconciled' million_events_reconcile
    check 'driver: timers, coalescing, resets, room, parameters, debugfs, tracepoints' \
        expect 0 '^ok 35 ' boot --run 'test-driver'
    check 'tools do what their help says, 5 s of fuzzing' tools_work
    check 'MSI-X conformance in a VM' expect 0 '^ok 20 ' boot --run 'test-msix'
    # More vectors than KVM has routes.
    check 'MSI-X conformance of 3 devices with 2048 vectors' expect 0 '^ok 20 ' \
        boot --devices 3 --vectors 2048 --run 'test-msix 2'
    check 'hot-plug: devices come, work and go, asked and unasked' hot_plug
    check 'hot-plug: rounds under storm, with open files and sleeping readers' hot_plug_rounds
    check 'file operations in a VM' expect 0 '^ok 34 ' boot --run 'test-file'
    check 'shell on a terminal, Ctrl-C goes to the guest' shell_on_terminal
    check 'panic of a module: 255' expect 255 'panic' boot --run 'insmod /lib/modules/panic.ko'
    check 'guest that never boots: 124' hanging_kernel
    check 'missing image: 2' expect_line 2 '--kernel /no/such/image' boot --kernel /no/such/image
    check 'bad flag: 2' expect_line 2 "unknown option '--bogus'" boot --bogus
    check 'taken control socket: 2' taken_socket
    check 'Ctrl-C: 130' interrupted_by_user
    qemu_tests
    check 'VFIO: a malformed address: 2' expect_line 2 "PCI address is DOMAIN:BUS" \
        "$(images/programs.sh)/lockstorm" boot --kernel k --initramfs i --vfio 3b:00
    # By way of a file: who writes into a pipe that grep has left is told so by a signal.
    boot --dry-run >"$work/dry-run"
    if grep -q '^accel: nested' "$work/dry-run"; then
        check 'killed QEMU: 69' killed_qemu 'QEMU was killed by signal 9'
        check 'VFIO: assigned devices take a storm, one of QEMU works too' assigned_devices_work
        check 'VFIO: a device without MSI-X: 69' expect 69 '0000:00:10.0 has no MSI-X' \
            boot --vfio edu --run true
    else
        skip 'VFIO: assigned devices' 'only the outer machine of the nested mode has devices to give away'
        skip 'killed QEMU: 69' 'there is no QEMU without the nested mode'
    fi
    finish_kernel_tests
}

boot() { timeout --foreground 1200 scripts/boot.sh "$@"; }

# The host does what the guest asks of its slots.
boot_with_slots() { timeout --foreground 1200 scripts/hot-plug.sh "$@"; }

# expect STATUS PATTERN COMMAND…: both must come out.
expect() {
    local expected=$1 pattern=$2 status=0
    shift 2
    "$@" >"$work/said" 2>&1 || status=$?
    cat "$work/said"
    if ((status != expected)); then
        echo "status $status, expected $expected"
        return 1
    fi
    grep -q -- "$pattern" "$work/said" || { echo "nothing says '$pattern'" && return 1; }
}

# The same, and nothing else is said.
expect_line() {
    expect "$@"
    (($(wc -l <"$work/said") == 1)) || { echo 'more than one line' && return 1; }
}

# wait_for PATTERN: until the machine in the background has said so.
wait_for() {
    local _
    for _ in {1..1200}; do
        ! grep -aq -- "$1" "$work/background" || return 0
        kill -0 "$machine" 2>/dev/null || break
        sleep 0.1
    done
    cat "$work/background"
    echo "nothing says '$1'"
    return 1
}

# in_background COMMAND…: in a process group of its own, as a terminal would start it. It does not
# outlive the test.
in_background() {
    set -m
    "$@" >"$work/background" 2>&1 &
    machine=$!
    set +m
    trap 'kill "$machine" 2>/dev/null && wait "$machine" || true' EXIT
    trap 'exit 143' TERM
}

boot_in_background() { in_background scripts/boot.sh --timeout 120 "$@" </dev/null; }

# run_behind SOCKET: the folder of the run whose --control that is.
run_behind() { dirname "$(readlink "$1")"; }

# ends_with STATUS SECONDS PATTERN: so must the machine in the background end.
ends_with() {
    local status=0 start=$SECONDS
    while kill -0 "$machine" 2>/dev/null && ((SECONDS - start <= $2)); do sleep 0.1; done
    kill "$machine" 2>/dev/null || true
    wait "$machine" || status=$?
    cat "$work/background"
    if ((status != $1 || SECONDS - start > $2)); then
        echo "status $status after $((SECONDS - start)) s, expected $1 within $2 s"
        return 1
    fi
    grep -aq -- "$3" "$work/background" || { echo "nothing says '$3'" && return 1; }
}

demo_balances() {
    expect 0 'conservation law holds: .* 0 unaccounted for' boot --demo
    local delivered
    delivered=$(awk '/^evgen[0-9]+ +[0-9]+ / { gsub(",", "", $4); sum += $4 } END { print sum + 0 }' "$work/said")
    echo "$delivered events delivered"
    ((delivered >= 100000))
}

# The stress tests' own control: whoever passes a driver like this sees nothing.
busted_driver_is_caught() {
    expect 42 'events came twice' boot "$@" --run \
        'rmmod evgen && insmod /lib/modules/evgen-busted.ko && stress --seconds 2 --injectors 4'
}

# control_socket OPTION…: of boot.sh
control_socket() {
    local socket=$work/control.sock lockstorm token before _
    lockstorm=$(images/programs.sh)/lockstorm
    boot_in_background --control "$socket" --run 'echo it runs; sleep 1000' "$@"
    wait_for 'it runs'
    storm() { "$lockstorm" ctl --socket "$socket" "$@"; }
    # figure NAME: the first number of that name in the stats.
    figure() { storm stats --json | sed -n "s/\"$1\":\([0-9]*\).*/\n\1/; s/.*\n//p"; }
    # settles NAME NUMBER: until that figure is so.
    settles() {
        for _ in {1..100}; do
            [[ $(figure "$1") != "$2" ]] || return 0
            sleep 0.1
        done
        storm stats
        echo "$1 is not $2"
        return 1
    }

    storm version --json | grep '"protocol":2'
    storm storm start rate=100,seconds=1,seed=3 >"$work/token"
    token=$(grep -o 'storm1\.[A-Za-z0-9_-]*' "$work/token")
    storm pause
    before=$(figure time),$(figure generated)
    sleep 0.3
    [[ $(figure time),$(figure generated) == "$before" ]] || { echo 'a pause is none' && return 1; }
    storm resume
    settles made 400
    storm storm status --json | grep '"running":false'
    storm storm start "$token"
    storm storm stop

    # A handler that acknowledges has run.
    storm mask --vector 0
    storm inject --ring 0 --acknowledge
    sleep 0.05
    storm unmask --vector 0
    storm inject --ring 1 --count 4 --acknowledge
    storm stats --json | grep -o '"latency":{"count":[0-9]*'
    storm fault corrupt-checksum --ring 2 --count 2
    storm fault unmapped-dma --ring 2
    storm inject --ring 2 --count 5
    storm stats --json | grep '"corrupt-checksum":2'
    storm reset
    # A port has one client at a time, so what makes events must be there before.
    storm storm start rate=20,seconds=600
    storm events --json --count 6 >"$work/events"
    storm storm stop
    (($(grep -c '"event"' "$work/events") == 6))
    storm metrics | grep '^lockstorm_events_generated_total'
    "$lockstorm" top --socket "$socket" --once | grep 'law holds'
    expect 2 'no ring 9' storm inject --ring 9
    expect 2 'no-such-fault' storm fault no-such-fault
    storm quit
    ends_with 255 20 'ended by'
}

# Everything that goes in and out of a slot, by hand. The guest's stress test has the plugged device too.
hot_plug() {
    local socket=$work/control.sock lockstorm
    lockstorm=$(images/programs.sh)/lockstorm
    # shellcheck disable=SC2016  # the guest's shell is to expand it
    boot_in_background --control "$socket" --ports 2 --run 'echo it runs
        until [ -e /dev/evgen1 ]; do sleep 0.1; done; stress --seconds 4; echo "= $?"
        while [ -e /dev/evgen1 ]; do sleep 0.1; done; echo one is gone
        until [ -e /dev/evgen1 ]; do sleep 0.1; done
        evgen-cat 1 >/tmp/events & until ls -l /proc/$!/fd 2>&1 | grep -q evgen1; do sleep 0.1; done
        echo it reads; wait $!; echo "= $?"; test -s /tmp/events && echo and has read
        stress --seconds 2'
    wait_for 'it runs'
    storm() { "$lockstorm" ctl --socket "$socket" "$@"; }
    expect 2 'device 0 is not in a slot' storm unplug 0
    storm plug --rings 2
    storm stats | grep '^slot 1: device 1, in use, power light on, at [0-9a-f]*:00.0 in the guest'
    storm stats | grep '^slot 2: empty, power light off'
    expect 2 'slot 1 is taken by device 1' storm plug --slot 1
    wait_for '^= 0'
    # Linux waits 5 seconds for somebody to change their mind.
    storm unplug 1 --wait 0
    storm stats | grep '^slot 1: device 1, .*the guest is to let go of it'
    storm unplug 1
    wait_for 'one is gone'
    expect 2 'device 1 is gone' storm inject --device 1
    storm stats | grep '^device 1: gone'

    storm plug --slot 2
    wait_for 'it reads'
    storm storm start rate=500,burst=4,seconds=600 --devices 2
    storm events --count 100 >/dev/null
    storm unplug 2 --surprise
    storm stats | grep '^slot 2: empty'
    storm storm status | grep '^device 2: storm is over'
    wait_for 'evgen1 is gone (ENODEV)'
    wait_for 'and has read'
    "$lockstorm" top --socket "$socket" --once | grep 'law holds'
    ends_with 0 60 'conservation law holds: .* 0 unaccounted for'
}

# Devices come and go in four slots at once, each under load and under a storm; nothing leaks in the guest,
# which works as before, and has seen as many devices come as the host has put in.
hot_plug_rounds() {
    expect 0 '^ok 3 - nothing leaks' boot_with_slots --timeout 580 --ports 4 --run \
        'test-removal --kind unplug --kind surprise --rounds 8 --limit 60 && echo "# host: calm" && stress --seconds 2'
    grep -q 'conservation law holds: .* 0 unaccounted for' "$work/said"
    grep '^hot-plug.sh: [0-9]* devices were put in, and the guest has seen' "$work/said"
}

# What each tool says and its status, but for figures that nobody can know.
tools_work() {
    # shellcheck disable=SC2016  # the guest's shell is to expand it
    local tools='r() { echo "> $*"; "$@"; echo "= $?"; }
r test-poll poll 0 1 -t 0
r test-inject-deferred-event 0 1 200 0
r evgen-cat 0 -c 2 -t 20000
r test-inject-event 1 -c 2
r test-poll epoll 0 1 -c 3
r test-poll epoll-edge 1 -c 2 -t 300
r test-poll poll 1 -r all
r test-inject-event 0 --add
r test-read-events blocking 0 -c 1
cd /sys/bus/pci/drivers/evgen
evgen-cat 1 & until ls -l /proc/$!/fd 2>&1 | grep -q evgen1; do sleep .1; done
set -- 0*; echo $2 >unbind; wait $!; echo "= $?"
fuzz-ioctl 0 --seconds 5'
    expect 0 ' calls, 0 findings; the driver works' boot --timeout 120 --devices 2 --run "$tools"
    sed 's/\r//; s/^[0-9.]* s  //; s/"timestamp":[0-9]*,"flags":0,"payload":"0*"/…/; s/  kind .*//; /^= 69/q' \
        "$work/said" | sed -n '/^> /,$p' | diff - <(
        cat <<'TRANSCRIPT'
> test-poll poll 0 1 -t 0
test-poll: nothing happened within 0 ms
= 124
> test-inject-deferred-event 0 1 200 0
= 0
> evgen-cat 0 -c 2 -t 20000
{"device":0,"ring":1,"source":1,"kind":0,"sequence":0,…,"intact":true}
{"device":0,"ring":1,"source":1,"kind":0,"sequence":1,…,"intact":true}
= 0
> test-inject-event 1 -c 2
= 0
> test-poll epoll 0 1 -c 3
evgen1  IN  0 events read
evgen1  IN  0 events read
evgen1  IN  0 events read
= 0
> test-poll epoll-edge 1 -c 2 -t 300
evgen1  IN  0 events read
test-poll: nothing happened within 300 ms
= 124
> test-poll poll 1 -r all
evgen1  IN  2 events read
= 0
> test-inject-event 0 --add
= 0
> test-read-events blocking 0 -c 1
ring -  added 0
= 0
evgen-cat: evgen1 is gone (ENODEV)
evgen-cat: all devices are gone (ENODEV)
= 69
TRANSCRIPT
    )
}

# A storm for each fault, each in a round of its own, and the first one once more by its token. Rings
# are turned off, so that they can interrupt late, only when the device is reset.
each_fault_is_survived() {
    local faults=(spurious-interrupt=40 early-interrupt=40 stale-index=40 wild-index=20
        corrupt-checksum=40 duplicate-event=40 reordered-event=40 unmapped-dma=40
        hang=1500 stuck-busy=1500 all-ones=1500 self-reset=1000
        'late-interrupt=40,self-reset=1000' duplicate-interrupt=40 lost-interrupt=40)
    local load=rate=1000,burst=4,seconds=1 storms=() rounds=$((${#faults[@]} + 1)) round=0 fault digests
    for fault in "${faults[@]}"; do
        # The next event puts a wild index right, so that one has to be seen before it comes.
        [[ $fault != wild-index=* ]] || load=rate=200,burst=1,seconds=1
        storms+=(--storm "$load,$fault")
        load=rate=1000,burst=4,seconds=1
    done
    storms+=(--storm "$(scripts/storm.sh token "$load,${faults[0]}")")
    expect 0 "^$rounds of $rounds rounds good: .* 0 unaccounted for" \
        boot --timeout 280 "${storms[@]}" --run "stress --rounds $rounds --seconds 1 --settle 60"
    for fault in "${faults[@]}"; do
        round=$((round + 1))
        grep -q "^ok $round - round $round: .*\b${fault%%=*} [1-9]" "$work/said" ||
            { echo "no ${fault%%=*} came about in round $round" && return 1; }
    done
    grep -q 'wild-index [0-9]* ([1-9][0-9]* noticed)' "$work/said" ||
        { echo 'no wild index was noticed' && return 1; }
    mapfile -t digests < <(sed -n 's/^lockstorm: storm over on device 0: //p' "$work/said")
    if [[ ${#digests[@]} != "$rounds" || ${digests[0]} != "${digests[-1]}" ]]; then
        echo "the token made another storm: ${digests[-1]}, not ${digests[0]}"
        return 1
    fi
    # Different storms differ.
    [[ ${digests[0]} != "${digests[1]}" ]]
}

# Where the machine is too slow for it, the events come late. Twice the rate hung a nested guest once in
# some twenty runs, with a processor that took no interrupts any more, as in scripts/nested.sh.
million_events_reconcile() {
    local every=spurious-interrupt=2000,lost-interrupt=5000,duplicate-interrupt=2000
    every+=,early-interrupt=2000,late-interrupt=2000,stale-index=2000,wild-index=20000
    every+=,corrupt-checksum=1000,duplicate-event=1000,reordered-event=1000,unmapped-dma=1000
    every+=,hang=100000,stuck-busy=100000,all-ones=100000,self-reset=60000
    expect 0 'conservation law holds: .* 0 unaccounted for' \
        boot --timeout 280 --devices 4 --storm "rate=3000,burst=64,seconds=22,$every" \
        --run 'stress --seconds 1 --injectors 2 --settle 250'
    local fault stormed
    stormed=$(awk '/^lockstorm: storm over on device / { gsub(",", "", $7); sum += $7 } END { print sum + 0 }' "$work/said")
    for fault in ${every//,/ }; do
        grep -q "^${fault%%=*} \+[1-9].* ok$" "$work/said" ||
            { echo "no ${fault%%=*} came about" && return 1; }
    done
    echo "$stormed events stormed"
    ((stormed >= 1000000))
}

# The rounds of this seed have everything in them.
torture_balances() {
    local storms=(--storm 'rate=1000,burst=8,seconds=3,corrupt-checksum=40,duplicate-event=40'
        --storm 'rate=1000,burst=8,seconds=3'
        --storm 'rate=1000,burst=8,seconds=3,lost-interrupt=40,hang=4000,self-reset=4000') what
    expect 0 '^# End of test: SUCCESS: 3 of 3 rounds good, .* 0 unaccounted for' \
        boot --timeout 280 --devices 2 "${storms[@]}" --run 'torture --seed 1 --seconds 15'
    for what in write 'read --how block' 'read --how try' 'read --how one' 'poll --by poll' \
        'poll --by level' 'poll --by edge' drain count browse coalesce reset fork \
        'stutter [1-9]' 'signals [1-9]' 'shuffle [1-9]' 'onoff [1-9]' 'unbind [1-9]'; do
        grep -q "^# round .* $what" "$work/said" || { echo "nobody does '$what'" && return 1; }
    done
    if grep '^# SKIP' "$work/said" | grep -v 'slab'; then
        echo 'a stock kernel can do all that'
        return 1
    fi
}

withheld_event_is_found() {
    local socket=$work/control.sock
    boot_in_background --control "$socket" --run 'stress --seconds 8 --injectors 2'
    wait_for '^stress:'
    # First, so that slow steps after it do not come too late for it.
    scripts/storm.sh --socket "$socket" withhold --device 0 --ring 0 --count 1
    scripts/storm.sh --socket "$socket" inject --device 0 --ring 1 --count 5
    scripts/storm.sh --socket "$socket" --rate 1000 --seconds 2
    scripts/storm.sh --socket "$socket" stats
    ends_with 42 60 'not ok'
    [[ ! -e $socket ]]
}

# shellcheck disable=SC2016  # the guest's shell is to expand it
shell_on_terminal() {
    local keys=$work/keys
    mkfifo "$keys"
    # Both ends at once: either alone would wait for the other.
    exec 5<>"$keys"
    in_background script -qec 'scripts/boot.sh --timeout 120' /dev/null <&5
    wait_for 'guest#'
    printf 'echo six times seven is $((6 * 7))\n' >&5
    wait_for 'seven is 42'
    printf 'sleep 1000\n' >&5
    sleep 1
    printf '\003' >&5
    printf 'ls /dev/evgen*; echo still $((40 + 3))\n' >&5
    wait_for 'still 43'
    printf 'exit\n' >&5
    ends_with 0 20 '/dev/evgen0'
}

hanging_kernel() {
    # A PVH kernel that does nothing at all.
    cat >"$work/hang.S" <<'ASSEMBLY'
        .section .note.pvh, "a", @note
        .long 4, 4, 18
        .asciz "Xen"
        .long start
        .text
        .globl start
start:  jmp start
        .section .note.GNU-stack, "", @progbits
ASSEMBLY
    cc -nostdlib -static -no-pie -Wl,-Ttext-segment=0x1000000,-estart,--build-id=none \
        -o "$work/hang" "$work/hang.S"
    expect 124 'vCPU 0 was at 0x1001000, privilege level 0, interrupts off' boot --kernel "$work/hang" --timeout 5 --run true
}

taken_socket() {
    perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un($ARGV[0])) or die;
        listen(S, 1); print "listening\n"; close STDOUT; sleep 60' "$work/taken" >"$work/listener" &
    local listener=$! _
    for _ in {1..50}; do [[ -s $work/listener ]] || sleep 0.1; done
    expect_line 2 'is taken' boot --control "$work/taken" --run true
    kill "$listener"
}

# interrupted_by_user OPTION…: of boot.sh
interrupted_by_user() {
    boot_in_background --control "$work/control.sock" --run 'echo it runs; sleep 1000' "$@"
    wait_for 'it runs'
    local run
    run=$(run_behind "$work/control.sock")
    kill -INT -- "-$machine"
    ends_with 130 20 ''
    ! is_running "$run" || { echo "$run still runs" && return 1; }
}

# killed_qemu PATTERN OPTION…: of boot.sh
killed_qemu() {
    local pattern=$1
    shift
    boot_in_background --control "$work/control.sock" --run 'echo it runs; sleep 1000' "$@"
    wait_for 'it runs'
    kill -KILL "$(<"$(run_behind "$work/control.sock")/qemu.pid")"
    ends_with 69 20 "$pattern"
}

# What is assigned has the guest's own drivers: that of evgen, and that of the virtio console, of which
# the kernel says that it has queues with interrupts.
# shellcheck disable=SC2016  # the guest's shell is to expand it
assigned_devices_work() {
    local socket=$work/control.sock virtio=virtio-serial-pci,disable-legacy=on,iommu_platform=on
    boot_in_background --control "$socket" --vfio evgen --vfio "$virtio" --run '
        for device in /sys/bus/pci/devices/*; do
            echo "$(cat $device/vendor $device/device | tr "\n" " ")$(readlink $device/driver)"
        done
        grep virtio /proc/interrupts
        stress --seconds 10 --injectors 2 --settle 60'
    wait_for '^stress:'
    scripts/storm.sh --socket "$socket" --rate 1000 --burst 4 --seconds 5
    ends_with 0 120 'conservation law holds: .* 0 unaccounted for'
    grep '^0x1234 0x4556 .*/drivers/evgen' "$work/background"
    grep '^0x1af4 0x1043 .*/drivers/virtio-pci' "$work/background"
    grep 'PCI-MSIX-0000:00:02.0 .* virtio' "$work/background"
}
