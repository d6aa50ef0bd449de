#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# guest-initramfs.sh [stock|rt|lockdep|kasan]
#
# Prints the folder of the guest's initramfs for that kernel (stock): busybox, init, the modules, the
# test programs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"

readonly tests=(evgen-cat fuzz-ioctl stress test-driver test-file test-inject-deferred-event test-inject-event test-msix test-poll test-read-events test-removal torture)

build() {
    local tree=$1/tree applet
    mkdir -p "$tree"/{bin,dev,etc,lib/modules,proc,root,run,sys,tmp}
    ln -s bin "$tree/sbin"
    cp "$modules"/*.ko "$tree/lib/modules/"
    cp "$root/bin/busybox" "${tests[@]/#/$programs/}" "$tree/bin/"
    cp "$programs/init" "$tree/init"
    for applet in $("$root/bin/busybox" --list); do
        [[ -e $tree/bin/$applet ]] || ln -s busybox "$tree/bin/$applet"
    done
    "$here/archive.sh" "$kernel" "$tree" >"$1/initramfs.cpio"
    rm -r "$tree"
}

kernel_name=${1:-stock}
root=$("$here/toolchain-root.sh")
kernel=$("$here/kernel.sh" stock)
modules=$("$here/guest-module.sh" "$kernel_name")
programs=$("$here/programs.sh")
key=$(hash_of "${BASH_SOURCE[0]}" "$here/archive.sh" "$programs/init" "${tests[@]/#/$programs/}" \
    - <<<"${root##*/} ${modules##*/}")
cached "$kernel_name-guest-initramfs" "$key" build
