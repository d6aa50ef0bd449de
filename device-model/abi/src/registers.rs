// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The registers of BAR 0, as data.
//!
//! [`REGISTERS`] is the only place that knows offsets, widths, access and reset values. The
//! device decodes with it, the driver takes its offsets from it, the datasheet's table is checked
//! against it.

use super::identity::MAX_RINGS;

/// Value of [`Register::Magic`]: "EVGN" in memory order.
pub const MAGIC: u32 = u32::from_le_bytes(*b"EVGN");
/// Value of [`Register::Version`].
pub const VERSION: u32 = 1;

/// [`Register::Control`]: the device may write events to enabled rings.
pub const CONTROL_RUN: u32 = 1 << 0;
/// [`Register::Control`]: reset the device; reads as zero.
pub const CONTROL_RESET: u32 = 1 << 1;

/// [`Register::StatusCause`]: ring `ring` dropped an event. Rings take bits 0 to 7.
pub const fn cause_dropped(ring: usize) -> u32 {
    1 << ring
}
/// [`Register::StatusCause`]: ring `ring` went into the error state. Rings take bits 8 to 15.
pub const fn cause_error(ring: usize) -> u32 {
    1 << (ring + MAX_RINGS)
}

/// [`Register::RingState`]: the ring is off and its addresses may be set.
pub const RING_STATE_OFF: u32 = 0;
/// [`Register::RingState`]: the ring is on.
pub const RING_STATE_ON: u32 = 1;
/// [`Register::RingState`]: the driver gave the device something it cannot use; only turning the
/// ring off, or a device reset, leaves this state.
pub const RING_STATE_ERROR: u32 = 2;

/// Who may do what with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads give the value, writes are ignored.
    ReadOnly,
    /// Reads give what was written, as far as the register keeps it.
    ReadWrite,
    /// Reads give the value, writing a one clears that bit.
    WriteOneToClear,
    /// Reads give zero, a write is an order.
    WriteOnly,
}

/// What there is to know about a register, or about an array with one register per ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Which register this is.
    pub register: Register,
    /// Its name in the datasheet.
    pub name: &'static str,
    /// Byte offset in BAR 0; of an array, that of ring 0.
    pub offset: usize,
    /// Bytes from one ring's register to the next; 0 where there is only one.
    pub stride: usize,
    /// The only access size in bytes that the register answers to: 4 or 8.
    pub width: usize,
    /// Who may do what.
    pub access: Access,
    /// Value after reset. The two that depend on the device's configuration say zero here.
    pub reset: u64,
    /// One line for the datasheet.
    pub meaning: &'static str,
}

macro_rules! registers {
    ($( $name:ident $label:literal @ $offset:literal + $stride:literal, $width:literal, $access:ident, $reset:expr, $meaning:literal; )*) => {
        /// A register of BAR 0, or one per ring.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Register {
            $( #[doc = $meaning] $name, )*
        }

        /// Every register that there is, by rising offset.
        pub const REGISTERS: &[Description] = &[
            $( Description {
                register: Register::$name,
                name: $label,
                offset: $offset,
                stride: $stride,
                width: $width,
                access: Access::$access,
                reset: $reset,
                meaning: $meaning,
            }, )*
        ];

        impl Register {
            /// Byte offset in BAR 0 of this register, for ring `ring` where there is one per ring.
            pub const fn offset(self, ring: usize) -> usize {
                match self {
                    $( Self::$name => $offset + $stride * ring, )*
                }
            }
        }
    };
}

