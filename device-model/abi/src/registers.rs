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
pub const VERSION: u32 = 2;

/// [`Register::Control`]: the device may write events to enabled rings.
pub const CONTROL_RUN: u32 = 1 << 0;
/// [`Register::Control`]: reset the device; reads as zero.
pub const CONTROL_RESET: u32 = 1 << 1;

/// [`Register::Health`]: the device runs ([`CONTROL_RUN`] is set).
pub const HEALTH_RUN: u64 = 1 << 0;
/// [`Register::Health`]: a reset is under way. Until this clears, writes to registers are ignored.
pub const HEALTH_BUSY: u64 = 1 << 1;
/// [`Register::Health`]: the lowest bit of the heartbeat, which takes the upper half: milliseconds
/// of device time. It stands still while the device hangs.
pub const HEALTH_HEARTBEAT_SHIFT: u32 = 32;

/// [`Register::StatusCause`]: the device has reset itself, without being told to.
pub const CAUSE_SELF_RESET: u32 = 1 << 16;
/// [`Register::StatusCause`]: ring `ring` dropped an event. Rings take bits 0 to 7.
pub const fn cause_dropped(ring: usize) -> u32 {
    1 << ring
}
/// [`Register::StatusCause`]: ring `ring` went into the error state. Rings take bits 8 to 15.
pub const fn cause_error(ring: usize) -> u32 {
    1 << (ring + MAX_RINGS)
}

/// Number of [`Register::FaultCount`]s: one for each way to misbehave that the datasheet lists.
pub const FAULTS: usize = 15;

/// [`Register::RingFeatures`]: interrupts are suppressed by event index (VIRTIO 1.3, §2.7.7.2).
pub const RING_FEATURE_EVENT_INDEX: u32 = 1 << 0;

/// Longest [`Register::RingCoalesceTime`], in microseconds: a second.
pub const COALESCE_TIME_MAX: u32 = 1_000_000;

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

/// What there is to know about a register, or about an array of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Which register this is.
    pub register: Register,
    /// Its name in the datasheet.
    pub name: &'static str,
    /// Byte offset in BAR 0; of an array, that of its first register.
    pub offset: usize,
    /// Bytes from one register of an array to the next; 0 where there is only one.
    pub stride: usize,
    /// How many there are: 1, one per ring that a device can have, or one per fault.
    pub count: usize,
    /// The only access size in bytes that the register answers to: 4 or 8.
    pub width: usize,
    /// Who may do what.
    pub access: Access,
    /// Value after reset. Those that depend on the device's configuration say zero here.
    pub reset: u64,
    /// One line for the datasheet.
    pub meaning: &'static str,
}

macro_rules! registers {
    ($( $name:ident $label:literal @ $offset:literal + $stride:literal * $count:expr, $width:literal, $access:ident, $reset:expr, $meaning:literal; )*) => {
        /// A register of BAR 0, or an array of them.
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
                count: $count,
                width: $width,
                access: Access::$access,
                reset: $reset,
                meaning: $meaning,
            }, )*
        ];

        impl Register {
            /// Byte offset in BAR 0 of this register, or of number `index` of an array of them.
            pub const fn offset(self, index: usize) -> usize {
                match self {
                    $( Self::$name => $offset + $stride * index, )*
                }
            }
        }
    };
}

