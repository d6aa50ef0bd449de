# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by boot.sh, after nested.sh. Devices for --vfio in the nested mode: those of the outer machine,
# which has an IOMMU then. evgen devices are served to it over vfio-user by a lockstorm out here, so that
# an event goes from this machine through the outer machine's IOMMU into the guest of its guest.

# The slot of the first one in the outer machine; the others follow.
readonly first_slot=16

# Sets up what the outer machine is to have for `vfio`, the devices by the names that QEMU has for them,
# or evgen. Starts `server`, if evgen devices are among them. Uses boot.sh's run, lockstorm, mem and
# device_options, and adds to its machine_options.
# shellcheck disable=SC2034,SC2154  # nested.sh's and boot.sh's own
give_outer_devices() {
    local device slot number=0 evgens=0
    outer_machine=,kernel-irqchip=split,memory-backend=memory
    # Where other programs keep the emulator busy, its timer seems broken, which the kernel gives up for
    # if interrupts are remapped.
    outer_append='intel_iommu=on no_timer_check'
    # Without share=on evgen would write where the outer machine does not look.
    outer_devices=(-object "memory-backend-memfd,id=memory,size=$((mem + outer_memory))M,share=on"
        -device 'intel-iommu,intremap=on,caching-mode=on')
    archives=("$("$images/vfio-modules.sh")/vfio.cpio")
    mkdir -p "$run/tree/run"
    for device in "${vfio[@]}"; do
        slot=$(printf '%x' $((first_slot + number)))
        number=$((number + 1))
        machine_options+=(--vfio "0000:00:$slot.0")
        echo "0000:00:$slot.0" >>"$run/tree/run/vfio"
        if [[ $device == evgen ]]; then
            device='{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/mnt/run/evgen'
            ((evgens == 0)) || device+=.$evgens
            device+='"},"addr":"'$slot'"}'
            evgens=$((evgens + 1))
        else
            device+=,addr=$slot
        fi
        outer_devices+=(-device "$device")
    done
    ((evgens > 0)) || return 0
    # The control socket of this run is that of the device.
    outer_control=(-chardev 'null,id=control')
    (cd "$run" && exec "$lockstorm" serve --socket evgen --control control.sock --devices "$evgens" \
        "${device_options[@]}") >"$run/serve.log" 2>&1 3<&- &
    server=$!
    wait_for_server "$run/control.sock" "$run/evgen$( ((evgens == 1)) || echo ".$((evgens - 1))")"
}

# wait_for_server SOCKET…: until it has made them all.
wait_for_server() {
    local _ socket
    for socket; do
        for _ in {1..100}; do
            [[ ! -S $socket ]] || continue 2
            kill -0 "$server" 2>/dev/null || break
            sleep 0.1
        done
        cat "$run/serve.log" >&2
        fail 69 'no evgen device is served to the outer machine'
    done
}
