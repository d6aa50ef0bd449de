# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced after images/cache.sh. One folder per run, $LOCKSTORM_CACHE/runs/TIME-PROCESS:
#
#     lock           held while the run goes on
#     control.sock   the machine's control socket
#     console.log    what the guest wrote to its console
#     qemu.log, host-console.log   nested mode: the outer machine's own words

readonly runs=$cache/runs
readonly runs_kept=20

# Makes the folder of this run, and sets `run`.
# shellcheck disable=SC2034  # `run` is for the caller
make_run_folder() {
    local old lock
    run=$runs/$(date +%Y%m%d-%H%M%S)-$$
    mkdir -p "$run"
    exec {lock}>"$run/lock"
    flock "$lock"
    find "$runs" -mindepth 1 -maxdepth 1 -type d | LC_ALL=C sort -r | tail -n "+$((runs_kept + 1))" |
        while IFS= read -r old; do is_running "$old" || rm -rf -- "$old"; done
}

is_running() { ! flock -n "$1/lock" true 2>/dev/null; }

# Prints the folder of the machine that was started last and still runs.
newest_running() {
    local folder
    while IFS= read -r folder; do
        if [[ -e $folder/control.sock ]] && is_running "$folder"; then
            printf '%s\n' "$folder"
            return
        fi
    done < <(find "$runs" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | LC_ALL=C sort -r)
    return 1
}

# require_free_control PATH: what a dead run left there does not count.
require_free_control() {
    if [[ -S $1 ]] && somebody_listens "$1"; then
        give_up 2 "control socket $1 is taken: a running program listens there; choose another path"
    fi
}

# claim_control PATH: makes PATH the way to this run's control socket.
claim_control() {
    require_free_control "$1"
    [[ ! -S $1 && ! -L $1 ]] || rm -f -- "$1"
    ln -s "$run/control.sock" "$1" 2>/dev/null ||
        give_up 2 "control socket $1 cannot be made: the name is in use or its folder not writable"
}

somebody_listens() {
    perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) && connect(S, sockaddr_un($ARGV[0])) or exit 1' \
        "$1" 2>/dev/null
}
