# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Sourced inside the toolchain root by kernel-debian.sh and kernel-debug.sh: kernel packages out of the
# archive, the source, and what of a tree stays in the cache. The empty folders /mnt/result and
# /mnt/kernel are there, of which the latter is the result's source/: a tree remembers its own path.

# The root is read-only: package lists and downloads live in the build folder.
readonly work=/mnt/result/work unpacked=/mnt/result/work/unpacked
mkdir -p $work/{lists,packages}/partial $unpacked
apt=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update

fetch() { # PACKAGE… as NAME=VERSION
    (cd $work/packages && apt-get "${apt[@]}" download "$@")
    local package
    for package in "$@"; do
        dpkg-deb -x $work/packages/"${package%%=*}"_*.deb $unpacked
    done
}

# in_archive FLAVOUR: "RELEASE VERSION" of the kernels whose source package is still there in the very
# same version. RELEASE is without the flavour: 7.3.4+deb13.
in_archive() {
    local package release version
    apt-cache "${apt[@]}" pkgnames linux-binary- | grep -x "linux-binary-[0-9].*-$1-amd64" |
        while read -r package; do
            release=${package#linux-binary-}
            apt-cache "${apt[@]}" madison "$package" "linux-source-$(series_of "$release")" |
                tr -d ' ' | cut -d'|' -f1,2 | sort -u | cut -d'|' -f2 | sort | uniq -d |
                while read -r version; do printf '%s %s\n' "${release%"-$1-amd64"}" "$version"; done
        done
}

# unpack_source SERIES VERSION PATTERN…: into /mnt/kernel, without the files of PATTERN. Documentation
# is wanted for its Kconfig only.
unpack_source() {
    local tree=linux-source-$1
    fetch "$tree=$2"
    shift 2
    tar -C /mnt/kernel --strip-components=1 -xf "$unpacked/usr/src/$tree.tar.xz" \
        --exclude="$tree/Documentation/*/*" --exclude="$tree/tools/testing" "${@/#/--exclude=$tree/}"
}

# What `make M=` reads of a prepared tree, and rust/, which is the documentation of the kernel's Rust.
readonly for_modules=(
    .config Kbuild Makefile Module.symvers arch/x86/{Makefile,include} include rust scripts
    tools/objtool/objtool
)

# The rest is nine tenths of a tree.
keep_for_modules() {
    local path
    cd /mnt/kernel
    mkdir kept
    for path in "${for_modules[@]}"; do
        mkdir -p "kept/$(dirname "$path")"
        mv "$path" "kept/$path"
    done
    find . -mindepth 1 -maxdepth 1 ! -name kept -exec rm -rf {} +
    find kept -name '*.o' -delete
    find kept -mindepth 1 -maxdepth 1 -exec mv -t . {} +
    rmdir kept
}

# Note type 18 of owner Xen holds the 32-bit entry point of a PVH boot.
boots_by_pvh() { readelf -n "$1" | grep -q '^  *Xen .*(0x0*12)'; }
