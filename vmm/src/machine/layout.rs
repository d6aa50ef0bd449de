// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Where everything lies in the guest's physical memory and port space.
//!
//! ```text
//! 0x0000_0000  RAM (the boot structures of PVH lie in its first 640 KiB)
//! 0x000e_0000  ACPI tables, reserved
//! 0x0010_0000  RAM, up to 3 GiB at most
//! 0xc000_0000  32-bit BAR window
//! 0xe000_0000  ECAM, 32 buses
//! 0xfec0_0000  I/O APIC
//! 0xfee0_0000  local APICs
//! 0x1_0000_0000  the rest of RAM
//! 0x8_0000_0000  64-bit BAR window
//! ```

/// A range of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

impl Range {
    /// The range from `start` up to, not including, `end`.
    const fn until(start: u64, end: u64) -> Self {
        Self {
            start,
            length: end - start,
        }
    }

    /// The first address past the range.
    pub const fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// Where `hvm_start_info` goes (PVH).
pub const START_INFO: u64 = 0x6000;
/// Where the list of modules goes: one entry, the initial RAM disk.
pub const MODULES: u64 = 0x6100;
/// Where the memory map goes.
pub const MEMORY_MAP: u64 = 0x7000;
/// Where the kernel command line goes.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Usable memory below the hole of the PC: what lies above was the BIOS's.
pub const CONVENTIONAL: Range = Range::until(0, 0x9_fc00);
/// The ACPI tables, in what a PC reserves for its BIOS.
pub const ACPI: Range = Range::until(0xe_0000, 0x10_0000);
/// RAM that goes on after the hole of the PC.
pub const HIGH_RAM_START: u64 = 0x10_0000;

/// RAM below 4 GiB ends here at the latest.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// The PCI host bridge's window for 32-bit BARs.
pub const BAR_WINDOW_32: Range = Range::until(LOW_RAM_END, 0xe000_0000);
/// The last PCI bus. There is the root bus, and one behind each of its other slots that has a port.
pub const LAST_BUS: u8 = 31;
/// PCI configuration space by memory access: 1 MiB for each bus.
pub const ECAM: Range = Range {
    start: 0xe000_0000,
    length: (LAST_BUS as u64 + 1) << 20,
};
/// The I/O APIC's registers.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The local APICs' registers.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages that KVM needs for its own use on Intel CPUs.
pub const KVM_TSS: u64 = 0xfffb_d000;
/// RAM goes on here when it does not fit below [`LOW_RAM_END`].
pub const RAM_ABOVE_4G: u64 = 1 << 32;
/// The PCI host bridge's window for 64-bit BARs. It ends where 36 bits do: the least that CPUs with
/// KVM have.
pub const BAR_WINDOW_64: Range = Range::until(32 << 30, 64 << 30);

/// The smallest guest memory in MiB: less does not hold a kernel and its initial RAM disk.
pub const MEMORY_MIN_MIB: u64 = 64;
/// The largest guest memory in MiB: RAM must end below [`BAR_WINDOW_64`].
pub const MEMORY_MAX_MIB: u64 = (BAR_WINDOW_64.start - RAM_ABOVE_4G + LOW_RAM_END) >> 20;

/// The most virtual CPUs.
pub const CPUS_MAX: u8 = 8;

/// First port of COM1.
pub const COM1_PORT: u16 = 0x3f8;
/// Ports of COM1.
pub const COM1_PORTS: u16 = 8;
/// Interrupt of COM1.
pub const COM1_GSI: u32 = 4;
/// PCI configuration space by port access: CONFIG_ADDRESS and CONFIG_DATA.
pub const PCI_CONFIG_PORT: u16 = 0xcf8;
/// Ports of the PCI configuration mechanism.
pub const PCI_CONFIG_PORTS: u16 = 8;
/// Exit device: a byte written here is the run's exit status.
pub const EXIT_PORT: u16 = 0x600;
/// Ports of the exit device: the status and the timeline.
pub const EXIT_PORTS: u16 = 2;
/// ACPI sleep control, sleep status and reset registers, in this order.
pub const POWER_PORT: u16 = 0x604;
/// Ports of the power registers.
pub const POWER_PORTS: u16 = 3;

/// The ranges of RAM for `mib` MiB of guest memory, in rising order.
pub fn ram(mib: u64) -> Vec<Range> {
    let size = mib << 20;
    let low = size.min(LOW_RAM_END);
    let mut ranges = vec![Range {
        start: 0,
        length: low,
    }];
    if size > low {
        ranges.push(Range {
            start: RAM_ABOVE_4G,
            length: size - low,
        });
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_has_the_asked_size_and_stays_out_of_the_holes() {
        for mib in [MEMORY_MIN_MIB, 512, 3071, 3072, 3073, 8192, MEMORY_MAX_MIB] {
            let ranges = ram(mib);
            assert_eq!(
                ranges.iter().map(|range| range.length).sum::<u64>(),
                mib << 20
            );
            for range in &ranges {
                for hole in [BAR_WINDOW_32, ECAM, BAR_WINDOW_64] {
                    let apart = range.end() <= hole.start || hole.end() <= range.start;
                    assert!(apart, "{mib} MiB: {range:x?} {hole:x?}");
                }
            }
        }
    }
}
