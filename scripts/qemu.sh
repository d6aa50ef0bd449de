# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by boot.sh. The mode `qemu`: stock QEMU runs the guest, on KVM where the machine can, and
# lockstorm serves it the very same devices over vfio-user. QEMU is lockstorm's child, so either's end
# is the other's.

# Boots the guest. Uses boot.sh's run, kernel, guest_kernel, initramfs, lockstorm, obstacle, cpus, mem,
# devices and options; sets machine and status.
# shellcheck disable=SC2154  # boot.sh's own
run_qemu() {
    local toolchain root=() command=()
    toolchain=$("$images/toolchain-root.sh")
    qemu_command
    root=("$images/enter-root.sh" "$toolchain" --bind "$run" run
        --see "${guest_kernel%/*}" kernel --see "${initramfs%/*}" initramfs)
    [[ -n $obstacle ]] || root+=(--device /dev/kvm)
    # A socket's path is limited to 107 bytes, and the folder's may be longer.
    (
        cd "$run"
        # shellcheck disable=SC2016  # the inner shell is to expand it
        exec "$lockstorm" serve --socket evgen --control control.sock --console-log "$run/console.log" \
            "${options[@]}" -- \
            bash -c 'exec "$@" 2>qemu.log' qemu "${root[@]}" -- "${command[@]}" <&3
    ) &
    machine=$!
    wait "$machine" || status=$?
    # Both take their files along, unless they had no time to.
    [[ ! -S $run/evgen ]] || {
        say "boot.sh: lockstorm was killed before the run was over"
        status=69
    }
    ((status == 0)) || say "boot.sh: status $status; the guest's console is in $run/console.log"
}

# Sets `command`: QEMU's, as seen from within the toolchain root, with {} where the kernel arguments go.
qemu_command() {
    local accel=(-accel kvm -cpu host) number socket
    [[ -z $obstacle ]] || accel=(-accel "tcg,thread=multi" -cpu max)
    command=(qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot
        "${accel[@]}" -M q35,memory-backend=memory -smp "$cpus" -m "$mem"
        # Without share=on the devices would write where the guest does not look.
        -object "memory-backend-memfd,id=memory,size=${mem}M,share=on"
        -kernel "/mnt/kernel/${guest_kernel##*/}" -initrd "/mnt/initramfs/${initramfs##*/}" -append '{}'
        -chardev stdio,id=console,signal=off -serial chardev:console)
    # The two ports of the exit device, as lockstorm names them in the kernel arguments.
    command+=(-chardev socket,id=status,path=/mnt/run/evgen.status
        -device isa-debugcon,iobase=0x5e0,chardev=status
        -chardev socket,id=marks,path=/mnt/run/evgen.marks
        -device isa-debugcon,iobase=0x5e1,chardev=marks)
    # Eight to a slot, so that as many as there may be find a place.
    for ((number = 0; number < devices; number++)); do
        socket=/mnt/run/evgen$( ((number == 0)) || echo ".$number")
        command+=(-device "{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"$socket\"},$(
            printf '"multifunction":true,"addr":"%x.%x"' $((number / 8 + 1)) $((number % 8))
        )}")
    done
}
