#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Prints the folder of a toolchain root with clang beside the rest. The files that it shares with
# toolchain-root.sh's are the same on disk, and only who builds with clang waits for it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"

# Of the LLVM that rustc has.
readonly packages=(clang-19 lld-19 llvm-19)

build() {
    local root=$1
    cp -al "$toolchain/." "$root"
    # Unpacked over it, which replaces files and writes into none.
    # shellcheck disable=SC2016  # variables of the shell inside
    "$here/enter-root.sh" "$toolchain" --bind "$root" root -- bash -euxc '
        work=/mnt/root/work
        mkdir -p $work/{lists,archives}/partial
        apt=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o APT::Sandbox::User=root)
        apt-get "${apt[@]}" update
        apt-get "${apt[@]}" install --download-only --no-install-recommends -y "$@"
        for package in $work/archives/*.deb; do dpkg-deb -x "$package" /mnt/root; done
        rm -rf $work /mnt/root/usr/share/{doc,man}' bash "${packages[@]}"
    "$here/enter-root.sh" "$root" -- clang-19 --version
}

toolchain=$("$here/toolchain-root.sh")
cached clang-root "$(hash_of "${BASH_SOURCE[0]}" - <<<"${toolchain##*/}")" build
