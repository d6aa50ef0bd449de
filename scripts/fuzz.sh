#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Looks for input that breaks lockstorm. `fuzz.sh --help` tells more.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cd "$here/.."

usage() {
    cat <<'TEXT'
fuzz.sh: tries what a hostile guest, VMM, storm file, kernel file or control client could, at random.

  scripts/fuzz.sh                        every target, ten minutes each
  scripts/fuzz.sh --seconds 60 msix      one target, one minute
  scripts/fuzz.sh --list                 the targets
  scripts/fuzz.sh --again FILE msix      what became of one input, with where it panicked

A target is a function in vmm/fuzz/src that carries out what some bytes say and panics when a
rule is broken that must hold whatever the bytes. As many run at a time as there are CPUs. What
makes new code run is kept in the cache, so the next run goes on from there.

One line per target: inputs tried, edges of the program reached, and what was found. To fix a
finding, run it again with --again, and put its file into vmm/fuzz/corpus/TARGET, where cargo test
replays it. Needs a C++ compiler; installs cargo-fuzz into the cache.

Exit status: 0 nothing found, 42 a finding, 2 wrong arguments, 69 it cannot be run here.
TEXT
}

readonly cargo_fuzz_version=0.13.2
# The longest input, in bytes; and what one may take: seconds, and MiB.
readonly length=4096 patience=20 memory=2048

# shellcheck source=images/cache.sh
. images/cache.sh
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
mapfile -t all < <(cd vmm/fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')

seconds=600 again='' targets=()
while (($# > 0)); do
    case $1 in
    --help | -h) usage && exit ;;
    --list) printf '%s\n' "${all[@]}" && exit ;;
    --seconds)
        [[ ${2-} =~ ^[1-9][0-9]{0,5}$ ]] || give_up 2 "--seconds needs a number from 1 to 999999"
        seconds=$2
        shift
        ;;
    --again)
        [[ -f ${2-} ]] || give_up 2 "--again needs a file"
        again=$(realpath -- "$2")
        shift
        ;;
    *)
        [[ " ${all[*]} " == *" $1 "* ]] || give_up 2 "there is no target '$1'; there are: ${all[*]}"
        targets+=("$1")
        ;;
    esac
    shift
done
[[ -z $again ]] || ((${#targets[@]} == 1)) || give_up 2 "--again needs the target to try the file on"
((${#targets[@]} > 0)) || targets=("${all[@]}")

"$here/host-needs.sh" c++:g++
folder=$cache/fuzz
mkdir -p "$folder"/{corpus,findings,logs}
host=$(rustc -vV | sed -n 's/^host: //p')
programs=${CARGO_TARGET_DIR:-$PWD/target}/fuzz

install_cargo_fuzz() {
    cargo install cargo-fuzz --version "$cargo_fuzz_version" --locked --root "$1" \
        --target-dir "$programs/cargo-fuzz"
}

# The flags that instrument a program are not for a stable compiler to take, unless it is told so.
build() { # SANITIZER
    local target wanted=("${targets[@]}")
    # All of them at once.
    ((${#wanted[@]} < ${#all[@]})) || wanted=('')
    for target in "${wanted[@]}"; do
        (
            cd vmm
            RUSTC_BOOTSTRAP=1 cargo fuzz build --features libfuzzer --sanitizer "$1" \
                --target-dir "$programs" ${target:+"$target"}
        ) || return
    done
}

key=$(hash_of - <<<"$cargo_fuzz_version $(rustc --version)")
PATH=$(cached cargo-fuzz "$key" install_cargo_fuzz)/bin:$PATH
sanitizer=none
compgen -G "$(rustc --print target-libdir)/librustc*_rt.asan.a" >/dev/null && sanitizer=address
with_progress "build ${#targets[@]} fuzz targets, sanitizer: $sanitizer" "$folder/logs/build.log" build "$sanitizer" ||
    give_up 69 "the fuzz targets do not build; see $folder/logs/build.log"
programs=$programs/$host/release
export ASAN_OPTIONS=detect_odr_violation=0

[[ -z $again ]] || exec "$programs/${targets[0]}" "-timeout=$patience" "-rss_limit_mb=$memory" "$again"

# fuzz TARGET: its exit status is libFuzzer's, which is 0 only if nothing was found.
fuzz() {
    mkdir -p "$folder/corpus/$1" "$folder/findings/$1"
    # New inputs go into the first folder; those of the second are only read.
    exec "$programs/$1" "$folder/corpus/$1" "vmm/fuzz/corpus/$1" \
        "-max_total_time=$seconds" "-max_len=$length" -len_control=10 -print_final_stats=1 \
        "-timeout=$patience" "-rss_limit_mb=$memory" "-artifact_prefix=$folder/findings/$1/" \
        >"$folder/logs/$1.log" 2>&1 </dev/null
}

# report TARGET STATUS
report() {
    local log=$folder/logs/$1.log inputs edges finding reason
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    # A finding among the first inputs comes before libFuzzer says how far it got.
    edges=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
    printf '%-18s %10s inputs  %6s edges  ' "$1" "${inputs:-?}" "${edges:-?}"
    if (($2 == 0)); then
        echo "nothing found"
        return
    fi
    failed=1
    finding=$(sed -n 's/.*Test unit written to //p' "$log")
    # What it panicked with, or what libFuzzer itself says.
    reason=$(sed -n '/panicked at/{n;p;q}' "$log")
    echo "FOUND ${reason:-$(sed -n 's/^.*ERROR: //p' "$log" | head -n 1)}"
    echo "    ${finding:+scripts/fuzz.sh --again $finding $1    }log: $log"
}

declare -A running=()
# shellcheck disable=SC2317  # called by the trap
stop() { ((${#running[@]} == 0)) || kill "${!running[@]}" 2>/dev/null || true; }
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

jobs=$(nproc)
failed=0
say "${#targets[@]} targets, $seconds s each, $jobs at a time"
finish_one() {
    local pid status=0
    wait -n -p pid || status=$?
    report "${running[$pid]}" "$status"
    unset "running[$pid]"
}
for target in "${targets[@]}"; do
    ((${#running[@]} < jobs)) || finish_one
    fuzz "$target" &
    running[$!]=$target
done
while ((${#running[@]} > 0)); do finish_one; done
((failed == 0)) || exit 42
