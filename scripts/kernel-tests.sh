# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by test.sh: the driver on kernels whose spinlocks sleep, that check each lock, or each access to
# memory. What a kernel finds shows as a splat, and the run ends with 42.

# Builds those kernels, and their guests. Not within a check, because it can take minutes and is to be
# seen; and not beside other tests, because it takes all processors.
build_other_kernels() {
    local kernel
    for kernel in rt lockdep kasan; do
        if images/guest-initramfs.sh "$kernel" >"$work/images"; then
            other_kernels+=("$kernel")
        else
            check "$kernel kernel" false
        fi
    done
}

# Starts the tests beside those of the stock kernel, which leave a processor idle.
start_kernel_tests() {
    mkdir "$work/kernels"
    run_kernel_tests </dev/null &
    kernels=$!
}

# In a process of its own, so with figures of its own.
run_kernel_tests() {
    local work=$work/kernels current='' passed=0 failed=0 failures=()
    trap end_current EXIT
    trap 'exit 143' TERM
    kernel_tests
    printf '%s\n' "$passed $failed" "${failures[@]}" >"$work/sums"
}

# Waits for them, and adds their results.
finish_kernel_tests() {
    local lines=('0 1' 'the tests of the other kernels came to no end') sums
    echo '        waiting for the other kernels'
    wait "$kernels" || true
    kernels=
    [[ ! -s $work/kernels/sums ]] || mapfile -t lines <"$work/kernels/sums"
    read -r -a sums <<<"${lines[0]}"
    passed=$((passed + sums[0])) failed=$((failed + sums[1])) failures+=("${lines[@]:1}")
}

kernel_tests() {
    local kernel
    for kernel in "${other_kernels[@]}"; do
        check "$kernel kernel: no splat in any test of the driver, torture, removal" driver_on_kernel "$kernel"
    done
    [[ " ${other_kernels[*]} " != *' lockdep '* ]] ||
        check 'lockdep kernel: BUSTED control is caught' busted_driver_is_caught --kernel lockdep
}

# The storms are for each of torture's rounds, and for each kind of removal; what is plugged storms by
# itself. soak.sh has the whole of test-driver, which takes minutes where all is checked.
driver_on_kernel() {
    local calm=rate=500,burst=8,seconds=3 hot_plug='--kind unplug --kind surprise'
    # Where handlers are threads, Linux 7.3 never comes to let go of a device that it is asked for:
    # irq_wake_thread() wakes the wrong one of pciehp's two.
    [[ $1 != rt ]] || hot_plug='--kind surprise'
    expect 0 '^# End of test: SUCCESS: 3 of 3 rounds good, .* 0 unaccounted for' \
        boot_with_slots --kernel "$1" --timeout 1180 --devices 2 --ports 2 \
        --storm "$calm,corrupt-checksum=40,duplicate-event=40" --storm "$calm" \
        --storm "$calm,lost-interrupt=40,hang=4000,self-reset=4000" \
        --storm rate=500,seconds=5 --storm rate=500,seconds=5 \
        --run "uname -v; test-file && test-driver --only 'in threads' && fuzz-ioctl 0 --seconds 5 &&
            torture --seed 1 --seconds 12 && test-removal --rounds 4 --limit 60 --kind unbind --kind module $hot_plug"
    [[ $1 != rt ]] || grep -q PREEMPT_RT "$work/said" || { echo 'this is no PREEMPT_RT' && return 1; }
}
