#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Prints the folder of the outer machine's initramfs. boot.sh appends what belongs to one run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"

build() {
    local result=$1
    mkdir -p "$result"/tree/{bin,dev,proc,sys,run}
    cp "$root/bin/busybox" "$result/tree/bin/"
    cp "$here/host-init" "$result/tree/init"
    cp -r "$kernel/kvm" "$result/tree/"
    cp "$module/leave_after_injection.ko" "$result/tree/kvm/"
    echo leave_after_injection.ko >>"$result/tree/kvm/order"
    "$here/archive.sh" "$kernel" "$result/tree" >"$result/initramfs.cpio"
    rm -r "$result/tree"
}

root=$("$here/toolchain-root.sh")
kernel=$("$here/kernel.sh" stock)
module=$("$here/host-module.sh")
cached host-initramfs "$(hash_of "${BASH_SOURCE[0]}" "$here"/{host-init,archive.sh} - <<<"${kernel##*/} ${module##*/}")" build
