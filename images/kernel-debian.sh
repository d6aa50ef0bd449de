# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Runs inside the toolchain root, with the empty folders /mnt/result and /mnt/kernel, which is
# the result's source/: the prepared tree remembers its own path.

# The root is read-only: package lists and downloads live in the build folder.
work=/mnt/result/work
mkdir -p $work/{lists,packages}/partial $work/unpacked
cd $work/packages
apt=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update

fetch() { # PACKAGE… as NAME=VERSION
    apt-get "${apt[@]}" download "$@"
    local package
    for package in "$@"; do
        dpkg-deb -x "${package%%=*}"_*.deb $work/unpacked
    done
}

# Kernels whose source package is still there in the very same version.
in_archive() {
    local package release version
    apt-cache "${apt[@]}" pkgnames linux-binary- | grep -x 'linux-binary-[0-9].*-cloud-amd64' |
        while read -r package; do
            release=${package#linux-binary-}
            apt-cache "${apt[@]}" madison "$package" "linux-source-$(series_of "$release")" |
                tr -d ' ' | cut -d'|' -f1,2 | sort -u | cut -d'|' -f2 | sort | uniq -d |
                while read -r version; do printf '%s %s\n' "$release" "$version"; done
        done
}

release=
while read -r candidate version; do
    fetch "linux-headers-$candidate=$version"
    headers=$work/unpacked/usr/src/linux-headers-$candidate
    if grep -qx CONFIG_RUST=y "$headers/.config"; then
        release=$candidate
        break
    fi
done < <(in_archive | kernel_preference "$(</mnt/images/stock-kernel.version)")
if [[ -z $release ]]; then
    echo "no cloud-amd64 kernel 7.3 or newer with CONFIG_RUST=y in trixie-backports" >&2
    exit 69
fi
series=$(series_of "$release")
fetch "linux-binary-$release=$version" "linux-modules-$release=$version" "linux-source-$series=$version"
installed=$work/unpacked/usr/lib/modules/$release

# The prepared source. Drivers and documentation are two thirds of the tree, and a module
# build reads nothing of them but Kconfig.
source=/mnt/kernel
tree=linux-source-$series
tar -C $source --strip-components=1 -xf "$work/unpacked/usr/src/$tree.tar.xz" \
    --exclude="$tree/Documentation/*/*" --exclude="$tree/tools/testing" \
    --exclude="$tree/"{drivers,sound,fs,net}'/*.[cS]' --exclude="$tree/drivers/gpu/drm/amd/include"
cp "$headers/.config" "$headers/Module.symvers" $source/
cd $source
make olddefconfig
grep -qx CONFIG_RUST=y .config
make -j"$(nproc)" KERNELRELEASE="$release" prepare modules_prepare
gcc -O2 -static -o /mnt/result/gen_init_cpio usr/gen_init_cpio.c

cp "$installed/vmlinuz" /mnt/result/vmlinuz
bash scripts/extract-vmlinux "$installed/vmlinuz" >/mnt/result/vmlinux
# Note type 18 of owner Xen holds the 32-bit entry point of a PVH boot.
readelf -n /mnt/result/vmlinux | grep -q '^  *Xen .*(0x0*12)'

ln -s usr/lib $work/unpacked/lib
depmod -b $work/unpacked "$release"
mkdir /mnt/result/kvm
modprobe -d $work/unpacked -S "$release" --show-depends kvm-amd | while read -r _ module; do
    name=${module##*/}
    name=${name%%.*}.ko
    case $module in
    *.xz) xz -dc "$module" ;;
    *.zst) zstd -dc "$module" ;;
    *) cat "$module" ;;
    esac >"/mnt/result/kvm/$name"
    echo "$name" >>/mnt/result/kvm/order
done
grep -qx kvm-amd.ko /mnt/result/kvm/order

rm -rf $work
echo "$release" >/mnt/result/release
