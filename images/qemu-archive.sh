#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Prints the folder of qemu.cpio: QEMU of the toolchain root with its libraries and the firmware
# that q35 and microvm need, to be appended to an initramfs. bench.sh measures it in the outer machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"

readonly program=usr/bin/qemu-system-x86_64
readonly firmware=(
    usr/share/qemu/{kvmvapic,linuxboot_dma,pvh}.bin
    usr/share/seabios/bios{-256k,-microvm}.bin
)

build() {
    local tree=$1/tree file libraries
    mkdir -p "$tree"/usr/{lib,lib64}
    ln -s usr/lib "$tree/lib"
    ln -s usr/lib64 "$tree/lib64"
    # Where the program looks for them, each under the name it is looked for.
    libraries=$("$here/enter-root.sh" "$root" -- ldd "/$program" | grep -o '/[^ ]*')
    for file in "$program" "${firmware[@]}" $libraries; do
        file=${file#/}
        [[ $file == usr/* ]] || file=usr/$file
        mkdir -p "$tree/${file%/*}"
        cp -L "$root/$file" "$tree/$file"
    done
    "$here/archive.sh" "$kernel" "$tree" >"$1/qemu.cpio"
    rm -r "$tree"
}

root=$("$here/toolchain-root.sh")
kernel=$("$here/kernel.sh" stock)
cached qemu-archive "$(hash_of "${BASH_SOURCE[0]}" "$here/archive.sh" - <<<"${root##*/}")" build
