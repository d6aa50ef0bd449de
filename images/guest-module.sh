#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# guest-module.sh stock|rt|lockdep|kasan
#
# Prints the folder of the guest's modules: guest-driver/, built for that kernel. evgen-busted.ko is the
# driver with one lock taken away by guest-driver/lab/busted.patch, to show that tests notice.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"
# shellcheck source=images/kernel-names.sh
. "$here/kernel-names.sh"

# What the module's sources reach by path.
readonly sources=(guest-driver/Kbuild guest-driver/{src,lab,uapi/src} device-model/abi/src)
readonly busted=guest-driver/lab/busted.patch

# Built in a copy, so that the checkout stays clean.
build() {
    local result=$1
    mkdir "$result/build"
    (cd "$here/.." && cp -a --parents "${sources[@]}" "$result/build")
    make_modules "$result/build"
    find "$result/build" -name '*.ko' -exec mv -t "$result" {} +
    if [[ -e $result/build/$busted ]]; then
        # In the same place, so that only what the patch changes is built again.
        in_root "$result/build" patch -d build -p1 --batch --forward -i "/mnt/build/$busted" || {
            echo "$busted does not apply to the driver"
            return 1
        }
        # What make wrote down here names a file of the kernel's, which it would make once more.
        rm "$result/build/guest-driver/src/.evgen.o.cmd"
        make_modules "$result/build"
        mv "$result/build/guest-driver/evgen.ko" "$result/evgen-busted.ko"
    fi
    # Debug information is nine tenths of a Rust module.
    strip --strip-debug "$result"/*.ko
    rm -r "$result/build"
}

make_modules() {
    in_root "$1" make -C /mnt/kernel M=/mnt/build/guest-driver KERNELRELEASE="$(<"$kernel/release")" \
        ${compiler:+"$compiler"} -j"$(nproc)" modules
}

in_root() { # BUILD_FOLDER COMMAND…
    "$here/enter-root.sh" "$root" --bind "$1" build --see "$kernel/source" kernel -- "${@:2}"
}

give_up_unless_kernel "${1-}"
toolchain_of "$1"
kernel=$("$here/kernel.sh" "$1")
key=$(cd "$here/.." && hash_of_folders "${sources[@]}" images/guest-module.sh)
cached "$1-guest-module" "$(hash_of - <<<"$key ${kernel##*/}")" build
