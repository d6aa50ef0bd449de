// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What it costs to make an event and write it to a ring in guest memory, against the bare cost of
//! copying bytes there.
//!
//! `scripts/bench.sh core` runs this and takes the ratios:
//!
//! * `event/deliver`: an event made, numbered, summed, written and its vector raised;
//! * `event/copy`: its 64 bytes written by vm-memory to the same buffers, and nothing else;
//! * `event/traffic`: every byte that a delivery must read or write, moved by vm-memory.

#![allow(
    clippy::unwrap_used,
    reason = "nothing but this program itself has a hand in it"
)]

use criterion::{Criterion, Throughput};
use lockstorm_device_model::abi::event::EVENT_SIZE;
use lockstorm_device_model::abi::identity::{MSIX_BAR, REGISTER_BAR};
use lockstorm_device_model::abi::registers::{CONTROL_RUN, Register};
use lockstorm_device_model::{Config, Evgen, Injection, MsiMessage, MsiSink};
use std::hint::black_box;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Descriptors of the ring, and events of one round: then the driver gives all buffers back.
const RING_SIZE: u16 = 256;

const MEMORY_SIZE: usize = 0x10_0000;
const DESCRIPTORS: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x1_2000;
const USED: u64 = 0x1_4000;
const BUFFERS: u64 = 0x2_0000;

// Offsets in the available and the used ring (VIRTIO 1.3, §2.7).
const INDEX: u64 = 2;
const ENTRIES: u64 = 4;

const DESCRIPTOR_WRITE: u16 = 2;
const COMMAND: u16 = 0x04;
const MSIX_CONTROL: u16 = 0x42;

/// Takes interrupts for nothing: what they cost is the host's affair.
struct Nowhere;

impl MsiSink for Nowhere {
    fn raise(&mut self, vector: u16, message: MsiMessage) {
        black_box((vector, message));
    }
    fn release(&mut self) {}
}

/// A device with one ring running, and the driver's side of that ring.
struct Guest {
    memory: GuestMemoryMmap,
    device: Evgen<Nowhere>,
    available: u16,
}

impl Guest {
    fn new() -> Self {
        let config = Config {
            rings: 1,
            ..Config::default()
        };
        let mut guest = Self {
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_SIZE)]).unwrap(),
            device: Evgen::new(config, Nowhere).unwrap(),
            available: 0,
        };
        guest
            .device
            .config_write(&guest.memory, COMMAND, &[0b110], 0);
        guest
            .device
            .config_write(&guest.memory, MSIX_CONTROL, &[0, 0x80], 0);
        for vector in 0..=1 {
            guest.write(MSIX_BAR, vector * 16 + 12, &[0; 4]);
        }
        for index in 0..RING_SIZE {
            let mut descriptor = [0; 16];
            descriptor[0..8].copy_from_slice(&buffer(index).0.to_le_bytes());
            descriptor[8..12].copy_from_slice(&(EVENT_SIZE as u32).to_le_bytes());
            descriptor[12..14].copy_from_slice(&DESCRIPTOR_WRITE.to_le_bytes());
            let place = DESCRIPTORS + u64::from(index) * 16;
            guest.put(place, &descriptor);
            let place = AVAILABLE + ENTRIES + u64::from(index) * 2;
            guest.put(place, &index.to_le_bytes());
        }
        for (register, value) in [
            (Register::RingDescriptors, DESCRIPTORS),
            (Register::RingAvailable, AVAILABLE),
            (Register::RingUsed, USED),
        ] {
            let offset = register.offset(0) as u64;
            guest.write(REGISTER_BAR, offset, &value.to_le_bytes());
        }
        for (register, value) in [
            (Register::RingSize, RING_SIZE.into()),
            (Register::RingEnable, 1),
            (Register::Control, CONTROL_RUN),
        ] {
            let offset = register.offset(0) as u64;
            guest.write(REGISTER_BAR, offset, &value.to_le_bytes());
        }
        guest
    }

    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.device.bar_write(&self.memory, bar, offset, data, 0);
    }

    fn put(&self, address: u64, data: &[u8]) {
        let address = GuestAddress(address);
        self.memory.write_slice(data, address).unwrap();
    }

    fn take<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut data = [0; N];
        let address = GuestAddress(address);
        self.memory.read_slice(&mut data, address).unwrap();
        data
    }

    /// Gives all buffers back. The device takes them in order, so the entries stay as they are.
    fn give_back(&mut self) {
        self.available = self.available.wrapping_add(RING_SIZE);
        self.put(AVAILABLE + INDEX, &self.available.to_le_bytes());
    }

    fn deliver(&mut self) {
        self.give_back();
        let count = u32::from(RING_SIZE);
        let injection = Injection {
            ring: 0,
            kind: 1,
            payload: black_box([0x5a; 32]),
            count,
            acknowledge: false,
        };
        self.device.inject(&self.memory, &injection, 0).unwrap();
    }

    /// What a delivery reads and writes, without a thought.
    fn traffic(&mut self) {
        self.give_back();
        let event = black_box([0x5a; EVENT_SIZE]);
        for index in 0..RING_SIZE {
            let slot = u64::from(index);
            black_box(self.take::<2>(AVAILABLE + INDEX));
            black_box(self.take::<2>(AVAILABLE + ENTRIES + slot * 2));
            black_box(self.take::<16>(DESCRIPTORS + slot * 16));
            self.memory.write_slice(&event, buffer(index)).unwrap();
            self.put(USED + ENTRIES + slot * 8, &black_box([0; 8]));
            self.put(USED + INDEX, &index.to_le_bytes());
        }
    }
}

fn buffer(index: u16) -> GuestAddress {
    GuestAddress(BUFFERS + u64::from(index) * EVENT_SIZE as u64)
}

fn event(criterion: &mut Criterion) {
    let mut guest = Guest::new();
    guest.deliver();
    let stats = guest.device.stats().rings[0];
    assert_eq!(stats.delivered, u64::from(RING_SIZE), "{stats:?}");

    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(RING_SIZE.into()));
    group.bench_function("deliver", |bencher| bencher.iter(|| guest.deliver()));
    let stats = guest.device.stats().rings[0];
    assert_eq!(stats.generated, stats.delivered, "{stats:?}");

    group.bench_function("copy", |bencher| {
        bencher.iter(|| {
            let event = black_box([0x5a; EVENT_SIZE]);
            for index in 0..RING_SIZE {
                guest.memory.write_slice(&event, buffer(index)).unwrap();
            }
        });
    });
    // A ring of its own, since this one's indices are the device's no longer.
    let mut guest = Guest::new();
    group.bench_function("traffic", |bencher| bencher.iter(|| guest.traffic()));
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    event(&mut criterion);
    criterion.final_summary();
}
