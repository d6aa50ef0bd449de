#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Builds what is missing and boots a guest with evgen devices. `boot.sh --help` tells more.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
images=$here/../images

usage() {
    cat <<'TEXT'
boot.sh: boots a stock Linux guest with evgen devices and their Rust driver.

  scripts/boot.sh                    a shell in the guest (Ctrl-A x quits)
  scripts/boot.sh --demo             10 s of interrupt storm under load, then the balance of
                                     all events; also what happens without a terminal
  scripts/boot.sh --run 'ls /dev'    one command; its exit status is this script's

Options:
  --accel auto|kvm|nested|qemu
                           kvm: on this machine's /dev/kvm. nested: inside an emulated machine
                           that has KVM; slower, works everywhere. auto (default): kvm where
                           the CPU can, else nested. qemu: stock QEMU runs the guest, with or
                           without KVM, and gets the devices over vfio-user
  --cpus N                 virtual CPUs, 1 to 8 (default 2)
  --mem M                  guest memory in MiB (default 512, with --kernel kasan 1024)
  --devices N              evgen devices, up to 64 (default 1, with --demo 2)
  --ports N                empty slots for `scripts/storm.sh plug`, up to 31 (default 0)
  --rings N                event rings of each device, 1 to 8 (default 4)
  --vectors N              MSI-X vectors of each device, up to 2048 (default: as few as will do)
  --vfio DEVICE            give the guest a PCI device of this machine, such as 0000:3b:00.0, bound
                           to vfio-pci (docs/vfio.md); more of them if given more than once.
                           --devices is 0 then by default. With --accel nested it is a device
                           of the outer machine: evgen, which scripts/storm.sh speaks to, or
                           what QEMU's -device takes
  --run CMD                run CMD in the guest instead of a shell
  --demo                   run the demonstration
  --storm STORM            the devices storm as soon as the guest's `stress` is ready: a name
                           (`scripts/storm.sh list`), a file, a token, or for example
                           rate=2000,burst=4,seconds=2,lost-interrupt=50 (per second and ring;
                           one event in 50). Given more than once: one for each round of
                           `stress --rounds N`. With --demo: instead of its own
  --kernel KERNEL          the guest's kernel, with its modules:
                             stock    (default) Debian's kernel for cloud machines
                             rt       Debian's PREEMPT_RT kernel: spinlocks sleep, handlers are
                                      threads
                             lockdep  knows in which order locks are taken, and in which
                                      contexts; looks for sleeping in atomic sections, leaks,
                                      and timers and works freed while in use
                             kasan    checks each memory access of C and Rust, and for leaks
                           or the path of any other, vmlinux or bzImage, with modules for stock
  --timeout S              end the run with status 124 after S seconds
  --control PATH           make the control socket available as PATH too
  --dry-run                only show what would be run

From another terminal: scripts/storm.sh talks to the running guest.

The first run builds a toolchain root and a kernel tree, some minutes and 3 GB. They are kept in
$LOCKSTORM_CACHE, or else in ~/.cache/lockstorm; `rm -rf` on it is safe while nothing runs.
The consoles of the last runs are in its runs/.

Exit status: 0 as expected, 42 a finding, 2 usage, 69 the machine lacks something,
124 timeout or hang, 255 guest panic; with --run, the command's own.
TEXT
}

fail() { # STATUS MESSAGE
    printf 'boot.sh: %s\n' "$2" >&2
    exit "$1"
}

number() { # OPTION VALUE MIN MAX
    if [[ ! $2 =~ ^(0|[1-9][0-9]{0,6})$ ]] || (($2 < $3 || $2 > $4)); then
        fail 2 "$1 takes a number from $3 to $4, not '$2'"
    fi
}

# shellcheck source=images/kernel-names.sh
. "$images/kernel-names.sh"

