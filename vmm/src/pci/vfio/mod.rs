// SPDX-License-Identifier: Apache-2.0 OR MIT

//! PCI devices of the host, assigned to the guest through VFIO.
//!
//! The guest's driver and the device have as little between them as can be: what BARs hold is mapped
//! into the guest, the device reaches the guest's memory through the host's IOMMU at the guest's own
//! addresses, and its interrupts go from the host's kernel to KVM. What comes to us is configuration
//! space ([`config_space`]), of which the guest sees a part, and the MSI-X table ([`msix`]).
//!
//! The host is protected from guest and device by its kernel, which lets a device go only with all
//! that it cannot be told apart from, its IOMMU group. Docs: `docs/vfio.md`.

mod assign;
mod bars;
mod config_space;
mod function;
mod host_device;
mod msix;

pub use assign::{AssignError, assign};
pub use function::AssignedFunction;
pub use host_device::{HostDeviceError, MalformedAddress, PciAddress};
