#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Prints the folder of leave_after_injection.ko, built for the stock kernel.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"

# Built in a copy, so that the checkout stays clean.
build() {
    local result=$1
    cp -r "$here/host-module" "$result/build"
    "$here/enter-root.sh" "$root" --bind "$result/build" build --see "$kernel/source" kernel -- \
        make -C /mnt/kernel M=/mnt/build KERNELRELEASE="$(<"$kernel/release")" modules
    mv "$result"/build/*.ko "$result"
    rm -r "$result/build"
}

root=$("$here/toolchain-root.sh")
kernel=$("$here/kernel.sh" stock)
key=$(cd "$here" && hash_of_folders host-module host-module.sh)
cached host-module "$(hash_of - <<<"$key ${kernel##*/}")" build
