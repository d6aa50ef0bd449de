#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Boots a guest as boot.sh does with the same options, and puts devices into its slots and takes them out
# when a program in the guest asks for that, as test-removal does:
#
#     scripts/hot-plug.sh --ports 4 --run 'test-removal --kind unplug --kind surprise --rounds 200'
#
# It asks by a line on the console:
#
#     # host: plug 0000:01:00.0      a device into the slot that leads there; it storms at once
#     # host: unplug 0000:01:00.0    the guest is asked to let go of the device
#     # host: pull 0000:01:00.0      the device is gone at once
#     # host: calm                   all storms end
#     # host: seen 53                so many devices has the guest seen to come; the host must have
#                                    put in as many
#
# Exit status: that of boot.sh; 42 if the two have not counted the same.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

case ${1-} in
--help | -h) sed -n '4,18s/^# \{0,1\}//p' "$here/hot-plug.sh" && exit ;;
esac

# Each device has four rings; with more of it, a kernel that checks all does little else.
readonly storm=rate=25,seconds=14400
# Anywhere in a line: the kernel writes to the console too.
readonly asked='# host: (calm|seen [0-9]+|(plug|unplug|pull) [0-9a-f:.]{12})'
# A slot whose light still blinks takes nothing in and gives nothing out; nor does it blink for long.
readonly attempts=600

lockstorm=$("$here/../images/programs.sh")/lockstorm || exit 69
folder=$(mktemp -d)
socket=$folder/control.sock
machine='' devices_at_first='' disagreed=''
trap '[[ -z $machine ]] || kill "$machine" 2>/dev/null || true; rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

ctl() { "$lockstorm" ctl --socket "$socket" "$@" 2>&1; }

# find_slot ADDRESS: sets slot, and device if there is one in it.
find_slot() {
    local line
    line=$(ctl stats | grep -F " at ${1#0000:} in the guest") || return 1
    [[ $line =~ ^slot\ ([0-9]+):\ (device\ ([0-9]+))? ]] || return 1
    slot=${BASH_REMATCH[1]} device=${BASH_REMATCH[3]-}
}

# The number of devices that there have ever been.
devices_so_far() {
    ctl stats >"$folder/stats" || return
    awk '/^device / { sum++ } / devices before: / { sum += $1 } END { print sum + 0 }' "$folder/stats"
}

# compare COUNT: of the devices that were put in, and that the guest has seen to come.
compare() {
    local devices
    devices=$(($(devices_so_far) - ${devices_at_first:-0}))
    echo "hot-plug.sh: $devices devices were put in, and the guest has seen $1"
    (($1 == devices)) || disagreed=1
}

request() { # VERB ADDRESS
    local slot device plugged
    [[ $1 == calm ]] || find_slot "$2" || { echo "no slot leads to $2" && return 1; }
    case $1 in
    plug)
        plugged=$(ctl plug --slot "$slot" --wait 0) || { echo "$plugged" && return 1; }
        [[ $plugged =~ ^device\ ([0-9]+)\ is ]]
        ctl storm start "$storm" --devices "${BASH_REMATCH[1]}" >"$folder/storm"
        ;;
    unplug) ctl unplug "$device" --wait 0 ;;
    pull) ctl unplug "$device" --surprise --wait 0 ;;
    calm) ctl storm stop ;;
    esac
}

serve() { # VERB ADDRESS
    local attempt
    : "${devices_at_first:=$(devices_so_far)}"
    if [[ $1 == seen ]]; then
        compare "$2"
        return
    fi
    for ((attempt = 0; attempt < attempts; attempt++)); do
        ! request "$@" >"$folder/said" || return 0
        sleep 0.1
    done
    echo "hot-plug.sh: '$*' cannot be done: $(cat "$folder/said")"
}

exec 4< <(exec "$here/boot.sh" --control "$socket" "$@" 2>&1 </dev/null)
machine=$!
while IFS= read -r line <&4 || [[ -n $line ]]; do
    printf '%s\n' "$line"
    # shellcheck disable=SC2086  # these are two words
    [[ ! $line =~ $asked ]] || serve ${BASH_REMATCH[1]}
done
status=0
wait "$machine" || status=$?
machine=
((status != 0)) || [[ -z $disagreed ]] || status=42
exit "$status"