# choose_kernel KERNEL: sets kernel_name, and guest_kernel if it is a path.
choose_kernel() {
    kernel_name=stock guest_kernel=
    if is_kernel_name "$1"; then
        kernel_name=$1
    elif [[ $1 != */* && ! -e $1 ]]; then
        fail 2 "--kernel takes ${kernel_names// /, } or a path, not '$1'"
    elif [[ -f $1 && -r $1 ]]; then
        guest_kernel=$1
    else
        fail 2 "--kernel $1: no such file, or not readable"
    fi
}

accel=auto cpus=2 mem='' devices='' ports=0 rings=4 vectors='' mode='' command='' kernel_name=stock guest_kernel='' timeout=0 control='' dry_run=''
storms=() vfio=()
while (($# > 0)); do
    case $1 in
    --help | -h) usage && exit ;;
    --demo) mode=demo ;;
    --dry-run) dry_run=1 ;;
    --accel | --cpus | --mem | --devices | --ports | --rings | --vectors | --vfio | --run | --storm | --kernel | --timeout | --control)
        (($# > 1)) || fail 2 "$1 needs a value; see boot.sh --help"
        case $1 in
        --accel) accel=$2 ;;
        --cpus) cpus=$2 ;;
        --mem) mem=$2 ;;
        --devices) devices=$2 ;;
        --ports) ports=$2 ;;
        --rings) rings=$2 ;;
        --vectors) vectors=$2 ;;
        --vfio) vfio+=("$2") ;;
        --run) mode=run command=$2 ;;
        --storm) storms+=("$2") ;;
        --kernel) choose_kernel "$2" ;;
        --timeout) timeout=$2 && number --timeout "$2" 1 1000000 ;;
        --control) control=$2 ;;
        esac
        shift
        ;;
    *) fail 2 "unknown option '$1'; see boot.sh --help" ;;
    esac
    shift
done

if [[ -z $mode ]]; then
    mode=demo
    [[ ! -t 0 || ! -t 1 ]] || mode=shell
fi
# A demonstration takes some 15 s; one that hangs is to be told from a slow one.
[[ $mode != demo ]] || ((timeout > 0)) || timeout=180
if [[ -z $devices ]]; then
    devices=1
    ((${#vfio[@]} == 0)) || devices=0
    [[ $mode != demo ]] || devices=2
fi
[[ -n $mem ]] || { [[ $kernel_name == kasan ]] && mem=1024 || mem=512; }
[[ $accel == @(auto|kvm|nested|qemu) ]] || fail 2 "--accel takes auto, kvm, nested or qemu, not '$accel'"
number --cpus "$cpus" 1 8
number --mem "$mem" 64 1000000
number --devices "$devices" "$([[ $mode == demo ]] && echo 1 || echo 0)" 64
number --ports "$ports" 0 31
number --rings "$rings" 1 8
[[ -z $vectors ]] || number --vectors "$vectors" $((rings + 1)) 2048
# What Linux has left of a processor's 256 vectors is some 200, and the driver takes one for each ring
# and one for the device. A device for which there are none is left out.
((devices * (rings + 1) <= cpus * 190)) ||
    fail 2 "$devices devices with $rings rings each take $((devices * (rings + 1))) interrupts, and Linux has some 190 for each processor: give the guest --cpus $(((devices * (rings + 1) + 189) / 190))"

# shellcheck source=scripts/kvm-obstacle.sh
. "$here/kvm-obstacle.sh"
# shellcheck source=scripts/qemu.sh
. "$here/qemu.sh"
obstacle=$(kvm_obstacle)
[[ $accel != kvm || -z $obstacle || -n $dry_run ]] || fail 69 "--accel kvm: $obstacle; --accel nested works without"
if [[ $accel == auto ]]; then
    accel=kvm
    [[ -z $obstacle ]] || accel=nested
fi

machine_options=(--cpus "$cpus" --mem "$mem")
options=(--devices "$devices")
((ports == 0)) || options+=(--ports "$ports")
device_options=(--rings "$rings")
[[ -z $vectors ]] || device_options+=(--vectors "$vectors")
options+=("${device_options[@]}")
for device in "${vfio[@]}"; do
    case $accel in
    kvm) machine_options+=(--vfio "$device") ;;
    qemu) fail 2 '--vfio: with --accel qemu there are none; QEMU itself has -device vfio-pci' ;;
    nested)
        [[ $device != *:*.[0-7] ]] ||
            fail 69 "--vfio $device: only a guest on this machine's own KVM can have it; --vfio evgen works without"
        [[ $device != evgen || ${#storms[@]} == 0 && $mode != demo ]] ||
            fail 2 '--vfio evgen: start the storm from another terminal, with scripts/storm.sh'
        ;;
    esac
done
((timeout == 0)) || options+=(--timeout "$timeout")
# Emulated, on a busy machine, Linux may not see the timer's interrupt in time and panics for it.
[[ $accel != qemu ]] || options+=(--append no_timer_check)
# What checks itself at every step is several times slower, an emulated processor is, and a loaded machine
# more so.
[[ $accel == kvm && $kernel_name != @(lockdep|kasan) ]] || options+=(--boot-timeout 240)
case $mode in
run) options+=(--run "$command") ;;
demo)
    ((${#storms[@]} > 0)) || storms=('rate=2500,burst=16,seconds=10,seed=1')
    # One reader for each device. Where 20,000 events a second are too many, they come late.
    options+=(--run "stress --seconds 10 --injectors 10 --readers $((devices > 2 ? devices : 2)) --settle 60 --min-delivered 100000")
    ;;
esac

if [[ -n $dry_run ]]; then
    echo "accel: $accel${obstacle:+ ($obstacle)}"
    [[ $accel != nested ]] || echo "outer machine: qemu-system-x86_64, TCG, CPU EPYC-Rome, from the toolchain root"
    kernel=${guest_kernel:-"$kernel_name-kernel/vmlinux"} initramfs=guest-initramfs.cpio qemu=()
    if [[ $accel == qemu ]]; then
        guest_kernel=$kernel
        qemu_with_guest
        qemu=(-- "${qemu[@]}")
        printf 'guest: lockstorm serve --socket evgen'
    else
        printf 'guest: lockstorm boot --kernel %s --initramfs %s' "$kernel" "$initramfs"
        printf ' %q' "${machine_options[@]}"
    fi
    printf ' %q' "${options[@]}" "${storms[@]/#/--storm=}" "${qemu[@]}"
    echo
    exit
fi

# shellcheck source=images/cache.sh
. "$images/cache.sh"
# shellcheck source=scripts/run-folder.sh
. "$here/run-folder.sh"
# shellcheck source=scripts/nested.sh
. "$here/nested.sh"
# shellcheck source=scripts/vfio.sh
. "$here/vfio.sh"
# Now, and not after minutes of building.
[[ -z $control ]] || require_free_control "$control"
"$here/host-needs.sh"
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

kernel=$("$images/kernel.sh" stock) || exit 69
[[ -n $guest_kernel ]] || guest_kernel=$("$images/kernel.sh" "$kernel_name")/vmlinux || exit 69
initramfs=$("$images/guest-initramfs.sh" "$kernel_name")/initramfs.cpio || exit 69
lockstorm=$("$images/programs.sh")/lockstorm || exit 69
# As tokens: a file here is none in the outer machine.
for storm in "${storms[@]}"; do
    token=$("$lockstorm" storm token "$storm") || exit
    options+=(--storm "$token")
done
guest_kernel=$(realpath "$guest_kernel")

run_on_kvm() {
    # A socket's path is limited to 107 bytes, and the folder's may be longer.
    (
        cd "$run"
        exec "$lockstorm" boot --kernel "$guest_kernel" --initramfs "$initramfs" \
            --control control.sock --console-log "$run/console.log" \
            "${machine_options[@]}" "${options[@]}" <&3
    ) &
    machine=$!
    wait "$machine" || status=$?
}

# However it ends: no process, no socket and no raw terminal stays behind.
# shellcheck disable=SC2317  # called by the trap
end_machine() {
    trap '' HUP INT TERM
    local process
    for process in $machine $server; do
        if kill "$process" 2>/dev/null; then wait "$process" || true; fi
    done
    wait "${readers[@]}" 2>/dev/null || true
    [[ -z $control ]] || rm -f -- "$control"
    rm -rf "$run"/{tree,initrd,status,qemu.pid}
    [[ -z $terminal ]] || stty "$terminal" <&3
}

make_run_folder
machine='' server='' readers=() terminal='' status=0
[[ -z $control ]] || claim_control "$control"
exec 3<&0
[[ $mode == shell ]] || exec 3</dev/null
[[ ! -t 3 ]] || terminal=$(stty -g <&3)
# Background processes do not hear Ctrl-C, so the traps here decide how all of it ends.
trap end_machine EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
case $accel in
kvm) run_on_kvm ;;
nested)
    ((${#vfio[@]} == 0)) || give_outer_devices
    run_nested
    ;;
qemu) run_qemu ;;
esac
exit "$status"
