#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Prints the folder of the stock kernel, unmodified from Debian's backports:
#
#     release       the kernel's release name
#     vmlinuz       as packaged; vmlinux: the same, unpacked once for all boots
#     kvm/          the modules that kvm-amd needs, decompressed; kvm/order lists them
#     source/       the tree prepared for out-of-tree Rust modules; only valid as /mnt/kernel
#     gen_init_cpio the kernel's own archive writer
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"
# shellcheck source=images/stock-kernel-choice.sh
. "$here/stock-kernel-choice.sh"

build() {
    local result=$1
    mkdir "$result/source"
    "$here/enter-root.sh" "$root" --bind "$result" result --bind "$result/source" kernel \
        --see "$here" images -- \
        bash -euxc '. images/stock-kernel-choice.sh; . images/stock-kernel-build.sh'
}

root=$("$here/toolchain-root.sh")
inputs=("$here"/stock-kernel{.sh,.version,-choice.sh,-build.sh})
key=$(hash_of "${inputs[@]}" - <<<"${root##*/}")
cached stock-kernel "$key" build
release=$(<"$cache/stock-kernel-$key/release")
recorded=$(<"$here/stock-kernel.version")
[[ $recorded == "$release "* ]] ||
    say "stock kernel: $recorded is not in the archive any more, this is $release"
