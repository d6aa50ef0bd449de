#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Talks to a guest that boot.sh has started. `storm.sh --help` tells more.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

usage() {
    cat <<'TEXT'
storm.sh: makes the devices of a running guest storm, and asks them what they counted.

  scripts/storm.sh --rate 20000 --burst 16 --seconds 10
                                    a storm: events per second and ring, events at once
  scripts/storm.sh stats            generated, delivered, dropped; interrupts
  scripts/storm.sh inject --device 0 --ring 1 --count 5
  scripts/storm.sh storm-stop
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
if [[ ${1-} == help ]]; then
    exec "$programs/lockstorm" ctl "$@"
fi
if [[ -z $socket ]]; then
    run=$(newest_running) || give_up 69 "no guest is running; start one with scripts/boot.sh"
    socket=$run/control.sock
fi
[[ ${1-} != --* ]] || set -- storm "$@"
# A socket's path is limited to 107 bytes, and the folder's may be longer.
cd "$(dirname "$socket")"
exec "$programs/lockstorm" ctl --socket "${socket##*/}" "$@"
