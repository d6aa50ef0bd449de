# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Runs inside the toolchain root, after kernel-archive.sh: the modules for VFIO of the kernel $release.

# shellcheck disable=SC2154  # vfio-modules.sh sets it
fetch "linux-modules-$release"
ln -s usr/lib "$unpacked/lib"
depmod -b "$unpacked" "$release"
mkdir -p /mnt/result/tree/vfio
# irqbypass is there already, for KVM.
for wanted in vfio-pci vfio_iommu_type1; do
    modprobe -d "$unpacked" -S "$release" --show-depends "$wanted"
done | while read -r _ module; do
    name=${module##*/}
    name=${name%%.*}.ko
    [[ $name != irqbypass.ko && ! -e /mnt/result/tree/vfio/$name ]] || continue
    case $module in
    *.xz) xz -dc "$module" ;;
    *.zst) zstd -dc "$module" ;;
    *) cat "$module" ;;
    esac >"/mnt/result/tree/vfio/$name"
    echo "$name" >>/mnt/result/tree/vfio/order
done
grep -qx vfio-pci.ko /mnt/result/tree/vfio/order
rm -rf "$work"
