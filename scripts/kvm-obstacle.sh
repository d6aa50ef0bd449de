# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by whatever runs guests on this machine's KVM, or else nested.

# Why this machine's own KVM cannot be used; nothing where it can. A /dev/kvm alone tells little:
# it may be one that runs only kernels made for it.
kvm_obstacle() {
    if ! grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo; then
        echo "the CPU flags show neither vmx nor svm"
    elif [[ ! -e /dev/kvm ]]; then
        echo "there is no /dev/kvm (modprobe kvm-intel or kvm-amd)"
    elif [[ ! -r /dev/kvm || ! -w /dev/kvm ]]; then
        echo "/dev/kvm is not accessible (join the group kvm)"
    fi
}
