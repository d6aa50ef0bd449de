#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Prints the folder of the toolchain root: Debian trixie with the compilers that the
# stock kernel was built with, and QEMU. Works as root and as an ordinary user.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=images/cache.sh
. "$here/cache.sh"

readonly packages=(
    gcc make patch bc bison flex libc6-dev libelf-dev libssl-dev xz-utils zstd cpio kmod dwarves
    python3-minimal rustc rust-src bindgen libclang-dev busybox-static ca-certificates
    # Each by name: apt would otherwise take the dependencies from trixie itself.
    {qemu-system-x86,qemu-system-common,qemu-system-data,seabios}/trixie-backports
)

# The main archive this machine itself installs from; nothing where that is not Debian's.
machine_mirror() {
    # shellcheck disable=SC2016  # apt's own variables
    apt-get indextargets --format '$(REPO_URI) $(LABEL) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
        sed -n 's/ Debian main$//p' | sort -u | grep -m1 '^https\?:' || true
}

build() {
    local root=$1 mirror mode=root options=() proxy
    mirror=$(machine_mirror)
    ((EUID == 0)) || mode=unshare
    proxy=$(apt-config shell proxy Acquire::http::Proxy) && eval "$proxy"
    [[ -z $proxy ]] || options+=(--aptopt="Acquire::http::Proxy \"$proxy\"")
    # Written as an archive and unpacked here, every file belongs to whoever builds, so that
    # the result can be used and removed without a user namespace. Device nodes stay out:
    # whoever enters the root brings a /dev along.
    # shellcheck disable=SC2016  # the hook's own $1
    mmdebstrap --mode="$mode" --variant=apt --format=tar \
        --dpkgopt="path-exclude=/usr/share/{doc,man,locale}/*" "${options[@]}" \
        --include="$(IFS=, && echo "${packages[*]}")" \
        --setup-hook='sed -n "s/^deb \(.*\) trixie main.*/deb \1 trixie-backports main/p" \
            "$1/etc/apt/sources.list" >"$1/etc/apt/sources.list.d/backports.list"' \
        trixie - ${mirror:+"$mirror"} |
        tar -x -C "$root" --no-same-owner --exclude='./dev/*'
    chmod u+rwx "$root"
    "$here/enter-root.sh" "$root" -- qemu-system-x86_64 --version
    "$here/enter-root.sh" "$root" -- rustc --version
}

if ((EUID != 0)) && ! unshare --user --map-root-user true 2>/dev/null; then
    give_up 69 "this machine lets no ordinary user make user namespaces; allow them (sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0) or run as root"
fi
cached toolchain-root "$(hash_of "${BASH_SOURCE[0]}")" build
