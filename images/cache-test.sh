#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What becomes of builds that fail, die or meet.
# shellcheck disable=SC2016  # the builds' own variables
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export LOCKSTORM_CACHE="$folder/a cache"
failures=0

# recipe KEY COMMAND: a recipe whose build runs COMMAND, with the folder of the result as $1.
recipe() {
    bash -euo pipefail -c '. "$1/cache.sh"; command=$3
        build() { eval "$command"; }
        cached thing "$2" build' recipe "$here" "$1" "$2" 2>>"$folder/messages"
}

expect() { # CASE COMMAND…
    if ! "${@:2}"; then
        echo "$1: not so: ${*:2}"
        failures=$((failures + 1))
    fi
}

key=0123456789abcdef
thing=$LOCKSTORM_CACHE/thing-$key

recipe $key 'echo half >"$1/file"; false; echo whole >"$1/file"' >/dev/null && failed=no || failed=yes
expect 'a failed build fails' test "$failed" = yes
expect 'a failed build leaves no result' test ! -e "$thing"

{ recipe $key 'echo half >"$1/file"; kill -9 $$ $BASHPID' >/dev/null || true; } 2>/dev/null
expect 'a killed build leaves no result' test ! -e "$thing"

# Two at once: one builds, and both get the result.
for _ in 1 2; do
    recipe $key 'echo built >>"'"$folder"'/builds"; sleep 0.5; echo whole >"$1/file"' >>"$folder/paths" &
done
wait
expect 'two builds at once are one' test "$(wc -l <"$folder/builds")" = 1
expect 'both get the result' test "$(sort -u "$folder/paths")" = "$thing"
expect 'the result is whole' test "$(cat "$thing/file")" = whole
expect 'nothing half-built stays' test -z "$(ls -A "$LOCKSTORM_CACHE/building")"

recipe $key 'false' >/dev/null && rebuilt=no || rebuilt=yes
expect 'a result is not built twice' test "$rebuilt" = no

exit $((failures > 0))