registers! {
    Magic "MAGIC" @ 0x000 + 0, 4, ReadOnly, MAGIC as u64,
        "0x4e475645, the letters EVGN in memory order.";
    Version "VERSION" @ 0x004 + 0, 4, ReadOnly, VERSION as u64,
        "Version of this interface: 1.";
    Rings "RINGS" @ 0x008 + 0, 4, ReadOnly, 0,
        "Number of rings, 1 to 8.";
    RingSizeMax "RING_SIZE_MAX" @ 0x00c + 0, 4, ReadOnly, 0,
        "Largest ring in descriptors, a power of two up to 1024.";
    Control "CONTROL" @ 0x010 + 0, 4, ReadWrite, 0,
        "Bit 0 RUN: events may be written to rings. Bit 1 RESET: resets the device, reads as 0.";
    StatusCause "STATUS_CAUSE" @ 0x014 + 0, 4, WriteOneToClear, 0,
        "Bits 0-7: ring dropped an event. Bits 8-15: ring went into the error state. A bit that becomes 1 raises the status vector.";
    RingSize "RING_SIZE" @ 0x100 + 0x40, 4, ReadWrite, 0,
        "Descriptors in the ring: a power of two from 2 to RING_SIZE_MAX. Kept only while the ring is off.";
    RingEnable "RING_ENABLE" @ 0x104 + 0x40, 4, ReadWrite, 0,
        "1 turns the ring on with the size and addresses set, 0 turns it off.";
    RingDescriptors "RING_DESC" @ 0x108 + 0x40, 8, ReadWrite, 0,
        "Guest physical address of the descriptor table, 16-byte aligned. Kept only while the ring is off.";
    RingAvailable "RING_AVAIL" @ 0x110 + 0x40, 8, ReadWrite, 0,
        "Guest physical address of the available ring, 2-byte aligned. Kept only while the ring is off.";
    RingUsed "RING_USED" @ 0x118 + 0x40, 8, ReadWrite, 0,
        "Guest physical address of the used ring, 4-byte aligned. Kept only while the ring is off.";
    RingGenerated "RING_GENERATED" @ 0x120 + 0x40, 8, ReadOnly, 0,
        "Events made for this ring since reset.";
    RingDelivered "RING_DELIVERED" @ 0x128 + 0x40, 8, ReadOnly, 0,
        "Events written to guest memory since reset.";
    RingDropped "RING_DROPPED" @ 0x130 + 0x40, 8, ReadOnly, 0,
        "Events made but not written since reset: no buffer available, ring or device off, or ring in error.";
    RingState "RING_STATE" @ 0x138 + 0x40, 4, ReadOnly, 0,
        "0 off, 1 on, 2 error.";
    Doorbell "DOORBELL" @ 0x1000 + 4, 4, WriteOnly, 0,
        "Any write makes one event for this ring, of source 1 and kind 0, with a payload of zeros.";
}

/// Finds the register that an access of `width` bytes at `offset` means, and its ring.
///
/// `None` for an access that matches no register exactly: wrong width, unaligned, reserved. Such a
/// read gives zero and such a write is ignored. The ring may be one that the device does not have.
pub fn decode(offset: u64, width: usize) -> Option<(Register, usize)> {
    REGISTERS.iter().find_map(|description| {
        let rings = if description.stride == 0 {
            1
        } else {
            MAX_RINGS
        };
        (0..rings).find_map(|ring| {
            let here = description.offset + description.stride * ring;
            (here as u64 == offset && description.width == width)
                .then_some((description.register, ring))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::identity::REGISTER_BAR_SIZE;
    use super::*;

    #[test]
    fn registers_do_not_overlap_and_stay_inside_the_bar() {
        let mut owner = [None; REGISTER_BAR_SIZE];
        for description in REGISTERS {
            let rings = if description.stride == 0 {
                1
            } else {
                MAX_RINGS
            };
            for ring in 0..rings {
                let start = description.register.offset(ring);
                assert_eq!(
                    start % description.width,
                    0,
                    "{} is not aligned",
                    description.name
                );
                for byte in &mut owner[start..start + description.width] {
                    assert_eq!(
                        *byte, None,
                        "{} overlaps another register",
                        description.name
                    );
                    *byte = Some(description.register);
                }
            }
        }
    }

    #[test]
    fn decode_takes_exact_accesses_only() {
        for (offset, width, expected) in [
            (0x000, 4, Some((Register::Magic, 0))),
            (0x000, 8, None),
            (0x001, 4, None),
            (0x010, 2, None),
            (0x01c, 4, None),
            (0x108, 8, Some((Register::RingDescriptors, 0))),
            (0x108, 4, None),
            (0x2c4, 4, Some((Register::RingEnable, 7))),
            (0x304, 4, None),
            (0x1000, 4, Some((Register::Doorbell, 0))),
            (0x101c, 4, Some((Register::Doorbell, 7))),
            (0x1020, 4, None),
            (u64::MAX, 4, None),
        ] {
            assert_eq!(
                decode(offset, width),
                expected,
                "{width} bytes at {offset:#x}"
            );
        }
    }
}