registers! {
    Magic "MAGIC" @ 0x000 + 0 * 1, 4, ReadOnly, MAGIC as u64,
        "0x4e475645, the letters EVGN in memory order.";
    Version "VERSION" @ 0x004 + 0 * 1, 4, ReadOnly, VERSION as u64,
        "Version of this interface: 2.";
    Rings "RINGS" @ 0x008 + 0 * 1, 4, ReadOnly, 0,
        "Number of rings, 1 to 8.";
    RingSizeMax "RING_SIZE_MAX" @ 0x00c + 0 * 1, 4, ReadOnly, 0,
        "Largest ring in descriptors, a power of two up to 1024.";
    Control "CONTROL" @ 0x010 + 0 * 1, 4, ReadWrite, 0,
        "Bit 0 RUN: events may be written to rings. Bit 1 RESET: resets the device, reads as 0.";
    StatusCause "STATUS_CAUSE" @ 0x014 + 0 * 1, 4, WriteOneToClear, 0,
        "Bits 0-7: ring dropped an event. Bits 8-15: ring went into the error state. Bit 16: the device reset itself. A bit that becomes 1 raises the status vector.";
    Vectors "VECTORS" @ 0x018 + 0 * 1, 4, ReadOnly, 0,
        "Number of MSI-X vectors, RINGS + 1 to 2048.";
    StatusVector "STATUS_VECTOR" @ 0x01c + 0 * 1, 4, ReadWrite, 0,
        "MSI-X vector for device status, below VECTORS. After reset it is RINGS.";
    Health "HEALTH" @ 0x020 + 0 * 1, 8, ReadOnly, 0,
        "Bit 0: RUN is set. Bit 1 BUSY: a reset is under way. Bits 32-63: heartbeat, milliseconds of device time; it stands still while the device hangs.";
    RingSize "RING_SIZE" @ 0x400 + 0x80 * MAX_RINGS, 4, ReadWrite, 0,
        "Descriptors in the ring: a power of two from 2 to RING_SIZE_MAX. Kept only while the ring is off.";
    RingEnable "RING_ENABLE" @ 0x404 + 0x80 * MAX_RINGS, 4, ReadWrite, 0,
        "1 turns the ring on with the size and addresses set, 0 turns it off.";
    RingDescriptors "RING_DESC" @ 0x408 + 0x80 * MAX_RINGS, 8, ReadWrite, 0,
        "Guest physical address of the descriptor table, 16-byte aligned. Kept only while the ring is off.";
    RingAvailable "RING_AVAIL" @ 0x410 + 0x80 * MAX_RINGS, 8, ReadWrite, 0,
        "Guest physical address of the available ring, 2-byte aligned. Kept only while the ring is off.";
    RingUsed "RING_USED" @ 0x418 + 0x80 * MAX_RINGS, 8, ReadWrite, 0,
        "Guest physical address of the used ring, 4-byte aligned. Kept only while the ring is off.";
    RingState "RING_STATE" @ 0x420 + 0x80 * MAX_RINGS, 4, ReadOnly, 0,
        "0 off, 1 on, 2 error.";
    RingFeatures "RING_FEATURES" @ 0x424 + 0x80 * MAX_RINGS, 4, ReadWrite, 0,
        "Bit 0 EVENT_INDEX: the driver says in `used_event` when to interrupt. Other bits are reserved. Kept only while the ring is off.";
    RingVector "RING_VECTOR" @ 0x428 + 0x80 * MAX_RINGS, 4, ReadWrite, 0,
        "MSI-X vector of the ring, below VECTORS. After reset it is the ring's number.";
    RingCoalesceCount "RING_COALESCE_COUNT" @ 0x42c + 0x80 * MAX_RINGS, 4, ReadWrite, 0,
        "Events that make an interrupt worth while, up to 65535; 0 and 1 mean every one. Works only with RING_COALESCE_TIME.";
    RingCoalesceTime "RING_COALESCE_TIME" @ 0x430 + 0x80 * MAX_RINGS, 4, ReadWrite, 0,
        "Microseconds, up to 1000000, after which fewer events than RING_COALESCE_COUNT interrupt too; 0 turns coalescing off.";
    RingAcknowledge "RING_ACK" @ 0x434 + 0x80 * MAX_RINGS, 4, WriteOnly, 0,
        "Any write says that the handler has got the oldest event with the flag ACKNOWLEDGE that was not acknowledged yet.";
    RingGenerated "RING_GENERATED" @ 0x438 + 0x80 * MAX_RINGS, 8, ReadOnly, 0,
        "Events made for this ring.";
    RingDelivered "RING_DELIVERED" @ 0x440 + 0x80 * MAX_RINGS, 8, ReadOnly, 0,
        "Of these, the ones written to guest memory as they should be.";
    RingDropped "RING_DROPPED" @ 0x448 + 0x80 * MAX_RINGS, 8, ReadOnly, 0,
        "Of these, the ones not written: no buffer available, ring or device off, hanging or gone, or ring in error.";
    RingFaulted "RING_FAULTED" @ 0x450 + 0x80 * MAX_RINGS, 8, ReadOnly, 0,
        "Of these, the ones that a fault spoiled: their buffer was used, and what is in it is not the event.";
    RingExtra "RING_EXTRA" @ 0x458 + 0x80 * MAX_RINGS, 8, ReadOnly, 0,
        "Buffers used for a second copy of an event, which a fault made.";
    RingFull "RING_FULL" @ 0x460 + 0x80 * MAX_RINGS, 8, ReadOnly, 0,
        "Of those dropped, the ones for which the driver had no buffer available.";
    RingQuiet "RING_QUIET" @ 0x468 + 0x80 * MAX_RINGS, 8, ReadOnly, 0,
        "Events delivered without an interrupt of their own, by event index or coalescing.";
    FaultCount "FAULT_COUNT" @ 0x800 + 8 * FAULTS, 8, ReadOnly, 0,
        "How often the fault with number f came about.";
    Doorbell "DOORBELL" @ 0x1000 + 4 * MAX_RINGS, 4, WriteOnly, 0,
        "Any write makes one event for this ring, of source 1 and kind 0, with a payload of zeros.";
}

/// Finds the register that an access of `width` bytes at `offset` means, and its number in its
/// array.
///
/// `None` for an access that matches no register exactly: wrong width, unaligned, reserved. Such a
/// read gives zero and such a write is ignored. The ring may be one that the device does not have.
pub fn decode(offset: u64, width: usize) -> Option<(Register, usize)> {
    REGISTERS.iter().find_map(|description| {
        (0..description.count).find_map(|index| {
            let here = description.offset + description.stride * index;
            (here as u64 == offset && description.width == width)
                .then_some((description.register, index))
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
            for index in 0..description.count {
                let start = description.register.offset(index);
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
            (0x028, 4, None),
            (0x408, 8, Some((Register::RingDescriptors, 0))),
            (0x408, 4, None),
            (0x784, 4, Some((Register::RingEnable, 7))),
            (0x804, 4, None),
            (0x870, 8, Some((Register::FaultCount, 14))),
            (0x878, 8, None),
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
