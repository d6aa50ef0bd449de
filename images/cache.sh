# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced by every recipe. A recipe declares its inputs, calls `cached` with the
# function that builds into an empty folder, and prints the folder of the result:
#
#     key=$(hash_of "$0" other-file - <<<"$other_results")
#     cached toolchain-root "$key" build
#
# Results live in $LOCKSTORM_CACHE/NAME-KEY. A result is built in building/ and renamed
# into place when it is whole; one lock per result keeps two builds apart. The lock
# belongs to the process, so a killed build leaves only a folder that the next one sweeps.

cache=${LOCKSTORM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lockstorm}
mkdir -p "$cache"/{building,locks,logs}
cache=$(cd "$cache" && pwd -P)

# How many results of one name stay: the one in use and what other checkouts use.
readonly results_kept=4

say() { printf '%s\n' "$*" >&2; }

# give_up STATUS MESSAGE: the exit codes are those of the README.
give_up() {
    say "lockstorm: $2"
    exit "$1"
}

# hash_of FILE…: one short hash over the files; - is standard input.
hash_of() { cat -- "$@" | sha256sum | cut -c1-16; }

# The same over whole folders: paths and contents, not owners or times.
hash_of_folders() {
    find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum -- | hash_of -
}

seconds_since() { # START in microseconds, as $(microseconds) gave it
    local tenths=$((($(microseconds) - $1) / 100000))
    printf '%d.%d s' $((tenths / 10)) $((tenths % 10))
}

microseconds() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }

# with_progress TITLE LOG COMMAND…: runs the command with its output in LOG and says how long
# it takes. The line moves on a terminal; elsewhere there is a line every half minute.
with_progress() {
    local title=$1 log=$2 start ticker status=0
    shift 2
    start=$(microseconds)
    # Away from standard output: its last sleep would keep a command substitution waiting.
    show_progress "$title" "$log" "$start" >&2 &
    ticker=$!
    # The command runs in the foreground, so that Ctrl-C reaches it. `set -e` holds in it as
    # long as nobody calls this function in a condition.
    set +e
    (
        set -e
        "$@"
    ) >"$log" 2>&1 </dev/null
    status=$?
    set -e
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    [[ ! -t 2 ]] || printf '\r\e[K' >&2
    if ((status != 0)); then
        say "$title failed after $(seconds_since "$start"). The log ends:"
        tail -n 15 "$log" | sed 's/^/    /' >&2
        say "whole log: $log"
        return "$status"
    fi
    # What had nothing to do is not worth a line.
    (($(microseconds) - start < 1000000)) || say "$title … $(seconds_since "$start")"
}

show_progress() {
    local title=$1 log=$2 start=$3 owner=$$ last line tick=0
    trap - EXIT
    while sleep 0.5 && kill -0 "$owner" 2>/dev/null; do
        tick=$((tick + 1))
        if [[ -t 2 ]]; then
            last=$(tail -c 400 "$log" 2>/dev/null | tr '\r\t' '\n ' | tail -n 1 || true)
            line="$title … $(seconds_since "$start")  $last"
            printf '\r\e[K%s' "${line:0:$((${COLUMNS:-$(tput cols 2>/dev/null || echo 80)} - 1))}" >&2
        elif ((tick == 4 || tick % 60 == 0)); then
            say "$title … $(seconds_since "$start") (log: $log)"
        fi
    done
}

# cached NAME KEY FUNCTION: prints the folder of the result, after `FUNCTION FOLDER` if it is not there.
cached() {
    local name=$1 key=$2 build=$3
    local result=$cache/$name-$key partial=$cache/building/$name-$key lock
    if [[ ! -d $result ]]; then
        exec {lock}>"$cache/locks/$name-$key"
        if ! flock -w 1 "$lock"; then
            say "$name: waiting for another build of the same"
            flock "$lock"
        fi
        if [[ ! -d $result ]]; then
            remove_dead_builds
            remove_tree "$partial"
            mkdir "$partial"
            with_progress "$name" "$cache/logs/$name-$key.log" "$build" "$partial"
            mv -T "$partial" "$result"
            keep_newest "$name"
        fi
        exec {lock}>&-
    fi
    touch -c "$result"
    printf '%s\n' "$result"
}

# A build folder whose lock nobody holds belongs to a build that died.
remove_dead_builds() {
    local folder lock
    for folder in "$cache"/building/*; do
        [[ -d $folder ]] || continue
        exec {lock}>"$cache/locks/${folder##*/}"
        if flock -n "$lock"; then remove_tree "$folder"; fi
        exec {lock}>&-
    done
}

keep_newest() {
    local result
    find "$cache" -maxdepth 1 -type d -regextype posix-extended \
        -regex ".*/$1-[0-9a-f]{16}" -printf '%T@ %p\n' |
        sort -rn | tail -n "+$((results_kept + 1))" | cut -d' ' -f2- |
        while IFS= read -r result; do remove_tree "$result"; done
}

# Read-only folders, as packages have them, do not let an ordinary user remove their entries.
remove_tree() {
    [[ -e $1 ]] || return 0
    rm -rf -- "$1" 2>/dev/null || { chmod -R u+rwX -- "$1" && rm -rf -- "$1"; }
}
