# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by test.sh: guests in stock QEMU, which has the devices over vfio-user. Uses functions of
# guest-tests.sh.

qemu_tests() {
    check 'QEMU, vfio-user: a storm with every fault balances' qemu_storm_balances
    check 'QEMU, vfio-user: 64 devices with 8 rings each, all probed, all accounted for' many_devices
    check 'QEMU, vfio-user: control socket' control_socket --accel qemu
    check 'QEMU, vfio-user, QMP: devices come, work and go, asked and unasked, in one boot' qemu_hot_plug
    check 'QEMU, vfio-user: Ctrl-C: 130' interrupted_by_user --accel qemu
    check 'QEMU, vfio-user: killed QEMU: 69' killed_qemu 'the VMM was killed by signal 9' --accel qemu
    check 'QEMU, vfio-user: killed server: 69' killed_server
    check 'QEMU and a server started by hand: what becomes of either when the other is killed' killed_by_hand
}

qemu_storm_balances() {
    expect 0 'conservation law holds: .* 0 unaccounted for' boot --accel qemu --devices 2 \
        --storm everything-goes-wrong --run 'stress --seconds 12 --settle 60'
    grep -q '^lockstorm: VMM start → guest init .* · workload start .* · workload ' "$work/said"
}

many_devices() {
    expect 0 'conservation law holds: .* 0 unaccounted for' boot --accel qemu --devices 64 --rings 8 --cpus 4 \
        --timeout 580 --storm rate=10,burst=4,seconds=5 \
        --run 'stress --seconds 2 --injectors 4 --settle 200'
    # The devices' table has a line for each ring.
    (($(grep -c '^evgen[0-9]* *[0-7] .* ok' "$work/said") >= 512)) || { echo 'a ring is missing' && return 1; }
    grep '^lockstorm: .* driver probe [0-9.]* s (64 devices, [0-9]* ms each)' "$work/said"
}

# A device is plugged in, works, and is let go of in mid-storm, again and again; QEMU 11.1.3 would not
# outlive the first time if it knew of the devices' MSI-X. Then one goes unasked.
qemu_hot_plug() {
    local socket=$work/control.sock lockstorm device
    lockstorm=$(images/programs.sh)/lockstorm
    # shellcheck disable=SC2016  # the guest's shell is to expand it
    boot_in_background --accel qemu --timeout 400 --control "$socket" --ports 2 --run 'echo it runs
        for round in 1 2; do
            until [ -e /dev/evgen1 ]; do sleep 0.1; done; stress --seconds 3; echo "round $round: $?"
            while [ -e /dev/evgen1 ]; do sleep 0.1; done; echo "round $round is over"
        done
        until [ -e /dev/evgen1 ]; do sleep 0.1; done
        evgen-cat 1 >/tmp/events & until ls -l /proc/$!/fd 2>&1 | grep -q evgen1; do sleep 0.1; done
        echo it reads; wait $!; echo "= $?"; test -s /tmp/events && echo and has read
        while [ -e /dev/evgen1 ]; do sleep 0.1; done; stress --seconds 2'
    wait_for 'it runs'
    storm() { "$lockstorm" ctl --socket "$socket" "$@"; }
    expect 2 'device 0 is not in a slot' storm unplug 0
    for device in 1 2; do
        storm plug --rings 2
        storm stats | grep "^slot 1: device $device, in use, at [0-9a-f]*:00.0 in the guest"
        storm stats | grep '^slot 2: empty'
        expect 2 "slot 1 is taken by device $device" storm plug --slot 1
        wait_for "^round $device: 0"
        storm storm start rate=500,burst=4,seconds=600 --devices "$device"
        storm events --count 100 --devices "$device" >/dev/null
        storm unplug "$device" --wait 0
        storm stats | grep "^slot 1: device $device, .*the guest is to let go of it"
        storm unplug "$device"
        wait_for "round $device is over"
        expect 2 "device $device is gone" storm inject --device "$device"
    done

    storm plug --slot 2
    wait_for 'it reads'
    storm storm start rate=500,burst=4,seconds=600 --devices 3
    storm events --count 100 >/dev/null
    storm unplug 3 --surprise --wait 0
    expect 2 'device 3 is gone' storm inject --device 3
    storm storm status | grep '^device 3: storm is over'
    wait_for 'and has read'
    "$lockstorm" top --socket "$socket" --once | grep 'law holds'
    ends_with 0 60 'conservation law holds: .* 0 unaccounted for'
}

