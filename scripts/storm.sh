#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Talks to a guest that boot.sh has started. `storm.sh --help` tells more.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

usage() {
    cat <<'TEXT'
storm.sh: makes the devices of a running guest storm, and asks them what they counted.

  scripts/storm.sh bursts           a storm by its name
  scripts/storm.sh mine.toml        a storm of your own; device-model/storms/README.md tells how
  scripts/storm.sh storm1.aXd…      a storm again: by the token that each one prints
  scripts/storm.sh --rate 20000 --burst 16 --seconds 10 --seed 1
                                    events per second and vector, events at once, seed
  scripts/storm.sh NAME --devices 0,1
                                    any storm, on some devices only
  scripts/storm.sh status           how far the storms are
  scripts/storm.sh stop             ends them

  scripts/storm.sh list             the storms that have names
  scripts/storm.sh show bursts      the file of one of them, to begin your own with
  scripts/storm.sh check mine.toml  what a storm comes to, without a guest

  scripts/storm.sh top              a live view of all devices
  scripts/storm.sh stats            generated, delivered, dropped; interrupts; latency
  scripts/storm.sh events           a line for each event that is made
  scripts/storm.sh inject --device 0 --ring 1 --count 5
  scripts/storm.sh quit             ends the run

It speaks to the guest that boot.sh started last. Another one:
  scripts/storm.sh --socket PATH …  PATH as given to boot.sh --control

More commands and their options: scripts/storm.sh help; scripts/storm.sh help inject

Exit status: 0 done, 2 refused, 69 nobody answers.
TEXT
}

socket=
case ${1-} in
--help | -h | '') usage && exit ;;
--socket)
    [[ -n ${2-} ]] || { echo "storm.sh: --socket needs a path" >&2 && exit 2; }
    socket=$(realpath -- "$2") || exit 69
    shift 2
    ;;
esac

# shellcheck source=images/cache.sh
. "$here/../images/cache.sh"
# shellcheck source=scripts/run-folder.sh
. "$here/run-folder.sh"
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
programs=$("$here/../images/programs.sh") || exit 69
lockstorm=$programs/lockstorm
case ${1-} in
help) exec "$lockstorm" ctl "$@" ;;
list | show | check | token) exec "$lockstorm" storm "$@" ;;
esac

# Before any file of that name: `storm.sh stats >stats` makes one.
is_command() { [[ $1 == top ]] || "$lockstorm" ctl help "$1" >/dev/null 2>&1; }
is_storm() { [[ $1 == *[=./]* || -f $1 ]] || "$lockstorm" storm show "$1" >/dev/null 2>&1; }
if [[ ${1-} == --* ]]; then
    set -- storm start "$@"
elif [[ ${1-} == stop || ${1-} == status ]]; then
    set -- storm "$@"
elif (($# > 0)) && ! is_command "$1"; then
    is_storm "$1" ||
        give_up 2 "there is no storm, file or command '$1'; scripts/storm.sh list and scripts/storm.sh help show what there is"
    # Here, where a path means what it meant to the caller.
    token=$("$lockstorm" storm token "$1") || exit
    shift
    set -- storm start "$token" "$@"
fi

if [[ -z $socket ]]; then
    run=$(newest_running) || give_up 69 "no guest is running; start one with scripts/boot.sh"
    socket=$run/control.sock
fi
# A socket's path is limited to 107 bytes, and the folder's may be longer.
cd "$(dirname "$socket")"
program=ctl
if [[ ${1-} == top ]]; then
    program=top
    shift
fi
exec "$lockstorm" "$program" --socket "${socket##*/}" "$@"
