// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The memory that a client lends.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::fstatfs;
use rustix::io::Errno;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion,
};

use crate::machine::memory::Memory;

/// Regions that a client may lend at a time. It hears of it.
pub(super) const REGIONS_MAX: usize = 1024;
/// Bytes that the device may access at a time: address space of ours, and not memory.
const BYTES_MAX: u64 = 1 << 40;
const PAGE: u64 = 4096;

const READABLE: u32 = 1 << 0;
const WRITABLE: u32 = 1 << 1;

/// A region as a client describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub flags: u32,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its guest physical address.
    pub address: u64,
    /// In bytes.
    pub size: u64,
}

/// All regions of a client.
#[derive(Default)]
pub(super) struct Regions {
    /// Size by address, of those too that the device cannot access.
    known: BTreeMap<u64, u64>,
    memory: Memory,
}

impl Regions {
    /// What the device may access.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Adds a region. One without a file, or which the device may not write to, is known and nothing
    /// more: an access of the device there fails.
    pub fn map(&mut self, region: Region, file: Option<OwnedFd>) -> Result<(), Errno> {
        let Region {
            flags,
            offset,
            address,
            size,
        } = region;
        let aligned = [offset, address, size]
            .iter()
            .all(|n| n.is_multiple_of(PAGE));
        let last = size
            .checked_sub(1)
            .and_then(|last| address.checked_add(last));
        let last = last.filter(|_| aligned).ok_or(Errno::INVAL)?;
        let below = self.known.range(..=last).next_back();
        if below.is_some_and(|(&start, &size)| start + (size - 1) >= address) {
            return Err(Errno::EXIST);
        }
        if self.known.len() >= REGIONS_MAX {
            return Err(Errno::NOSPC);
        }
        if let Some(file) = file
            && flags & READABLE != 0
            && flags & WRITABLE != 0
        {
            let lent: u64 = self.memory.iter().map(GuestMemoryRegion::len).sum();
            if size > BYTES_MAX - lent {
                return Err(Errno::NOSPC);
            }
            let region = Arc::new(map_file(file, offset, address, size)?);
            let memory = self.memory.insert_region(region);
            self.memory = memory.map_err(|_| Errno::INVAL)?;
        }
        self.known.insert(address, size);
        Ok(())
    }

    /// Removes all regions in a range, as VFIO does: there need not be any, but none may lie partly in
    /// it. A client with an IOMMU for its guest does not know what is there.
    pub fn unmap(&mut self, address: u64, size: u64) -> Result<(), Errno> {
        let last = size
            .checked_sub(1)
            .and_then(|last| address.checked_add(last))
            .ok_or(Errno::INVAL)?;
        // Regions do not overlap, so of those that begin before the range only the last reaches into it.
        let below = self.known.range(..address).next_back();
        let end = |start: u64, size: u64| start + (size - 1);
        let inside: Vec<_> = self
            .known
            .range(address..=last)
            .map(|(&start, &size)| (start, size))
            .collect();
        let cut = below.is_some_and(|(&start, &size)| end(start, size) >= address)
            || inside
                .last()
                .is_some_and(|&(start, size)| end(start, size) > last);
        if cut {
            return Err(Errno::INVAL);
        }
        for (start, size) in inside {
            self.known.remove(&start);
            if let Ok((memory, _)) = self.memory.remove_region(GuestAddress(start), size) {
                self.memory = memory;
            }
        }
        Ok(())
    }
}

fn map_file(file: OwnedFd, offset: u64, address: u64, size: u64) -> Result<GuestRegionMmap, Errno> {
    // Others may make an access wait, which truncation alone does not.
    if fstatfs(&file)?.f_type != libc::TMPFS_MAGIC {
        return Err(Errno::OPNOTSUPP);
    }
    let file = File::from(file);
    let length = file.metadata().map_err(|_| Errno::INVAL)?.len();
    if offset.checked_add(size).is_none_or(|end| end > length) {
        return Err(Errno::INVAL);
    }
    let mapping = MmapRegion::build(
        Some(FileOffset::new(file, offset)),
        size as usize,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_NORESERVE,
    );
    let mapping = mapping.map_err(|_| Errno::ACCESS)?;
    GuestRegionMmap::new(mapping, GuestAddress(address)).ok_or(Errno::INVAL)
}
