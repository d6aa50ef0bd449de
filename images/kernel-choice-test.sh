#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Which kernel is taken from a given archive, and which next if that one lacks Rust.
set -euo pipefail
# shellcheck source=images/kernel-choice.sh
. "$(dirname "${BASH_SOURCE[0]}")/kernel-choice.sh"

# Package "7.3.4-1~bpo13+1" as the archive lists it; the second argument is for rebuilds.
package() { printf '%s+deb13 %s-%s~bpo13+1\n' "$1" "$1" "${2:-1}"; }

failures=0
# expect CASE EXPECTED VERSION…: the versions of EXPECTED are tried in this order.
expect() {
    local case=$1 expected=$2 actual
    shift 2
    actual=$(for version in "$@"; do package "${version%-*}" "$(sed -n 's/.*-//p' <<<"$version")"; done |
        kernel_preference "$(package 7.3.4)" | sed 's/.* \(.*\)~bpo13+1/\1/; s/-1$//' | paste -sd' ')
    if [[ $actual != "$expected" ]]; then
        echo "$case: expected '$expected', got '$actual'"
        failures=$((failures + 1))
    fi
}

expect 'recorded, then its series, then newer' '7.3.4 7.3.10 7.3.5 7.10.1 7.4.2' \
    7.3.5 7.10.1 7.3.4 7.4.2 7.3.10
expect 'the recorded one is gone' '7.3.10 7.3.9 7.4.1' 7.3.9 7.4.1 7.3.10
expect 'its series is gone' '8.0.1 7.12.3 7.4.1' 7.4.1 8.0.1 7.12.3
expect 'older ones never' '7.3.4' 7.2.12 7.3.4 6.12.50
expect 'a rebuild is another version' '7.3.4-2' 7.3.4-2
expect 'nothing fits' '' 7.2.12
expect 'nothing there' ''
exit $((failures > 0))
