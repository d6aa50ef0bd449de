#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Prints the folder of the guest's modules: guest-driver/, built for the stock kernel.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"

# What the module's sources reach by path.
readonly sources=(guest-driver/Kbuild guest-driver/{src,lab,uapi/src} device-model/abi/src)

# Built in a copy, so that the checkout stays clean.
build() {
    local result=$1
    mkdir "$result/build"
    (cd "$here/.." && cp -a --parents "${sources[@]}" "$result/build")
    "$here/enter-root.sh" "$root" --bind "$result/build" build --see "$kernel/source" kernel -- \
        make -C /mnt/kernel M=/mnt/build/guest-driver KERNELRELEASE="$(<"$kernel/release")" \
        -j"$(nproc)" modules
    find "$result/build" -name '*.ko' -exec mv -t "$result" {} +
    # Debug information is nine tenths of a Rust module.
    strip --strip-debug "$result"/*.ko
    rm -r "$result/build"
}

root=$("$here/toolchain-root.sh")
kernel=$("$here/stock-kernel.sh")
key=$(cd "$here/.." && hash_of_folders "${sources[@]}" images/guest-module.sh)
cached guest-module "$(hash_of - <<<"$key ${kernel##*/}")" build
