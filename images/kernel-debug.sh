# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Runs inside the toolchain root, after kernel-archive.sh: the source of Debian's kernel with the options
# of kernel-configs/guest.config and kernel-configs/$kernel_name.config, and no others, and with one line more.
# $compiler is an argument of make, or empty.

read -r release version < <(in_archive cloud | kernel_preference "$(</mnt/images/kernel.version)")
unpack_source "$(series_of "$release")" "$version"
cd /mnt/kernel
# While a device is put into a slot or taken out, Linux takes reset_lock both before pci_rescan_remove_lock
# and inside it (pciehp_pci.c). Lockdep would report that, and check nothing any more.
sed -i '/init_rwsem(&ctrl->reset_lock);/a lockdep_set_novalidate_class(\&ctrl->reset_lock);' \
    drivers/pci/hotplug/pciehp_hpc.c
grep -q lockdep_set_novalidate_class drivers/pci/hotplug/pciehp_hpc.c
kernel_make() { make -j"$(nproc)" ${compiler:+"$compiler"} "$@"; }

grep -h '^CONFIG_' /mnt/images/kernel-configs/{guest,"$kernel_name"}.config >wanted
kernel_make KCONFIG_ALLCONFIG=wanted allnoconfig
# Kconfig silently drops what depends on an option that is off. It writes no line for one that is off.
if grep -v '=n$' wanted | grep -vxFf .config; then
    echo 'kernel-configs/: these options do not come out so' >&2
    exit 1
fi

kernel_make vmlinux modules
strip --strip-debug -o /mnt/result/vmlinux vmlinux
boots_by_pvh /mnt/result/vmlinux
kernel_make -s kernelrelease >/mnt/result/release
keep_for_modules
rm -rf $work
