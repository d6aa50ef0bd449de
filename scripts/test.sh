#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# All tests: what needs no guest first, then guests. A line per result with the time it took, at the end
# what failed once more, and one line with the sum. Exit status 0 if nothing failed.
#
#     scripts/test.sh          everything
#     scripts/test.sh host     only what needs no guest
#     scripts/test.sh guest    only guests
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cd "$here/.."

usage() { sed -n '4,10s/^# \{0,1\}//p' "$here/test.sh"; }
parts=${1-host guest}
case $parts in
--help | -h) usage && exit ;;
host | guest | 'host guest') ;;
*) echo "test.sh: takes host, guest or nothing, not '$parts'" >&2 && exit 2 ;;
esac

"$here/host-needs.sh" shellcheck
# shellcheck source=images/cache.sh
. images/cache.sh
# shellcheck source=scripts/run-folder.sh
. "$here/run-folder.sh"
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
work=$(mktemp -d)
set -m # each test is a process group, which can be interrupted as from a terminal
trap 'end_tests' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# shellcheck source=scripts/guest-tests.sh
. "$here/guest-tests.sh"
# shellcheck source=scripts/kernel-tests.sh
. "$here/kernel-tests.sh"
# shellcheck source=scripts/qemu-tests.sh
. "$here/qemu-tests.sh"

passed=0 failed=0 failed_last=0 failures=() skipped=0 current='' other_kernels=() kernels=''

# shellcheck disable=SC2317  # called by the trap
end_tests() {
    end_current
    [[ -z $kernels ]] || { kill "$kernels" 2>/dev/null && wait "$kernels"; } || true
    rm -rf "$work"
}

end_current() { [[ -z $current ]] || { kill -- "-$current" 2>/dev/null && wait "$current"; } || true; }

# check NAME COMMAND…: runs the command, with its output in $output.
check() {
    local name=$1 start status=0
    shift
    output=$work/output
    start=$(microseconds)
    [[ ! -t 1 ]] || printf '        %s …\r' "$name"
    (set -e; "$@") >"$output" 2>&1 </dev/null &
    current=$!
    wait "$current" || status=$?
    current=
    if ((status == 0)); then
        passed=$((passed + 1)) failed_last=0
        echo "ok      $name … $(seconds_since "$start")"
    else
        failed=$((failed + 1)) failed_last=1
        failures+=("$name: $(tail -n 1 "$output")")
        grep -aE '^(not ok|Bail out!|# too much)' "$output" | head -n 5 | sed 's/^/        /' || true
        echo "FAILED  $name … $(seconds_since "$start")"
        tail -n 40 "$output" | sed 's/^/        /'
    fi
}

skip() {
    skipped=$((skipped + 1))
    echo "skipped $1: $2"
}

host_tests() {
    check 'cargo fmt' cargo fmt --check
    check 'cargo clippy' cargo clippy --locked --workspace --all-targets -- -D warnings
    check 'cargo test' cargo test --locked --no-fail-fast --workspace
    # Its own tests count one by one, and not as one more.
    local sums
    read -r -a sums < <(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$output" |
        awk '{ p += $1; f += $2; i += $3 } END { print p + 0, f + 0, i + 0 }')
    if ((sums[0] > 0)); then
        ((sums[1] > 0)) && failed=$((failed - 1)) || passed=$((passed - 1))
    fi
    passed=$((passed + sums[0])) failed=$((failed + sums[1])) skipped=$((skipped + sums[2]))
    check 'shellcheck' lint_scripts
    check 'choice of a kernel in the archive' images/kernel-choice-test.sh
    check 'cache of build results' images/cache-test.sh
}

# With -a what they source is looked at too, where the variables are known.
lint_scripts() { find .ci images scripts -type f -executable -exec shellcheck -a {} +; }

[[ $parts != *host* ]] || host_tests
[[ $parts != *guest* ]] || guest_tests
((skipped == 0)) && sum='' || sum=", $skipped skipped"
((failed == 0)) || printf 'failed: %s\n' "${failures[@]}"
echo "$passed passed, $failed failed$sum"
((failed == 0))
