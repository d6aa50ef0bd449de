# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by bench.sh: the place where virtual machine monitors are measured. It is the toolchain
# root, because QEMU is there, on a machine whose KVM works; else the outer machine of the nested
# mode, with QEMU put into it. Either way /mnt/bench has what bench-place wants.

# shellcheck source=scripts/nested.sh
. "$here/nested.sh"

# Builds all that is missing and puts it into $run/tree. Sets kernel and toolchain.
# shellcheck disable=SC2154  # `run` and `tools` are bench.sh's
prepare_place() {
    local programs alioth guest bare=$run/bare folder=$run/tree/mnt/bench
    kernel=$("$images/kernel.sh" stock) || exit 69
    toolchain=$("$images/toolchain-root.sh") || exit 69
    programs=$("$images/programs.sh") || exit 69
    alioth=$("$images/alioth.sh") || exit 69
    mkdir -p "$folder" "$bare/dev"
    cp "$tools/bench-init" "$bare/init"
    "$images/archive.sh" "$kernel" "$bare" >"$folder/bare.cpio"
    rm -r "$bare"
    cp "$kernel/vmlinux" "$programs/lockstorm" "$alioth/alioth" "$tools/bench-place" "$folder/"
    # Only the boot has no use for the guest with the driver.
    [[ ${in_place[*]} != boot ]] || return 0
    guest=$("$images/guest-initramfs.sh") || exit 69
    cp "$guest/initramfs.cpio" "$folder/guest.cpio"
}

# measure_in_place ARGUMENT…: runs bench-place with them; its lines go to $run/measurements.
measure_in_place() {
    local command=(/mnt/bench/bench-place --images /mnt/bench "$@")
    case $accel in
    kvm)
        "$images/enter-root.sh" "$toolchain" --see "$run/tree/mnt/bench" bench --device /dev/kvm -- \
            "${command[@]}" >"$run/measurements" &
        machine=$!
        wait "$machine" || status=$?
        ;;
    nested)
        # What run_outer_machine wants to be told. The images and QEMU lie in memory there.
        # shellcheck disable=SC2034
        local mode=run mem=1024 timeout=0
        local archives
        archives=("$("$images/qemu-archive.sh")/qemu.cpio")
        exec 3</dev/null
        run_outer_machine "${command[@]}" >"$run/measurements"
        ;;
    esac
}

# However it ends: no machine and nothing large stays behind.
end_place() {
    trap '' HUP INT TERM
    if [[ -n $machine ]] && kill "$machine" 2>/dev/null; then wait "$machine" || true; fi
    wait "${readers[@]}" 2>/dev/null || true
    rm -rf "${run:?}"/{tree,bare,initrd,status,qemu.pid}
}
