// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The function's configuration space: a type 0 header with two capabilities, MSI-X and Advanced
//! Features, which brings function level reset.
//!
//! It is 256 bytes and a mask of the bits that the guest may write. With those, an access of any
//! width works, and sizing a BAR (PCI Local Bus 3.0, §6.2.5.1) needs no code of its own.

use lockstorm_abi::identity::{
    CLASS_CODE, DEVICE_ID, MSIX_BAR, REGISTER_BAR, REGISTER_BAR_SIZE, REVISION_ID, VENDOR_ID,
};

use crate::msix::Msix;

/// What a write to configuration space means for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigOutcome {
    /// Nothing that the host must follow.
    Done,
    /// A BAR moved, or decoding was turned on or off: look at [`crate::Evgen::bars`] again.
    BarsChanged,
}

/// What a write to configuration space means for host and device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub outcome: ConfigOutcome,
    /// The guest asked for a function level reset. Configuration space has gone through it already.
    pub function_level_reset: bool,
}

/// A BAR as the guest has placed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which BAR: the lower one of a 64-bit pair.
    pub index: u8,
    /// Guest physical address.
    pub address: u64,
    /// Size in bytes, a power of two.
    pub size: u64,
}

const COMMAND: usize = 0x04;
const COMMAND_MEMORY: u8 = 1 << 1;
const COMMAND_BUS_MASTER: u8 = 1 << 2;
const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u8 = 1 << 4;
const BARS: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITY_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;

const MSIX: usize = 0x40;
const MSIX_CAPABILITY_ID: u8 = 0x11;
const MSIX_CONTROL_HIGH: usize = MSIX + 3;
const MSIX_ENABLE: u8 = 1 << 7;
const MSIX_FUNCTION_MASK: u8 = 1 << 6;

/// Advanced Features (PCI ECN "Advanced Capabilities for Conventional PCI").
const ADVANCED_FEATURES: usize = 0x50;
const ADVANCED_FEATURES_ID: u8 = 0x13;
const ADVANCED_FEATURES_LENGTH: u8 = 6;
/// There is the bit Transactions Pending, which is always clear: a reset finds no access of the
/// device under way, because each is over before the device is asked for anything else.
const ADVANCED_FEATURES_TP: u8 = 1 << 0;
const ADVANCED_FEATURES_FLR: u8 = 1 << 1;
const ADVANCED_FEATURES_CONTROL: usize = ADVANCED_FEATURES + 4;
/// Reads as zero.
const INITIATE_FLR: u8 = 1 << 0;

const BAR_64_BIT: u8 = 0b100;

pub(crate) struct ConfigSpace {
    bytes: [u8; 256],
    /// The bits that the guest may write; all of them are zero at power-on.
    writable: [u8; 256],
    msix_bar_size: u64,
}

impl ConfigSpace {
    /// As at power-on, for a function with `vectors` MSI-X vectors.
    pub fn new(vectors: usize) -> Self {
        let mut space = Self {
            bytes: [0; 256],
            writable: [0; 256],
            msix_bar_size: Msix::bar_size(vectors),
        };
        space.set(0x00, &VENDOR_ID.to_le_bytes());
        space.set(0x02, &DEVICE_ID.to_le_bytes());
        space.set(0x08, &[REVISION_ID]);
        space.set(0x09, &CLASS_CODE.to_le_bytes()[..3]);
        space.set(SUBSYSTEM, &VENDOR_ID.to_le_bytes());
        space.set(SUBSYSTEM + 2, &DEVICE_ID.to_le_bytes());
        space.set(STATUS, &[STATUS_CAPABILITIES]);
        space.set(CAPABILITY_POINTER, &[MSIX as u8]);

        space.set(MSIX, &[MSIX_CAPABILITY_ID, ADVANCED_FEATURES as u8]);
        space.set(MSIX + 2, &(vectors as u16 - 1).to_le_bytes());
        space.set(MSIX + 4, &u32::from(MSIX_BAR).to_le_bytes());
        let pending = Msix::pending_offset(vectors) as u32 | u32::from(MSIX_BAR);
        space.set(MSIX + 8, &pending.to_le_bytes());

        let features = ADVANCED_FEATURES_TP | ADVANCED_FEATURES_FLR;
        let advanced_features = [ADVANCED_FEATURES_ID, 0, ADVANCED_FEATURES_LENGTH, features];
        space.set(ADVANCED_FEATURES, &advanced_features);

        let registers = !(REGISTER_BAR_SIZE as u32 - 1);
        space.allow(bar_offset(REGISTER_BAR), &registers.to_le_bytes());
        space.set(bar_offset(MSIX_BAR), &[BAR_64_BIT]);
        let msix = !(space.msix_bar_size - 1);
        space.allow(bar_offset(MSIX_BAR), &msix.to_le_bytes());

        space.allow(COMMAND, &[COMMAND_MEMORY | COMMAND_BUS_MASTER]);
        space.allow(INTERRUPT_LINE, &[0xff]);
        space.allow(MSIX_CONTROL_HIGH, &[MSIX_ENABLE | MSIX_FUNCTION_MASK]);
        space
    }

