#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Measures what the project claims, and prints one table. `bench.sh --help` tells more.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
images=$here/../images

usage() {
    cat <<'TEXT'
bench.sh: measures, and prints one table: what, against what, the ratio, the aim, met or not.

  scripts/bench.sh                 everything, some minutes
  scripts/bench.sh boot memory     only these parts
  scripts/bench.sh --quick         fewer rounds: whether it works, not how fast it is

Parts:
  core         the device alone: an event written to a ring in guest memory, against the bare
               copying of the same bytes (Criterion)
  boot         from the start of a virtual machine monitor to the first program in its guest:
               lockstorm, QEMU q35, QEMU microvm and alioth in turn, with the same kernel,
               arguments, initramfs, memory and one CPU. The median of all rounds
  interrupts   from an event to the driver's handler, by irqfd against KVM_SIGNAL_MSI: how long,
               how many; and how often a vCPU leaves the guest for it
  memory       what lockstorm takes beside the guest's memory, and each device more

Figures of one run are compared with each other and with nothing else: the ratios are what is
claimed, and the rest is as fast as this machine is now. Leave it alone meanwhile.

All but core need KVM. Where this machine's cannot run guests, they are taken in an emulated
machine that has it, all of them in the same; figures are worse there, and exits cost more.

Options:
  --quick                  one fifth of everything
  --rounds N               boots of each monitor (default 5); half as many runs of interrupts
  --accel auto|kvm|nested  as boot.sh has it

The result goes to $LOCKSTORM_CACHE/bench-results (or ~/.cache/lockstorm/bench-results) too, as
JSON with every sample, and the table beside it.

Exit status: 0 all was measured, whatever came out; 1 something could not be; 2 usage; 69 the
machine lacks something.
TEXT
}

fail() { # STATUS MESSAGE
    printf 'bench.sh: %s\n' "$2" >&2
    exit "$1"
}

readonly all_parts=(core interrupts boot memory)
accel=auto rounds='' quick='' parts=()
while (($# > 0)); do
    case $1 in
    --help | -h) usage && exit ;;
    --quick) quick=--quick ;;
    --accel | --rounds)
        (($# > 1)) || fail 2 "$1 needs a value; see bench.sh --help"
        [[ $1 == --accel ]] && accel=$2 || rounds=$2
        shift
        ;;
    -*) fail 2 "unknown option '$1'; see bench.sh --help" ;;
    *)
        [[ " ${all_parts[*]} " == *" $1 "* ]] || fail 2 "there is no part '$1': there are ${all_parts[*]}"
        [[ " ${parts[*]} " == *" $1 "* ]] || parts+=("$1")
        ;;
    esac
    shift
done
((${#parts[@]} > 0)) || parts=("${all_parts[@]}")
: "${rounds:=$([[ -n $quick ]] && echo 1 || echo 5)}"
[[ $rounds =~ ^[1-9][0-9]{0,2}$ ]] || fail 2 "--rounds takes a number from 1 to 999, not '$rounds'"
[[ $accel == @(auto|kvm|nested) ]] || fail 2 "--accel takes auto, kvm or nested, not '$accel'"

# shellcheck source=scripts/kvm-obstacle.sh
. "$here/kvm-obstacle.sh"
obstacle=$(kvm_obstacle)
[[ $accel != kvm || -z $obstacle ]] || fail 69 "--accel kvm: $obstacle; --accel nested works without"
if [[ $accel == auto ]]; then
    accel=kvm
    [[ -z $obstacle ]] || accel=nested
fi

# shellcheck source=images/cache.sh
. "$images/cache.sh"
# shellcheck source=scripts/run-folder.sh
. "$here/run-folder.sh"
# shellcheck source=scripts/bench/place.sh
. "$here/bench/place.sh"
"$here/host-needs.sh"
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
tools=$("$images/programs.sh" lockstorm-bench) || exit 69

# The device core: Criterion says what it is about, and leaves its results in the run's folder.
measure_core() {
    # The target that the programs are built for may be another machine's idea of this one.
    say "core: an event written to a ring, against bare copies"
    (cd "$here/.." && CRITERION_HOME=$run/criterion cargo bench --locked --quiet \
        --package lockstorm-device-model --bench event -- --noplot ${quick:+"$quick"} >&2)
}

# Everything that must be known to say what the figures are worth.
facts() {
    local commit
    commit=$(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)
    git -C "$here" diff --quiet HEAD 2>/dev/null || commit+=' with changes'
    printf '%s\n' "date=$(date -u +%Y-%m-%dT%H:%MZ)" "commit=$commit" \
        "cpu=$(sed -n 's/^model name\t*: //p' /proc/cpuinfo | head -n 1), $(nproc) online" \
        "host kernel=$(uname -r)" "load at start=$(cut -d' ' -f1 /proc/loadavg)" \
        "rustc=$(rustc --version | cut -d' ' -f2)" \
        "rounds=$rounds${quick:+, quick}"
    if [[ ${parts[*]} != core ]]; then
        printf '%s\n' "guest kernel=$(<"$kernel/release")" "accel=$accel${obstacle:+ ($obstacle)}"
    fi
}

make_run_folder
machine='' readers=() status=0
trap end_place EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
: >"$run/measurements"
in_place=()
for part in "${parts[@]}"; do
    [[ $part == core ]] || in_place+=("$part")
done
if ((${#in_place[@]} > 0)); then
    prepare_place
fi
mapfile -t known < <(facts)
[[ " ${parts[*]} " != *" core "* ]] || measure_core
if ((${#in_place[@]} > 0)); then
    measure_in_place --rounds "$rounds" ${quick:+"$quick"} "${in_place[@]}"
    ((status == 0)) || fail 1 "the measurements came to no end (status $status); see $run"
fi

results=$cache/bench-results
mkdir -p "$results"
name=$results/$(date -u +%Y%m%d-%H%M%S)
"$tools/bench-report" --measurements "$run/measurements" --criterion "$run/criterion" \
    --json "$name.json" "${known[@]/#/--fact=}" "${parts[@]}" >"$name.md" || status=1
cat "$name.md"
say "as JSON, with every sample: $name.json"
exit "$status"
