// SPDX-License-Identifier: Apache-2.0 OR MIT

use arbitrary::{Arbitrary, Unstructured};
use lockstorm_device_model::abi::registers::{RING_STATE_ERROR, Register};
use vm_memory::{Bytes, GuestAddress};

use crate::device::{MEMORY, Machine, Step, steps};

/// An address that may be anywhere, but often is where it hurts.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    Low(u16),
    High(u16),
    /// So many bytes before the end of a piece of memory.
    End {
        high: bool,
        before: u8,
    },
    Any(u64),
}

impl Place {
    fn address(self) -> u64 {
        let end = |(start, size): (u64, usize)| start + size as u64;
        match self {
            Self::Low(offset) => u64::from(offset),
            Self::High(offset) => MEMORY[1].0 + u64::from(offset % 0x2100),
            Self::End { high, before } => end(MEMORY[usize::from(high)]) - u64::from(before),
            Self::Any(address) => address,
        }
    }
}

/// What a driver does with its rings that wants to know how far it can go.
#[derive(Arbitrary, Debug)]
enum Move {
    /// Turns a ring on, at addresses that do or do not overlap.
    Ring {
        ring: u8,
        log_size: u8,
        descriptors: Place,
        available: Place,
        used: Place,
        event_index: bool,
    },
    /// Turns a ring on with everything as `Step::Register` has left it.
    On(u8),
    Off(u8),
    Descriptor {
        ring: u8,
        index: u8,
        address: Place,
        length: u32,
        flags: u16,
        next: u16,
        /// Flags and length are those that the device wants.
        proper: bool,
    },
    /// An entry of the available ring.
    Entry {
        ring: u8,
        slot: u8,
        head: u16,
    },
    /// The available index.
    Index {
        ring: u8,
        index: u16,
        all: bool,
    },
    UsedEvent {
        ring: u8,
        index: u16,
    },
    Any(Step),
}

/// Rings anywhere in memory and beyond it, over each other and over their own buffers, with chains,
/// loops, wrong lengths and indices that jump.
pub fn descriptor_chains(data: &[u8]) {
    let mut plan = Unstructured::new(data);
    let Ok(mut machine) = Machine::arbitrary(&mut plan) else {
        return;
    };
    machine.begin();
    for step in steps::<Move>(&mut plan) {
        let failed = failed(&machine);
        let before = machine.device.stats();
        match step {
            Move::Any(step) => machine.take(&step),
            Move::On(ring) => {
                let ring = machine.ring(ring);
                machine.write(Register::RingEnable, ring, 1);
            }
            Move::Off(ring) => {
                let ring = machine.ring(ring);
                machine.write(Register::RingEnable, ring, 0);
            }
            Move::Ring {
                ring,
                log_size,
                descriptors,
                available,
                used,
                event_index,
            } => {
                let ring = machine.ring(ring);
                machine.write(Register::RingEnable, ring, 0);
                machine.write(Register::RingSize, ring, 1 << (log_size % 12));
                let address = descriptors.address() & !0xf;
                machine.write(Register::RingDescriptors, ring, address);
                machine.write(Register::RingAvailable, ring, available.address() & !1);
                machine.write(Register::RingUsed, ring, used.address() & !3);
                machine.write(Register::RingFeatures, ring, event_index.into());
                machine.write(Register::RingEnable, ring, 1);
                machine.write(Register::Control, 0, 1);
            }
            other => write_memory(&machine, &other),
        }
        // Nothing but being turned off ends the error state, and there are no events in it.
        let after = machine.device.stats();
        for (ring, was_failed) in failed.into_iter().enumerate() {
            if was_failed && self::failed(&machine)[ring] {
                assert_eq!(before.rings[ring].faulted, after.rings[ring].faulted);
            }
        }
        machine.take(&Step::Pass { time: 1, shift: 0 });
    }
}

fn failed(machine: &Machine) -> Vec<bool> {
    (0..usize::from(machine.device.config().rings))
        .map(|ring| machine.read(Register::RingState, ring) == u64::from(RING_STATE_ERROR))
        .collect()
}

/// Writes to memory where the device will look. There may be none.
fn write_memory(machine: &Machine, step: &Move) {
    let put = |address: u64, data: &[u8]| {
        let _ = machine.memory.write_slice(data, GuestAddress(address));
    };
    let read = |register, ring| machine.read(register, machine.ring(ring));
    match *step {
        Move::Descriptor {
            ring,
            index,
            address,
            length,
            flags,
            next,
            proper,
        } => {
            let table = read(Register::RingDescriptors, ring);
            let (length, flags) = if proper { (64, 2) } else { (length, flags) };
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&address.address().to_le_bytes());
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            bytes[12..14].copy_from_slice(&flags.to_le_bytes());
            bytes[14..].copy_from_slice(&next.to_le_bytes());
            put(table.wrapping_add(u64::from(index) * 16), &bytes);
        }
        Move::Entry { ring, slot, head } => {
            let ring = read(Register::RingAvailable, ring);
            put(
                ring.wrapping_add(4 + u64::from(slot) * 2),
                &head.to_le_bytes(),
            );
        }
        Move::Index { ring, index, all } => {
            let size = read(Register::RingSize, ring) as u16;
            let index = if all { size } else { index };
            let ring = read(Register::RingAvailable, ring);
            put(ring.wrapping_add(2), &index.to_le_bytes());
        }
        Move::UsedEvent { ring, index } => {
            let size = read(Register::RingSize, ring) & 0xffff;
            let ring = read(Register::RingAvailable, ring);
            put(ring.wrapping_add(4 + size * 2), &index.to_le_bytes());
        }
        _ => {}
    }
}
