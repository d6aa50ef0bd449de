#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# programs.sh [PACKAGE…]
#
# Prints the folder of the static programs: lockstorm, which runs on the host, and init, stress,
# evgen-cat, fuzz-ioctl and test-*, which run in the guest; or those of each PACKAGE. Cargo itself
# knows what is out of date.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"

readonly target=x86_64-unknown-linux-gnu
# Either would win over the flags below, and without them no program starts in a guest.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static'
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/../target}

(($# > 0)) || set -- lockstorm evgen-stress

cd "$here/.."
with_progress programs "$cache/logs/programs-$$.log" \
    cargo build --locked --release --target "$target" "${@/#/--package=}" --bins
rm "$cache/logs/programs-$$.log"
cd "$CARGO_TARGET_DIR/$target/release" && pwd -P
