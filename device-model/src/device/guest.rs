// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A guest in miniature, for tests: memory, a driver that owns rings in it, and a recorder of
//! interrupts.

use lockstorm_abi::event::{EVENT_SIZE, Event};
use lockstorm_abi::identity::{MSIX_BAR, REGISTER_BAR};
use lockstorm_abi::registers::{CONTROL_RUN, Register};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{Config, Evgen, Injection, MsiMessage, MsiSink};

pub const MEMORY_SIZE: usize = 0x10_0000;
pub const RING_SIZE: u16 = 4;

const DESCRIPTOR_WRITE: u16 = 2;
const COMMAND: u16 = 0x04;
const MSIX_CONTROL: u16 = 0x42;

/// Remembers which vectors were raised.
#[derive(Default)]
pub struct Recorder {
    pub raised: Vec<u16>,
}

impl MsiSink for Recorder {
    fn raise(&mut self, vector: u16, message: MsiMessage) {
        assert_eq!(message.data, u32::from(vector), "message of another vector");
        self.raised.push(vector);
    }
    fn release(&mut self) {}
}

pub struct Guest {
    pub memory: GuestMemoryMmap,
    pub device: Evgen<Recorder>,
    /// The time, in nanoseconds.
    pub now: u64,
    next_used: Vec<u16>,
    next_available: Vec<u16>,
}

impl Guest {
    /// A guest that has found the device and set nothing up.
    pub fn new(rings: u8) -> Self {
        Self::made_as(Config {
            rings,
            ..Config::default()
        })
    }

    /// The same, with a device that has `vectors` vectors.
    pub fn with_vectors(rings: u8, vectors: u16) -> Self {
        Self::made_as(Config {
            rings,
            vectors: Some(vectors),
            ..Config::default()
        })
    }

