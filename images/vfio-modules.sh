#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Prints the folder of vfio.cpio: the stock kernel's modules for VFIO in /vfio, with their order in
# /vfio/order, to be appended to the outer machine's initramfs. Only guests with assigned devices need
# them, so they are not in kernel.sh's folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"

build() {
    local result=$1
    # shellcheck disable=SC2016  # the inner shell is to expand it
    "$here/enter-root.sh" "$root" --bind "$result" result --bind "$result" kernel --see "$here" images -- \
        env "release=$release" bash -euxc '. images/kernel-archive.sh; . images/vfio-modules-in-root.sh'
    "$here/archive.sh" "$kernel" "$result/tree" >"$result/vfio.cpio"
    rm -r "$result/tree"
}

root=$("$here/toolchain-root.sh")
kernel=$("$here/kernel.sh" stock)
release=$(<"$kernel/release")
inputs=("${BASH_SOURCE[0]}" "$here"/{vfio-modules-in-root,kernel-archive,archive}.sh)
cached vfio-modules "$(hash_of "${inputs[@]}" - <<<"${kernel##*/}")" build
