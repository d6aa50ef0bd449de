// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a PVH kernel finds in memory at its entry point: the PVH boot ABI (`struct
//! hvm_start_info`, Xen's `public/arch-x86/hvm/start_info.h`).

use std::ffi::CStr;

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};

use super::acpi;
use super::layout::{self, Range};
use super::memory::Memory;

const MAGIC: u32 = 0x336e_c578;
/// The first version with a memory map.
const VERSION: u32 = 1;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Guest memory does not take the boot structures.
#[derive(Debug, Error)]
pub enum Error {
    /// From the boot configurator.
    #[error("cannot write the PVH boot structures: {0}")]
    Structures(#[from] linux_loader::configurator::Error),
    /// From guest memory.
    #[error("cannot write the boot data to guest memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// Writes command line, ACPI tables and start info for a machine of `mib` MiB and `cpus` vCPUs.
pub fn write_boot_data(
    memory: &Memory,
    mib: u64,
    cpus: u8,
    command_line: &CStr,
    initramfs: Range,
) -> Result<(), Error> {
    memory.write_slice(
        command_line.to_bytes_with_nul(),
        GuestAddress(layout::COMMAND_LINE),
    )?;
    let tables = acpi::tables(cpus);
    memory.write_slice(&tables.image, GuestAddress(layout::ACPI.start))?;

    let map = memory_map(mib);
    let modules = [hvm_modlist_entry {
        paddr: initramfs.start,
        size: initramfs.length,
        ..Default::default()
    }];
    let start_info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: modules.len() as u32,
        modlist_paddr: layout::MODULES,
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: tables.rsdp,
        memmap_paddr: layout::MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut parameters = BootParams::new(&start_info, GuestAddress(layout::START_INFO));
    parameters.set_sections(&map, GuestAddress(layout::MEMORY_MAP));
    parameters.set_modules(&modules, GuestAddress(layout::MODULES));
    Ok(PvhBootConfigurator::write_bootparams(&parameters, memory)?)
}

/// The memory map in E820 terms. Linux uses ECAM only where the map or ACPI reserves it.
fn memory_map(mib: u64) -> Vec<hvm_memmap_table_entry> {
    let entry = |range: Range, type_| hvm_memmap_table_entry {
        addr: range.start,
        size: range.length,
        type_,
        reserved: 0,
    };
    let mut map = vec![
        entry(layout::CONVENTIONAL, E820_RAM),
        entry(layout::ACPI, E820_RESERVED),
        entry(layout::ECAM, E820_RESERVED),
    ];
    for range in layout::ram(mib) {
        let start = range.start.max(layout::HIGH_RAM_START);
        map.push(entry(
            Range {
                start,
                length: range.end() - start,
            },
            E820_RAM,
        ));
    }
    map.sort_by_key(|entry| entry.addr);
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory;

    #[test]
    fn memory_map_is_sorted_and_disjoint() {
        for (mib, ram_bytes) in [(64, 64 << 20), (3072, 3072 << 20), (4096, 4096 << 20u64)] {
            let map = memory_map(mib);
            for pair in map.windows(2) {
                assert!(pair[0].addr + pair[0].size <= pair[1].addr, "{pair:x?}");
            }
            let usable: u64 = map
                .iter()
                .filter(|entry| entry.type_ == E820_RAM)
                .map(|entry| entry.size)
                .sum();
            let hole = layout::HIGH_RAM_START - layout::CONVENTIONAL.end();
            assert_eq!(usable, ram_bytes - hole, "{mib} MiB");
            let ecam = map
                .iter()
                .find(|entry| entry.addr == layout::ECAM.start)
                .unwrap();
            assert_eq!(
                (ecam.size, ecam.type_),
                (layout::ECAM.length, E820_RESERVED)
            );
        }
    }

    #[test]
    fn start_info_points_at_everything() {
        let memory = memory::create(64).unwrap();
        let initramfs = Range {
            start: 0x300_0000,
            length: 0x1234,
        };
        write_boot_data(&memory, 64, 2, c"console=ttyS0", initramfs).unwrap();
        let word = |address: u64| memory.read_obj::<u64>(GuestAddress(address)).unwrap();
        let info = layout::START_INFO;
        assert_eq!(word(info) as u32, MAGIC);
        assert_eq!(word(word(info + 16)), initramfs.start);
        assert_eq!(word(word(info + 16) + 8), initramfs.length);
        assert_eq!(word(word(info + 24)).to_le_bytes(), *b"console=");
        assert_eq!(word(word(info + 32)).to_le_bytes(), *b"RSD PTR ");
        assert_eq!(word(word(info + 40) + 8), layout::CONVENTIONAL.length);
        let entries = word(info + 48) & 0xffff_ffff;
        assert_eq!(entries, memory_map(64).len() as u64);
        assert!(layout::MEMORY_MAP + 24 * entries <= layout::COMMAND_LINE);
    }
}
