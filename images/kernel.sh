#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# kernel.sh stock|rt|lockdep|kasan
#
# Prints the folder of a kernel. stock and rt are unmodified from Debian's backports; lockdep and kasan
# are built from the same source with the options in kernel-configs/.
#
#     release       the kernel's release name
#     vmlinux       bootable
#     source/       the tree prepared for out-of-tree Rust modules; only valid as /mnt/kernel
#
# Of stock and rt also:
#
#     vmlinuz       as packaged; vmlinux is the same, unpacked once for all boots
#     kvm/          the modules that kvm-amd needs, decompressed; kvm/order lists them
#     gen_init_cpio the kernel's own archive writer
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"
# shellcheck source=images/kernel-names.sh
. "$here/kernel-names.sh"

build() {
    local result=$1
    mkdir "$result/source"
    # shellcheck disable=SC2016  # the inner shell is to expand it
    "$here/enter-root.sh" "$root" --bind "$result" result --bind "$result/source" kernel \
        --see "$here" images -- env "kernel_name=$kernel_name" "compiler=$compiler" \
        bash -euxc '. images/kernel-choice.sh; . images/kernel-archive.sh; . "images/$0"' "$recipe"
}

kernel_name=${1-}
give_up_unless_kernel "$kernel_name"
toolchain_of "$kernel_name"
case $kernel_name in
stock | rt) recipe=kernel-debian.sh options=() ;;
*) recipe=kernel-debug.sh options=("$here/kernel-configs"/{guest,"$kernel_name"}.config) ;;
esac
inputs=("$here"/kernel{.sh,.version,-choice.sh,-archive.sh} "$here/$recipe" "${options[@]}")
key=$(hash_of "${inputs[@]}" - <<<"${root##*/}")
cached "$kernel_name-kernel" "$key" build
[[ $recipe == kernel-debian.sh ]] || exit 0
release=$(<"$cache/$kernel_name-kernel-$key/release")
recorded=$(<"$here/kernel.version")
[[ $release == "${recorded% *}"-* ]] ||
    say "$kernel_name kernel: $recorded is not in the archive any more, this is $release"
