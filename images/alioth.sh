#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Prints the folder of `alioth`, another virtual machine monitor in Rust, static and from cargo's
# registry: bench.sh compares with it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"

readonly version=0.12.0
readonly target=x86_64-unknown-linux-gnu

build() {
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static'
    # Not below a workspace, whose settings are not meant for it.
    (cd / && CARGO_TARGET_DIR=$1/target cargo install alioth-cli --version "=$version" --locked \
        --target "$target" --root "$1/root")
    mv "$1/root/bin/alioth" "$1/"
    rm -r "$1/root" "$1/target"
}

cached alioth "$(hash_of "${BASH_SOURCE[0]}")" build