    /// Reads; beyond the 256 bytes there is nothing, which reads as zeros.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (offset, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.bytes.get(offset).copied().unwrap_or(0);
        }
    }

    /// Writes the bits that may be written.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Written {
        let before = (self.bars(), self.memory_enabled());
        let mut function_level_reset = false;
        for (offset, byte) in (usize::from(offset)..256).zip(data) {
            let writable = self.writable[offset];
            self.bytes[offset] = self.bytes[offset] & !writable | byte & writable;
            function_level_reset |= offset == ADVANCED_FEATURES_CONTROL && byte & INITIATE_FLR != 0;
        }
        if function_level_reset {
            self.reset();
        }
        let outcome = if before == (self.bars(), self.memory_enabled()) {
            ConfigOutcome::Done
        } else {
            ConfigOutcome::BarsChanged
        };
        Written {
            outcome,
            function_level_reset,
        }
    }

    /// Puts everything back into its state at power-on.
    pub fn reset(&mut self) {
        for (byte, writable) in self.bytes.iter_mut().zip(self.writable) {
            *byte &= !writable;
        }
    }

    /// Where the two BARs are.
    pub fn bars(&self) -> [Bar; 2] {
        [
            Bar {
                index: REGISTER_BAR,
                address: u64::from(self.bar_dword(REGISTER_BAR)),
                size: REGISTER_BAR_SIZE as u64,
            },
            Bar {
                index: MSIX_BAR,
                address: u64::from(self.bar_dword(MSIX_BAR))
                    | u64::from(self.bar_dword(MSIX_BAR + 1)) << 32,
                size: self.msix_bar_size,
            },
        ]
    }

    pub fn memory_enabled(&self) -> bool {
        self.bytes[COMMAND] & COMMAND_MEMORY != 0
    }

    pub fn bus_master(&self) -> bool {
        self.bytes[COMMAND] & COMMAND_BUS_MASTER != 0
    }

    pub fn msix_enabled(&self) -> bool {
        self.bytes[MSIX_CONTROL_HIGH] & MSIX_ENABLE != 0
    }

    pub fn msix_function_masked(&self) -> bool {
        self.bytes[MSIX_CONTROL_HIGH] & MSIX_FUNCTION_MASK != 0
    }

    fn set(&mut self, offset: usize, value: &[u8]) {
        self.bytes[offset..offset + value.len()].copy_from_slice(value);
    }

    fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }

    /// The address bits of one 32-bit half; the low ones give the BAR's type, and cannot be written.
    fn bar_dword(&self, index: u8) -> u32 {
        let offset = bar_offset(index);
        u32::from_le_bytes(std::array::from_fn(|byte| {
            self.bytes[offset + byte] & self.writable[offset + byte]
        }))
    }
}

