# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by test.sh: the driver on kernels whose spinlocks sleep, that check each lock, or each access to
# memory. What a kernel finds shows as a splat, and the run ends with 42.

# Builds these kernels beside the first tests of guests, which leave a processor idle.
build_kernels_meanwhile() {
    (for kernel in rt lockdep kasan; do images/guest-initramfs.sh "$kernel" >/dev/null; done) \
        >"$work/kernels" 2>&1 </dev/null &
    kernels_builder=$!
}

kernel_tests() {
    local start kernel
    start=$(microseconds)
    if kill -0 "$kernels_builder" 2>/dev/null; then
        echo "        waiting for kernels that are being built (cache: $cache/building)"
    fi
    if ! wait "$kernels_builder"; then
        kernels_builder=
        check 'kernels that check themselves' cat_and_fail "$work/kernels"
        return
    fi
    kernels_builder=
    (($(microseconds) - start < 1000000)) || echo "        kernels are built … $(seconds_since "$start")"
    for kernel in rt lockdep kasan; do
        check "$kernel kernel: no splat in any test of the driver, torture, removal" driver_on_kernel "$kernel"
    done
    check 'lockdep kernel: BUSTED control is caught' busted_driver_is_caught --kernel lockdep
}

cat_and_fail() {
    cat "$1"
    return 1
}

# The storms are for each of torture's rounds, and for the devices that vanish.
driver_on_kernel() {
    expect 0 '^# End of test: SUCCESS: 3 of 3 rounds good, .* 0 unaccounted for' \
        boot --kernel "$1" --timeout 580 --devices 2 \
        --storm 'rate=500,burst=8,seconds=3,corrupt-checksum=40,duplicate-event=40' \
        --storm 'rate=500,burst=8,seconds=3' \
        --storm 'rate=500,burst=8,seconds=3,lost-interrupt=40,hang=4000,self-reset=4000' \
        --storm 'rate=100,seconds=60,all-ones=400' \
        --run 'test-file && test-driver && fuzz-ioctl 0 --seconds 5 && torture --seed 1 --seconds 12 &&
            test-removal --rounds 4 --kind unbind --kind module --kind surprise'
    [[ $1 != rt ]] || grep -q PREEMPT_RT "$work/said" || { echo 'this is no PREEMPT_RT' && return 1; }
}