killed_server() {
    boot_in_background --accel qemu --control "$work/control.sock" --run 'stress --seconds 1000'
    storm_on "$work/control.sock" "injectors 10"
    local run server qemu
    run=$(run_behind "$work/control.sock")
    # Nothing ends the line, which `read` takes for an error.
    read -r server <"/proc/$machine/task/$machine/children" || true
    qemu=$(<"$run/qemu.pid")
    kill -KILL "$server"
    ends_with 69 10 'lockstorm was killed before the run was over'
    within 10 has_ended "$qemu"
}

killed_by_hand() {
    local images=images run=$work/by-hand guest_kernel initramfs lockstorm obstacle
    local root=() qemu=() cpus=2 mem=512 devices=1
    # shellcheck source=scripts/kvm-obstacle.sh
    . scripts/kvm-obstacle.sh
    # shellcheck source=scripts/qemu.sh
    . scripts/qemu.sh
    guest_kernel=$(images/kernel.sh stock)/vmlinux
    initramfs=$(images/guest-initramfs.sh stock)/initramfs.cpio
    lockstorm=$(images/programs.sh)/lockstorm
    obstacle=$(kvm_obstacle)
    mkdir "$run"
    qemu_root
    qemu_machine
    # stress --seconds 3 --settle 60 && stress --seconds 1000 --injectors 3
    qemu+=(-serial stdio -append "console=ttyS0 quiet panic=-1 cryptomgr.notests no_timer_check lockstorm.devices=1 \
lockstorm.run=stress%20--seconds%203%20--settle%2060%20%26%26%20stress%20--seconds%201000%20--injectors%203")
    "$lockstorm" serve --socket "$run/evgen" --control "$run/control" 2>"$work/server" &
    server=$!
    # QEMU complains of each access to a server that is gone, and there are a hundred thousand.
    # shellcheck disable=SC2016  # the inner shell is to expand it
    boot_qemu() {
        in_background bash -c 'exec "$@" 2>"$0"' "$work/qemu.log" "${root[@]}" "${qemu[@]}"
        trap 'kill -KILL "$server" "$machine" 2>/dev/null || true' EXIT
    }

    boot_qemu
    storm_on "$run/control" 'injectors 10'
    kill -KILL "$(<"$run/qemu.pid")"
    within 10 grep 'the client is gone; the device waits for another' "$work/server"
    "$lockstorm" ctl --socket "$run/control" storm status --json | grep '"running":false'

    boot_qemu
    storm_on "$run/control" 'injectors 10' 2
    wait_for 'conservation law holds: .* 0 unaccounted for'
    storm_on "$run/control" 'injectors 3'
    kill -KILL "$server"
    # QEMU 11.1.3 ends here more often than not, by an assertion of its own.
    within 10 guest_knows
    tail -n 3 "$work/qemu.log"
}

# The device is gone: QEMU has ended, or the guest says so.
guest_knows() { has_ended "$machine" || grep -a 'is given up' "$work/background"; }

# storm_on SOCKET TEXT [SECONDS]: once the guest's stress test has said so, it is in the midst of a storm.
storm_on() {
    wait_for "^stress: .*$2"
    scripts/storm.sh --socket "$1" --rate 1000 --burst 8 --seconds "${3:-1000}"
    scripts/storm.sh --socket "$1" events --count 200 >/dev/null
}

# within SECONDS COMMAND…: until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS <= end)) || { echo "too late: $*" && return 1; }
        sleep 0.1
    done
}

# has_ended PROCESS: it is gone, or only waits for its parent to take note.
has_ended() { ! grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status" 2>/dev/null; }