pub(crate) const fn bar_offset(index: u8) -> usize {
    BARS + index as usize * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_u32(space: &ConfigSpace, offset: usize) -> u32 {
        let mut data = [0; 4];
        space.read(offset as u16, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn sizing_tells_size_and_type_of_each_bar() {
        let mut space = ConfigSpace::new(5);
        for (bar, expected) in [
            (0, 0xffff_e000),
            (1, 0),
            (2, 0xffff_e004),
            (3, 0xffff_ffff),
            (4, 0),
            (5, 0),
        ] {
            space.write(bar_offset(bar) as u16, &[0xff; 4]);
            assert_eq!(read_u32(&space, bar_offset(bar)), expected, "BAR {bar}");
        }
    }

    #[test]
    fn a_bar_moves_by_writes_of_any_width() {
        for width in [1, 2, 4] {
            let mut space = ConfigSpace::new(5);
            let address = 0x12_3456_8000_u64.to_le_bytes();
            for (index, part) in address.chunks(width).enumerate() {
                space.write((bar_offset(2) + index * width) as u16, part);
            }
            assert_eq!(space.bars()[1].address, 0x12_3456_8000, "width {width}");
        }
    }

    #[test]
    fn the_host_hears_of_moved_bars_and_decoding_and_of_nothing_else() {
        let mut space = ConfigSpace::new(5);
        for (offset, data, expected) in [
            (COMMAND, &[0b110][..], ConfigOutcome::BarsChanged),
            (COMMAND, &[0b010], ConfigOutcome::Done),
            (COMMAND, &[0], ConfigOutcome::BarsChanged),
            (bar_offset(0), &[0, 0, 0, 0xc0], ConfigOutcome::BarsChanged),
            (bar_offset(0), &[0, 0, 0, 0xc0], ConfigOutcome::Done),
            (bar_offset(0), &[0xff, 0x1f], ConfigOutcome::Done),
            (MSIX_CONTROL_HIGH, &[0xff], ConfigOutcome::Done),
            (0, &[0xff; 4], ConfigOutcome::Done),
            (254, &[0xff; 8], ConfigOutcome::Done),
            (4095, &[0xff; 8], ConfigOutcome::Done),
        ] {
            let outcome = space.write(offset as u16, data).outcome;
            assert_eq!(outcome, expected, "{offset:#x}");
        }
    }

    #[test]
    fn message_control_answers_to_every_width_and_keeps_its_size() {
        for (offset, data) in [
            (MSIX, &[0xff, 0xff, 0x00, 0xff][..]),
            (MSIX + 2, &[0x00, 0xff]),
            (MSIX + 3, &[0xff]),
        ] {
            let mut space = ConfigSpace::new(5);
            assert!(!space.msix_enabled() && !space.msix_function_masked());
            space.write(offset as u16, data);
            assert!(space.msix_enabled() && space.msix_function_masked());
            assert_eq!(read_u32(&space, MSIX), 0xc004_5011);
        }
    }

    #[test]
    fn the_capabilities_are_those_of_the_datasheet_and_end() {
        let space = ConfigSpace::new(5);
        let mut found = Vec::new();
        let mut next = space.bytes[CAPABILITY_POINTER];
        while next != 0 {
            found.push(space.bytes[usize::from(next)]);
            next = space.bytes[usize::from(next) + 1];
            assert!(found.len() < 48, "the list goes round");
        }
        assert_eq!(found, [MSIX_CAPABILITY_ID, ADVANCED_FEATURES_ID]);
    }

    #[test]
    fn initiate_flr_by_any_width_puts_all_back_and_the_host_hears_if_bars_did() {
        for (offset, data) in [
            (ADVANCED_FEATURES_CONTROL, &[0x01][..]),
            (ADVANCED_FEATURES_CONTROL, &[0xff, 0xff]),
            (ADVANCED_FEATURES_CONTROL, &[0x01, 0, 0, 0]),
            (COMMAND, &[0xff; 100]),
        ] {
            let mut space = ConfigSpace::new(5);
            space.write(COMMAND as u16, &[0xff; 12]);
            space.write(bar_offset(2) as u16, &[0xff; 8]);
            space.write(MSIX as u16, &[0xff; 4]);
            space.write(INTERRUPT_LINE as u16, &[0xff]);
            let expected = Written {
                outcome: ConfigOutcome::BarsChanged,
                function_level_reset: true,
            };
            assert_eq!(space.write(offset as u16, data), expected, "{offset:#x}");
            assert_eq!(space.bytes, ConfigSpace::new(5).bytes, "{offset:#x}");
            let again = space.write(offset as u16, data);
            assert_eq!(
                (again.outcome, again.function_level_reset),
                (ConfigOutcome::Done, true)
            );
        }
    }

    #[test]
    fn a_write_without_the_bit_resets_nothing() {
        let mut space = ConfigSpace::new(5);
        for (offset, data) in [
            (ADVANCED_FEATURES_CONTROL, &[0xfe, 0xff][..]),
            (ADVANCED_FEATURES_CONTROL - 4, &[0xff; 4]),
            (ADVANCED_FEATURES_CONTROL + 1, &[0xff; 4]),
        ] {
            assert!(!space.write(offset as u16, data).function_level_reset);
        }
        assert_eq!(space.bytes, ConfigSpace::new(5).bytes);
    }
}
