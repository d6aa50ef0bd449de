# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by boot.sh and guest-tests.sh. The mode `qemu`: stock QEMU runs the guest, on KVM where the
# machine can, and lockstorm serves it the very same devices over vfio-user. QEMU is lockstorm's child,
# so the end of either is the other's.

# Boots the guest. Uses boot.sh's guest_kernel, initramfs, lockstorm, options, and what the functions
# below use; sets machine and status.
# shellcheck disable=SC2154  # boot.sh's own
run_qemu() {
    local root=() qemu=()
    qemu_root
    qemu_with_guest
    # A socket's path is limited to 107 bytes, and the folder's may be longer.
    (
        cd "$run"
        # shellcheck disable=SC2016  # the inner shell is to expand it
        exec "$lockstorm" serve --socket evgen --control control.sock --console-log "$run/console.log" \
            "${options[@]}" -- bash -c 'exec "$@" 2>qemu.log' qemu "${root[@]}" "${qemu[@]}" <&3
    ) &
    machine=$!
    wait "$machine" || status=$?
    # It takes its sockets along, unless it had no time to.
    if [[ -S $run/evgen ]]; then
        say "boot.sh: lockstorm was killed before the run was over; the guest's console is in $run/console.log"
        rm -f "$run"/evgen{,.*} "$run/control.sock"
        status=69
    fi
}

# Sets `root`: what runs a command within the toolchain root, which sees the run's folder and the images.
# Uses images, run, guest_kernel, initramfs and obstacle.
qemu_root() {
    local toolchain
    toolchain=$("$images/toolchain-root.sh")
    root=("$images/enter-root.sh" "$toolchain" --bind "$run" run
        --see "${guest_kernel%/*}" kernel --see "${initramfs%/*}" initramfs)
    [[ -n $obstacle ]] || root+=(--device /dev/kvm)
    root+=(--)
}

# Sets `qemu`: its command, as lockstorm is to run it.
qemu_with_guest() {
    qemu_machine
    ((ports == 0)) || qemu_slots
    # lockstorm puts the kernel arguments in, and is the console's other end.
    qemu+=(-append '{}' -chardev 'stdio,id=console,signal=off' -serial chardev:console)
    # The two ports of the exit device, where the kernel arguments say that they are.
    qemu+=(-chardev 'socket,id=status,path=/mnt/run/evgen.status'
        -device 'isa-debugcon,iobase=0x5e0,chardev=status'
        -chardev 'socket,id=marks,path=/mnt/run/evgen.marks'
        -device 'isa-debugcon,iobase=0x5e1,chardev=marks')
}

# Sets `qemu`: its command for a machine that has the devices. Uses guest_kernel, initramfs, obstacle,
# cpus, mem and devices.
qemu_machine() {
    local processor=(-accel kvm -cpu host) number socket device
    [[ -z $obstacle ]] || processor=(-accel "tcg,thread=multi" -cpu max)
    # Where it runs, devices that are plugged in later are found by the name that lockstorm gives them.
    qemu=(env -C /mnt/run qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot
        -pidfile /mnt/run/qemu.pid "${processor[@]}" -M 'q35,memory-backend=memory' -smp "$cpus" -m "$mem"
        # Without share=on the devices would write where the guest does not look.
        -object "memory-backend-memfd,id=memory,size=${mem}M,share=on"
        -kernel "/mnt/kernel/${guest_kernel##*/}" -initrd "/mnt/initramfs/${initramfs##*/}")
    for ((number = 0; number < devices; number++)); do
        socket=/mnt/run/evgen
        ((number == 0)) || socket+=.$number
        device='"driver":"vfio-user-pci","socket":{"type":"unix","path":"'$socket'"}'
        # Eight to a slot, so that there is room for as many as there may be.
        device+=$(printf ',"multifunction":true,"addr":"%x.%x"' $((number / 8 + 1)) $((number % 8)))
        qemu+=(-device "{$device}")
    done
}

# Adds to `qemu`: `ports` empty slots, and the monitor by which lockstorm puts devices into them. They
# have native hot-plug, as lockstorm's own, and not that of QEMU's ACPI tables.
qemu_slots() {
    local number
    qemu+=(-qmp unix:evgen.qmp -global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off)
    for ((number = 1; number <= ports; number++)); do
        # Behind those places that the devices have which are there from the start.
        qemu+=(-device "$(printf 'pcie-root-port,id=port%d,slot=%d,chassis=%d,io-reserve=0,multifunction=on,addr=%x.%x' \
            "$number" "$number" "$number" $((9 + (number - 1) / 8)) $(((number - 1) % 8)))")
    done
}
