// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A driver that does everything right, to see that no fault makes the device's accounts wrong.

use lockstorm_device_model::RingStats;
use lockstorm_device_model::abi::event::{EVENT_SIZE, Event};
use lockstorm_device_model::abi::registers::Register;
use vm_memory::{Bytes, GuestAddress};

use crate::device::Machine;

const SIZE: u16 = 4;
const DESCRIPTOR_WRITE: u16 = 2;

/// The driver of one ring.
#[derive(Default)]
pub struct Driver {
    ring: usize,
    on: bool,
    next_used: u16,
    available: u16,
    /// Events taken since the ring was turned on, by whether their checksum is right.
    good: u64,
    bad: u64,
    /// What had been counted when the ring was turned on, and withheld.
    base: RingStats,
    withheld: u64,
}

impl Driver {
    pub fn new(ring: usize) -> Self {
        Self {
            ring,
            ..Self::default()
        }
    }

    fn base(&self) -> u64 {
        0x1000 + self.ring as u64 * 0x400
    }

    fn buffer(&self, index: u16) -> u64 {
        self.base() + 0x100 + u64::from(index) * EVENT_SIZE as u64
    }

    /// Whether the device is there and takes writes.
    fn reachable(machine: &Machine) -> bool {
        let health = machine.read(Register::Health, 0);
        health != u64::MAX && health & 2 == 0
    }

    /// Sets the ring up and turns it on, if it is off.
    pub fn turn_on(&mut self, machine: &mut Machine, event_index: bool) {
        if self.on || !Self::reachable(machine) {
            return;
        }
        self.next_used = 0;
        self.available = 0;
        (self.good, self.bad) = (0, 0);
        put(machine, self.base() + 0x80, &[0; 4]);
        for index in 0..SIZE {
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&self.buffer(index).to_le_bytes());
            descriptor[8..12].copy_from_slice(&(EVENT_SIZE as u32).to_le_bytes());
            descriptor[12..14].copy_from_slice(&DESCRIPTOR_WRITE.to_le_bytes());
            put(machine, self.base() + u64::from(index) * 16, &descriptor);
            self.offer(machine, index);
        }
        machine.write(Register::RingSize, self.ring, SIZE.into());
        machine.write(Register::RingDescriptors, self.ring, self.base());
        machine.write(Register::RingAvailable, self.ring, self.base() + 0x40);
        machine.write(Register::RingUsed, self.ring, self.base() + 0x80);
        machine.write(Register::RingFeatures, self.ring, event_index.into());
        machine.collect();
        self.base = machine.device.stats().rings[self.ring];
        self.withheld = machine.withheld[self.ring];
        machine.write(Register::RingEnable, self.ring, 1);
        assert_eq!(machine.read(Register::RingState, self.ring), 1);
        self.on = true;
    }

    /// Turns the ring off, if the device takes it.
    pub fn turn_off(&self, machine: &mut Machine) {
        machine.write(Register::RingEnable, self.ring, 0);
    }

    /// If the ring is off, for whatever reason, takes what there is and compares the accounts.
    pub fn look(&mut self, machine: &mut Machine) {
        machine.collect();
        if !self.on || !Self::reachable(machine) {
            return;
        }
        let state = machine.read(Register::RingState, self.ring);
        assert_ne!(state, 2, "ring {} is in error", self.ring);
        if state != 0 {
            return;
        }
        self.on = false;
        let left = self.used_index(machine).wrapping_sub(self.next_used);
        assert!(
            left <= SIZE,
            "the used index of a ring that is off is wrong by {left}"
        );
        self.drain(machine);
        let now = machine.device.stats().rings[self.ring];
        let delivered = now.delivered - self.base.delivered + now.extra - self.base.extra;
        let withheld = machine.withheld[self.ring] - self.withheld;
        assert_eq!(
            self.good,
            delivered - withheld,
            "ring {}: {now:?}",
            self.ring
        );
        assert_eq!(
            self.bad,
            now.faulted - self.base.faulted,
            "ring {}: {now:?}",
            self.ring
        );
    }

    /// Takes what is in the used ring, and gives the buffers back.
    pub fn drain(&mut self, machine: &Machine) {
        let left = self.used_index(machine).wrapping_sub(self.next_used);
        if left > SIZE {
            return;
        }
        for _ in 0..left {
            let slot = u64::from(self.next_used % SIZE);
            let element = take::<8>(machine, self.base() + 0x84 + slot * 8);
            assert_eq!(element[4..], (EVENT_SIZE as u32).to_le_bytes());
            let index = u16::from_le_bytes([element[0], element[1]]);
            assert!(index < SIZE);
            match Event::from_bytes(&take(machine, self.buffer(index))) {
                Some(event) => {
                    assert_eq!(usize::from(event.ring), self.ring);
                    self.good += 1;
                }
                None => self.bad += 1,
            }
            self.next_used = self.next_used.wrapping_add(1);
            self.offer(machine, index);
        }
        // used_event: an interrupt for the next one, please.
        put(
            machine,
            self.base() + 0x44 + u64::from(SIZE) * 2,
            &self.next_used.to_le_bytes(),
        );
    }

    fn used_index(&self, machine: &Machine) -> u16 {
        u16::from_le_bytes(take(machine, self.base() + 0x82))
    }

    fn offer(&mut self, machine: &Machine, index: u16) {
        put(machine, self.buffer(index), &[0; EVENT_SIZE]);
        let slot = u64::from(self.available % SIZE);
        put(machine, self.base() + 0x44 + slot * 2, &index.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        put(machine, self.base() + 0x42, &self.available.to_le_bytes());
    }
}

fn put(machine: &Machine, address: u64, data: &[u8]) {
    machine
        .memory
        .write_slice(data, GuestAddress(address))
        .unwrap();
}

fn take<const N: usize>(machine: &Machine, address: u64) -> [u8; N] {
    let mut data = [0; N];
    machine
        .memory
        .read_slice(&mut data, GuestAddress(address))
        .unwrap();
    data
}
