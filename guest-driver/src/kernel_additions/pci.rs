// SPDX-License-Identifier: GPL-2.0

//! [`pci::Device`]: what keeps a device that does not answer from writing memory.

use kernel::{bindings, device::Bound, pci};

/// Whether the device is cut off for good: whatever answers at its address later was reset before.
/// Hot-plug knows that of a device that left its slot, and says so before its driver is unbound.
///
/// Any context.
pub(crate) fn is_disconnected(pdev: &pci::Device<Bound>) -> bool {
    // SAFETY: Valid as long as `pdev` is. It can change at any time, so it is read once.
    let state = unsafe { (&raw const (*as_raw(pdev)).error_state).read_volatile() };
    state == bindings::pci_channel_io_perm_failure
}

/// Whether an IOMMU translates what the device writes to, so that memory is out of its reach once it
/// is freed. Such memory must be freed before the device is removed, because its translation goes
/// then.
///
/// Any context.
pub(crate) fn is_translated(pdev: &pci::Device<Bound>) -> bool {
    // SAFETY: Valid as long as `pdev` is. Other bits can change at any time, so it is read once.
    let flags = unsafe { (&raw const (*as_raw(pdev)).dev.flags[0]).read_volatile() };
    flags & 1 << bindings::struct_device_flags_DEV_FLAG_DMA_IOMMU != 0
}

/// `pci::Device` is a transparent `struct pci_dev`.
fn as_raw(pdev: &pci::Device<Bound>) -> *const bindings::pci_dev {
    core::ptr::from_ref(pdev).cast()
}
