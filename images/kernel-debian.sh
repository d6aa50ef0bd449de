# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Runs inside the toolchain root, after kernel-archive.sh: the kernel $kernel_name, as Debian has it, and
# the tree prepared for its modules.

case $kernel_name in
stock) flavour=cloud ;;
rt) flavour=rt ;;
esac

release=
while read -r candidate version; do
    fetch "linux-headers-$candidate-$flavour-amd64=$version"
    headers=$unpacked/usr/src/linux-headers-$candidate-$flavour-amd64
    if grep -qx CONFIG_RUST=y "$headers/.config"; then
        release=$candidate-$flavour-amd64
        break
    fi
done < <(in_archive "$flavour" | kernel_preference "$(</mnt/images/kernel.version)")
if [[ -z $release ]]; then
    echo "no $flavour-amd64 kernel 7.3 or newer with CONFIG_RUST=y in trixie-backports" >&2
    exit 69
fi
fetch "linux-binary-$release=$version" "linux-modules-$release=$version"
installed=$unpacked/usr/lib/modules/$release

# Drivers are half of the tree, and preparing it reads nothing of them but Kconfig.
unpack_source "$(series_of "$release")" "$version" {drivers,sound,fs,net}'/*.[cS]' drivers/gpu/drm/amd/include
cp "$headers/.config" "$headers/Module.symvers" /mnt/kernel/
cd /mnt/kernel
make olddefconfig
grep -qx CONFIG_RUST=y .config
make -j"$(nproc)" KERNELRELEASE="$release" prepare modules_prepare
gcc -O2 -static -o /mnt/result/gen_init_cpio usr/gen_init_cpio.c

cp "$installed/vmlinuz" /mnt/result/vmlinuz
bash scripts/extract-vmlinux "$installed/vmlinuz" >/mnt/result/vmlinux
boots_by_pvh /mnt/result/vmlinux
keep_for_modules

ln -s usr/lib $unpacked/lib
depmod -b $unpacked "$release"
mkdir /mnt/result/kvm
modprobe -d $unpacked -S "$release" --show-depends kvm-amd | while read -r _ module; do
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
