// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How an evgen function shows itself on the PCI bus, and how its BARs are laid out.

/// PCI vendor ID. Not an assigned one: emulated devices have long shared it (QEMU's `edu`, Bochs VGA).
pub const VENDOR_ID: u16 = 0x1234;
/// PCI device ID: "EV".
pub const DEVICE_ID: u16 = 0x4556;
/// PCI revision ID: the version of this interface.
pub const REVISION_ID: u8 = 2;
/// PCI class code 08_80_00: other system peripheral.
pub const CLASS_CODE: u32 = 0x08_80_00;

/// BAR index of the registers: 32-bit memory, not prefetchable.
pub const REGISTER_BAR: u8 = 0;
/// Size of the register BAR in bytes.
pub const REGISTER_BAR_SIZE: usize = 0x2000;
/// BAR index of the MSI-X table and pending bit array: 64-bit memory, so it takes BAR 2 and 3.
pub const MSIX_BAR: u8 = 2;

/// Rings that a device may have at most. A device has at least one.
pub const MAX_RINGS: usize = 8;
/// Largest ring, in descriptors. Sizes are powers of two from 2 to this.
pub const MAX_RING_SIZE: u16 = 1024;

/// MSI-X vectors that a device may have at most (PCI Local Bus 3.0, §6.8.2.3).
pub const MAX_VECTORS: usize = 2048;

/// The MSI-X vector of ring `ring` after reset.
pub const fn ring_vector(ring: usize) -> usize {
    ring
}

/// The MSI-X vector for device status after reset, on a device with `rings` rings.
pub const fn status_vector(rings: usize) -> usize {
    rings
}

/// MSI-X vectors that a device with `rings` rings has at least.
pub const fn vector_count(rings: usize) -> usize {
    rings + 1
}
