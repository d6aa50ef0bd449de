// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The two address windows that the host bridge passes on to the bus.

use std::ops::Range;

use thiserror::Error;
use vm_allocator::{AddressAllocator, AllocPolicy};

use super::{AddressWidth, MemoryBar};

/// A window that cannot be, or is full.
#[derive(Debug, Error)]
pub enum WindowError {
    /// Empty or wrapping around.
    #[error("PCI window {start:#x}..{end:#x} is empty: {source}")]
    Range {
        /// First address.
        start: u64,
        /// First address behind it.
        end: u64,
        /// What the allocator says.
        source: vm_allocator::Error,
    },
    /// No room.
    #[error(
        "no room for a BAR of {size:#x} bytes in the PCI window {start:#x}..={end:#x}: {source}; \
         give the machine fewer devices"
    )]
    Full {
        /// Size of the BAR that does not fit.
        size: u64,
        /// First address of the window.
        start: u64,
        /// Last address of the window.
        end: u64,
        /// What the allocator says.
        source: vm_allocator::Error,
    },
}

/// The window below 4 GiB and the one above RAM.
///
/// Its allocators only give BARs their first places. Where the guest puts them later is the
/// guest's business, as long as it stays inside a window.
pub struct Windows {
    low: AddressAllocator,
    high: AddressAllocator,
}

impl Windows {
    /// `low` must lie below 4 GiB. Neither may hold RAM or anything else that answers.
    pub fn new(low: Range<u64>, high: Range<u64>) -> Result<Self, WindowError> {
        let window = |range: Range<u64>| {
            AddressAllocator::new(range.start, range.end.saturating_sub(range.start)).map_err(
                |source| WindowError::Range {
                    start: range.start,
                    end: range.end,
                    source,
                },
            )
        };
        Ok(Self {
            low: window(low)?,
            high: window(high)?,
        })
    }

    /// Finds a first place for a BAR.
    pub fn place(&mut self, bar: &MemoryBar) -> Result<u64, WindowError> {
        let window = match bar.width {
            AddressWidth::Bits32 => &mut self.low,
            AddressWidth::Bits64 => &mut self.high,
        };
        window
            .allocate(bar.size, bar.size, AllocPolicy::FirstMatch)
            .map(|range| range.start())
            .map_err(|source| WindowError::Full {
                size: bar.size,
                start: window.base(),
                end: window.end(),
                source,
            })
    }

    /// Whether the bridge passes on accesses to the whole BAR.
    pub fn contain(&self, bar: &MemoryBar) -> bool {
        [&self.low, &self.high].into_iter().any(|window| {
            bar.address >= window.base()
                && bar
                    .address
                    .checked_add(bar.size - 1)
                    .is_some_and(|last| last <= window.end())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(address: u64, size: u64, width: AddressWidth) -> MemoryBar {
        MemoryBar {
            index: 0,
            address,
            size,
            width,
            enabled: true,
        }
    }

    #[test]
    fn first_places_are_aligned_and_in_the_right_window() {
        use AddressWidth::{Bits32, Bits64};
        let mut windows = Windows::new(0xc000_0000..0xc000_6000, 1 << 36..1 << 37).unwrap();
        for (size, width, expected) in [
            (0x1000, Bits32, Some(0xc000_0000)),
            (0x2000, Bits32, Some(0xc000_2000)),
            (0x2000, Bits64, Some(1 << 36)),
            (0x2000, Bits32, Some(0xc000_4000)),
            (0x2000, Bits32, None),
            (0x10_0000, Bits64, Some((1 << 36) + 0x10_0000)),
        ] {
            let place = windows.place(&bar(0, size, width)).ok();
            assert_eq!(place, expected, "{size:#x} {width:?}");
        }
    }

    #[test]
    fn only_what_lies_in_a_window_as_a_whole_is_passed_on() {
        let windows = Windows::new(0xc000_0000..0xe000_0000, 1 << 36..1 << 37).unwrap();
        for (address, size, inside) in [
            (0xc000_0000, 0x2000, true),
            (0xdfff_e000, 0x2000, true),
            (0xdfff_f000, 0x2000, false),
            (0xbfff_f000, 0x2000, false),
            (0, 0x2000, false),
            (0xe000_0000, 0x1000, false),
            (1 << 36, 1 << 36, true),
            (1 << 36, 1 << 37, false),
            (u64::MAX - 0xfff, 0x2000, false),
        ] {
            let bar = bar(address, size, AddressWidth::Bits64);
            assert_eq!(windows.contain(&bar), inside, "{address:#x}+{size:#x}");
        }
    }
}
