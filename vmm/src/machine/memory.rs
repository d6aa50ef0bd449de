// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The guest's memory.

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use thiserror::Error;
use vm_memory::mmap::FromRangesError;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::layout;

/// The guest's memory, shared by vCPUs and devices. Clones refer to the same memory.
pub type Memory = GuestMemoryMmap<()>;

/// Why the guest has no memory.
#[derive(Debug, Error)]
pub enum Error {
    /// The host gives no address space.
    #[error("cannot reserve {mib} MiB for the guest: {source}; try a smaller --mem")]
    Map {
        /// What was asked for, in MiB.
        mib: u64,
        /// What the host said.
        source: FromRangesError,
    },
    /// KVM does not take it.
    #[error("KVM does not take guest memory at {start:#x}: {source}")]
    Slot {
        /// Guest-physical address.
        start: u64,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
}

/// Reserves `mib` MiB; the host provides a page when it is touched first.
pub fn create(mib: u64) -> Result<Memory, Error> {
    let ranges: Vec<_> = layout::ram(mib)
        .iter()
        .map(|range| (GuestAddress(range.start), range.length as usize))
        .collect();
    Memory::from_ranges(&ranges).map_err(|source| Error::Map { mib, source })
}

/// Makes `memory` the RAM of `vm`. Whoever runs a vCPU keeps a clone of it for that long.
pub fn attach(vm: &VmFd, memory: &Memory) -> Result<(), Error> {
    for (slot, region) in memory.iter().enumerate() {
        let start = region.start_addr().0;
        let slot = kvm_userspace_memory_region {
            slot: slot as u32,
            flags: 0,
            guest_phys_addr: start,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is a live mapping of this length that nothing else in this program
        // borrows: Rust code reaches it only through vm-memory's volatile accesses.
        unsafe { vm.set_user_memory_region(slot) }
            .map_err(|source| Error::Slot { start, source })?;
    }
    Ok(())
}
