# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by boot.sh and bench.sh. The nested mode: QEMU emulates an AMD machine with SVM, in which
# a stock kernel loads kvm-amd and the very same lockstorm runs. Between the two run four ports:
#
#     console   the guest's console; on a terminal both ways, else out only
#     messages  what lockstorm writes on standard error
#     control   the control socket
#     status    "vmm" when the outer machine is up, "alive" now and then, at last "exit N"

# Seconds that lockstorm's own --timeout gets to do its work before the outer machine is ended.
readonly timeout_grace=20
# Seconds in which the outer machine must give a sign of life. It is up after some 4 s, or more
# where many boot at once, and then gives one every 5 s.
readonly pulse_limit=120
# Processors of the outer machine, whatever the guest has. With two, two demonstrations in eight ended
# in a guest that had taken an interrupt twice. images/host-module/ has to do with that, and was made
# later: nobody has tried again.
readonly outer_cpus=1
# MiB that the outer machine needs beyond the guest's memory.
readonly outer_memory=640

# What else the outer machine has: more of its -M, -device and the like, more kernel arguments.
outer_machine='' outer_devices=() outer_append=''
# Where its port `control` ends.
outer_control=(-chardev "socket,id=control,path=/mnt/run/control.sock,server=on,wait=off")

# Boots the guest. Uses boot.sh's guest_kernel, initramfs, lockstorm, machine_options, options, and what
# run_outer_machine uses.
# shellcheck disable=SC2154  # boot.sh's own
run_nested() {
    mkdir -p "$run/tree/run"
    cp "$lockstorm" "$run/tree/run/lockstorm"
    cp "$guest_kernel" "$run/tree/run/kernel"
    cp "$initramfs" "$run/tree/run/initramfs"
    # Without paravirtual spinlocks: a guest was found in kvm_wait, halted with interrupts off, whose
    # kick had got lost. By an RCU stall on one processor it had looked like one before.
    run_outer_machine /run/lockstorm boot --kernel /run/kernel --initramfs /run/initramfs \
        --append nopvspin \
        --control /dev/virtio-ports/control "${machine_options[@]}" "${options[@]}"
}

# run_outer_machine COMMAND…: runs the command in an outer machine with the files of $run/tree, and
# of the archives that `archives` names, if it is set. Uses run, kernel, mode, mem and timeout; sets
# machine, readers and status.
run_outer_machine() {
    local toolchain start
    toolchain=$("$images/toolchain-root.sh")
    write_initrd "$@"
    : >"$run/console.log"
    : >"$run/messages.log"
    mkfifo "$run/status"
    exec 4<>"$run/status"
    # Output goes to files, which are never full, and is shown from there: a slow reader of
    # ours must not stop the guest, and nothing may be lost when the machine ends.
    local console=(-chardev "file,id=console,path=/mnt/run/console.log")
    [[ $mode != shell ]] || console=(-chardev "stdio,id=console,signal=off,logfile=/mnt/run/console.log")

    start=$(microseconds)
    "$images/enter-root.sh" "$toolchain" --bind "$run" run --see "$kernel" kernel -- \
        qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
        -accel tcg,thread=multi -cpu EPYC-Rome -M "q35$outer_machine" \
        -smp "$outer_cpus" -m $((mem + outer_memory)) -pidfile /mnt/run/qemu.pid \
        -kernel /mnt/kernel/vmlinux -initrd /mnt/run/initrd \
        -append "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests $outer_append" \
        -serial file:/mnt/run/host-console.log -device virtio-serial \
        "${console[@]}" -device virtserialport,chardev=console,name=console \
        -chardev file,id=messages,path=/mnt/run/messages.log \
        -device virtserialport,chardev=messages,name=messages \
        "${outer_control[@]}" -device virtserialport,chardev=control,name=control \
        -chardev file,id=status,path=/mnt/run/status \
        -device virtserialport,chardev=status,name=status "${outer_devices[@]}" \
        <&3 2>"$run/qemu.log" 4>&- &
    machine=$!
    follow messages.log | forward_messages &
    readers=($!)
    if [[ $mode != shell ]]; then
        follow console.log | sed -u 's/\r$//' &
        readers+=($!)
    fi
    follow_status "$start"
    wait "${readers[@]}" || true
    ((status == 0)) || say "boot.sh: status $status; the guest's console is in $run/console.log"
}

# Shows a file of the run as it grows, until the machine has ended.
follow() { tail -c +1 -s 0.1 --pid="$machine" -f "$run/$1" 2>/dev/null; }

# write_initrd COMMAND…: the outer machine's initramfs, and what belongs to this run.
write_initrd() {
    local outer tree=$run/tree argument
    outer=$("$images/host-initramfs.sh")/initramfs.cpio
    mkdir -p "$tree/run"
    {
        printf 'set --'
        for argument; do
            printf " '%s'" "${argument//\'/\'\\\'\'}"
        done
        printf '\n'
    } >"$tree/run/command"
    {
        cat "$outer" "${archives[@]-/dev/null}"
        "$images/archive.sh" "$kernel" "$tree"
    } >"$run/initrd"
    rm -r "$tree"
}

# Passes lockstorm's messages on. Its timeline gets the outer machine's part in front.
forward_messages() {
    local line
    while IFS= read -r line; do
        [[ $line != "lockstorm: VMM start"* ]] ||
            line="lockstorm: host boot $(<"$run/host-boot") · ${line#lockstorm: }"
        say "${line%$'\r'}"
    done
}

# Reads the port `status` until the outer machine ends; sets `status`.
follow_status() {
    local start=$1 line='' part word value result='' alive=1 limit=0 pulse=$SECONDS
    while :; do
        if IFS= read -r -t 0.2 -u 4 part; then
            read -r word value <<<"$line$part"
            line=''
            case $word in
            vmm)
                pulse=$SECONDS
                limit=$((timeout > 0 ? SECONDS + timeout + timeout_grace : 0))
                seconds_since "$start" >"$run/host-boot"
                rm -f "$run/initrd"
                ;;
            alive) pulse=$SECONDS ;;
            # A polite end, after what is under way in the other ports.
            exit)
                result=$value
                limit=$((SECONDS + 5))
                kill "$(<"$run/qemu.pid")" 2>/dev/null || true
                ;;
            esac
            continue
        fi
        # On a busy machine the time may be over within a line, whose beginning has been read then.
        line+=$part
        if [[ -z $alive ]]; then
            break
        elif ! kill -0 "$machine" 2>/dev/null; then
            alive=
        elif ((limit > 0 && SECONDS > limit || SECONDS - pulse > pulse_limit)); then
            [[ -n $result ]] || say "boot.sh: the outer machine does not get on; its console is in $run/host-console.log"
            : "${result:=124}"
            kill -KILL "$machine"
            limit=0 pulse=$((SECONDS + pulse_limit))
        fi
    done
    wait "$machine" || status=$?
    if [[ -n $result ]]; then
        status=$result
    elif ((status > 128)); then
        say "boot.sh: QEMU was killed by signal $((status - 128)) before the run was over"
        status=69
    else
        say "boot.sh: the outer machine ended before the run was over; see $run/host-console.log and $run/qemu.log"
        status=69
    fi
}