    fn made_as(config: Config) -> Self {
        let rings = config.rings;
        Self {
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_SIZE)]).unwrap(),
            device: Evgen::new(config, Recorder::default()).unwrap(),
            now: 0,
            next_used: vec![0; rings.into()],
            next_available: vec![0; rings.into()],
        }
    }

    /// A guest whose driver has every ring and vector running, all buffers available.
    pub fn running(rings: u8) -> Self {
        let mut guest = Self::new(rings);
        guest.unmask_all(u64::from(rings) + 1);
        guest.restart();
        guest
    }

    /// Enables the function, and the first `vectors` of its vectors.
    pub fn unmask_all(&mut self, vectors: u64) {
        self.config_write(COMMAND, &[0b110]);
        self.config_write(MSIX_CONTROL, &[0, 0x80]);
        for vector in 0..vectors {
            self.write_bar(MSIX_BAR, vector * 16 + 8, &(vector as u32).to_le_bytes());
            self.write_bar(MSIX_BAR, vector * 16 + 12, &[0; 4]);
        }
    }

    /// Turns every ring on, all buffers available, as after a reset.
    pub fn restart(&mut self) {
        for ring in 0..self.next_used.len() {
            self.lay_out(ring);
            self.write(Register::RingEnable, ring, 1);
        }
        self.write(Register::Control, 0, CONTROL_RUN.into());
    }

    /// Gives ring `ring` its memory and tells the device, without turning it on.
    pub fn lay_out(&mut self, ring: usize) {
        self.next_used[ring] = 0;
        self.next_available[ring] = 0;
        self.put(ring_base(ring) + 0x2002, &[0; 2]);
        for index in 0..RING_SIZE {
            let buffer = ring_base(ring) + 0x4000 + u64::from(index) * EVENT_SIZE as u64;
            self.set_descriptor(ring, index, buffer, EVENT_SIZE as u32, DESCRIPTOR_WRITE, 0);
            self.offer(ring, index);
        }
        self.write(Register::RingSize, ring, RING_SIZE.into());
        self.write(Register::RingDescriptors, ring, ring_base(ring));
        self.write(Register::RingAvailable, ring, ring_base(ring) + 0x1000);
        self.write(Register::RingUsed, ring, ring_base(ring) + 0x2000);
    }

    pub fn set_descriptor(
        &self,
        ring: usize,
        index: u16,
        address: u64,
        length: u32,
        flags: u16,
        next: u16,
    ) {
        let mut descriptor = [0; 16];
        descriptor[0..8].copy_from_slice(&address.to_le_bytes());
        descriptor[8..12].copy_from_slice(&length.to_le_bytes());
        descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
        descriptor[14..16].copy_from_slice(&next.to_le_bytes());
        self.put(ring_base(ring) + u64::from(index) * 16, &descriptor);
    }

    /// Makes the buffer at descriptor `index` available.
    pub fn offer(&mut self, ring: usize, index: u16) {
        let next = self.next_available[ring];
        self.write_slot(ring, next % RING_SIZE, index);
        self.next_available[ring] = next.wrapping_add(1);
        self.set_available_index(ring, self.next_available[ring]);
    }

    /// Writes one entry of the available ring.
    pub fn write_slot(&self, ring: usize, slot: u16, index: u16) {
        let address = ring_base(ring) + 0x1004 + u64::from(slot) * 2;
        self.put(address, &index.to_le_bytes());
    }

    pub fn set_available_index(&self, ring: usize, index: u16) {
        self.put(ring_base(ring) + 0x1002, &index.to_le_bytes());
    }

    /// Says after how many used buffers the driver wants to be interrupted by the next one.
    pub fn set_used_event(&self, ring: usize, used_event: u16) {
        let address = ring_base(ring) + 0x1004 + u64::from(RING_SIZE) * 2;
        self.put(address, &used_event.to_le_bytes());
    }

    /// The used index, as it stands in memory.
    pub fn used_index(&self, ring: usize) -> u16 {
        u16::from_le_bytes(self.take(ring_base(ring) + 0x2002))
    }

    /// Used buffers that were taken, modulo 2^16.
    pub fn next_used(&self, ring: usize) -> u16 {
        self.next_used[ring]
    }

    /// Takes every event out of the ring and makes its buffer available again.
    pub fn drain(&mut self, ring: usize) -> Vec<Event> {
        let events = self.drain_raw(ring);
        let events = events.iter().map(Event::from_bytes);
        events.map(|event| event.expect("checksum")).collect()
    }

    /// The same, with what is no event too. What a buffer held is cleared when it is offered.
    pub fn drain_raw(&mut self, ring: usize) -> Vec<[u8; EVENT_SIZE]> {
        let mut events = Vec::new();
        while self.next_used[ring] != self.used_index(ring) {
            let slot = u64::from(self.next_used[ring] % RING_SIZE);
            let used: [u8; 8] = self.take(ring_base(ring) + 0x2004 + slot * 8);
            assert_eq!(used[4..], 64_u32.to_le_bytes());
            let index = u16::from_le_bytes([used[0], used[1]]);
            let buffer = ring_base(ring) + 0x4000 + u64::from(index) * EVENT_SIZE as u64;
            events.push(self.take(buffer));
            self.put(buffer, &[0; EVENT_SIZE]);
            self.next_used[ring] = self.next_used[ring].wrapping_add(1);
            self.offer(ring, index);
        }
        events
    }

    pub fn write(&mut self, register: Register, ring: usize, value: u64) {
        let width = if matches!(
            register,
            Register::RingDescriptors | Register::RingAvailable | Register::RingUsed
        ) {
            8
        } else {
            4
        };
        let offset = register.offset(ring) as u64;
        self.write_bar(REGISTER_BAR, offset, &value.to_le_bytes()[..width]);
    }

    pub fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]) {
        let now = self.now;
        self.device.bar_write(&self.memory, bar, offset, data, now);
    }

    pub fn config_write(&mut self, offset: u16, data: &[u8]) {
        let now = self.now;
        self.device.config_write(&self.memory, offset, data, now);
    }

    /// Lets `nanoseconds` pass, and the device do what becomes due.
    pub fn pass(&mut self, nanoseconds: u64) {
        self.now += nanoseconds;
        while self.device.due().is_some_and(|due| due <= self.now) {
            self.device.advance(&self.memory, self.now);
        }
    }

    pub fn read(&self, register: Register, ring: usize, width: usize) -> u64 {
        let mut data = [0; 8];
        let offset = register.offset(ring) as u64;
        self.device
            .bar_read(REGISTER_BAR, offset, &mut data[..width], self.now);
        u64::from_le_bytes(data)
    }

    /// Reads a 4-byte register.
    pub fn read32(&self, register: Register, ring: usize) -> u32 {
        self.read(register, ring, 4) as u32
    }

    pub fn inject(&mut self, ring: usize, count: u32) {
        let injection = Injection {
            ring,
            kind: 1,
            payload: [0x5a; 32],
            count,
            acknowledge: false,
        };
        let now = self.now;
        self.device.inject(&self.memory, &injection, now).unwrap();
    }

    /// Events generated and delivered on ring `ring`; the conservation law is checked on the way.
    pub fn counted(&self, ring: usize) -> (u64, u64) {
        let stats = self.device.stats().rings[ring];
        let accounted = stats.delivered + stats.dropped + stats.faulted;
        assert_eq!(stats.generated, accounted, "{stats:?}");
        (stats.generated, stats.delivered)
    }

    /// The vectors raised since the last look.
    pub fn raised(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.device.sink_mut().raised)
    }

    fn put(&self, address: u64, data: &[u8]) {
        self.memory
            .write_slice(data, GuestAddress(address))
            .unwrap();
    }

    fn take<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        self.memory
            .read_slice(&mut data, GuestAddress(address))
            .unwrap();
        data
    }
}

/// Where ring `ring` lies: descriptors, then at 0x1000 the available ring, at 0x2000 the used ring,
/// at 0x4000 the buffers.
pub fn ring_base(ring: usize) -> u64 {
    0x1_0000 * (ring as u64 + 1)
}
