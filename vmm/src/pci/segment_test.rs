// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The bus with evgen-like functions that record what they hear.

use std::sync::atomic::{AtomicBool, Ordering};

use vm_memory::GuestMemoryMmap;

use super::*;
use crate::pci::AddressWidth;

const LOW: u64 = 0xc000_0000;
pub(super) const HIGH: u64 = 1 << 36;
const COMMAND: u64 = 0x04;
const BAR0: u64 = 0x10;
const BAR2: u64 = 0x18;

/// A function with the configuration space of an evgen device.
pub(super) struct Function {
    device: Mutex<lockstorm_device_model::Evgen<NoSink>>,
    heard: Mutex<Vec<(u8, Option<u64>)>>,
    pub(super) widths: Mutex<Vec<(u16, usize)>>,
    /// It was taken out of its slot.
    pub(super) gone: AtomicBool,
}

pub(super) struct NoSink;

impl lockstorm_device_model::MsiSink for NoSink {
    fn raise(&mut self, _vector: u16, _message: lockstorm_device_model::MsiMessage) {}
    fn release(&mut self) {}
}

impl PciFunction for Function {
    fn config_read(&self, register: u16, data: &mut [u8]) {
        self.widths.lock().unwrap().push((register, data.len()));
        self.device.lock().unwrap().config_read(register, data, 0);
    }
    fn config_write(&self, register: u16, data: &[u8]) -> ConfigOutcome {
        self.widths.lock().unwrap().push((register, data.len()));
        let memory = GuestMemoryMmap::<()>::new();
        let mut device = self.device.lock().unwrap();
        device.config_write(&memory, register, data, 0)
    }
    fn bars(&self) -> Vec<MemoryBar> {
        if self.gone.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let device = self.device.lock().unwrap();
        let widths = [AddressWidth::Bits32, AddressWidth::Bits64];
        let bars = device.bars().into_iter().zip(widths);
        bars.map(|(bar, width)| MemoryBar {
            index: bar.index,
            address: bar.address,
            size: bar.size,
            width,
            enabled: device.memory_enabled(),
        })
        .collect()
    }
    fn place_bar(&self, index: u8, address: u64) {
        self.device.lock().unwrap().place_bar(index, address);
    }
    fn decoding(&self, index: u8, address: Option<u64>) {
        self.heard.lock().unwrap().push((index, address));
    }
    fn reset(&self) {
        let memory = GuestMemoryMmap::<()>::new();
        self.device.lock().unwrap().bus_reset(&memory, 0);
    }
    fn take_out(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }
    fn bar_read(&self, index: u8, _offset: u64, data: &mut [u8]) {
        data.fill(index);
    }
}

impl Function {
    /// As after power-on.
    pub(super) fn new() -> Arc<Self> {
        let config = lockstorm_device_model::Config::default();
        Arc::new(Self {
            device: Mutex::new(lockstorm_device_model::Evgen::new(config, NoSink).unwrap()),
            heard: Mutex::default(),
            widths: Mutex::default(),
            gone: AtomicBool::default(),
        })
    }

    pub(super) fn heard(&self) -> Vec<(u8, Option<u64>)> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

pub(super) fn setup(count: usize) -> (Segment, Vec<Arc<Function>>) {
    let windows = Windows::new(LOW..0xe000_0000, HIGH..HIGH << 1).unwrap();
    let mut segment = Segment::new(Arc::new(Bus::default()), windows);
    let functions: Vec<Arc<Function>> = (0..count).map(|_| Function::new()).collect();
    for function in &functions {
        segment.add(function.clone()).unwrap();
    }
    (segment, functions)
}

pub(super) fn at(slot: u64, register: u64) -> u64 {
    slot << 15 | register
}

/// What a one-byte read at `address` on the memory bus gives.
pub(super) fn look(segment: &Segment, address: u64) -> u8 {
    let mut data = [0];
    segment.bus.read(address, &mut data);
    data[0]
}

#[test]
fn functions_answer_in_their_slots_and_nothing_else_does() {
    let (segment, _functions) = setup(2);
    for (address, expected) in [
        (at(0, 0), Some(0x0008_1b36_u32)),
        (at(0, 8), Some(0x0600_0000)),
        (at(1, 0), Some(0x4556_1234)),
        (at(2, 0), Some(0x4556_1234)),
        (at(3, 0), None),
        (at(31, 0), None),
        (at(1, 0) | 1 << 12, None),
        (at(1, 0) | 7 << 12, None),
        (at(1, 0) | 1 << 20, None),
        (at(0, 0) | 255 << 20, None),
        (!3, None),
    ] {
        let mut data = [0; 4];
        segment.read(address, &mut data);
        let value = u32::from_le_bytes(data);
        assert_eq!(value, expected.unwrap_or(u32::MAX), "{address:#x}");
        segment.write(address, &data);
    }
}

#[test]
fn functions_see_aligned_cycles_only() {
    let (segment, functions) = setup(1);
    for (register, width, expected) in [
        (0x10, 4, &[(0x10, 4)][..]),
        (0x10, 8, &[(0x10, 4), (0x14, 4)]),
        (0x11, 4, &[(0x11, 1), (0x12, 2), (0x14, 1)]),
        (0x12, 4, &[(0x12, 2), (0x14, 2)]),
        (0x13, 1, &[(0x13, 1)]),
        (0x10, 3, &[(0x10, 2), (0x12, 1)]),
        (0x10, 0, &[]),
        // The rest is function 1, which is not there.
        (0xffe, 4, &[(0xffe, 2)]),
        (0xffc, 8, &[(0xffc, 4)]),
    ] {
        let mut data = vec![0; width];
        segment.read(at(1, register), &mut data);
        segment.write(at(1, register), &data);
        let seen = std::mem::take(&mut *functions[0].widths.lock().unwrap());
        let twice = [expected, expected].concat();
        assert_eq!(seen, twice, "{width} bytes at {register:#x}");
    }
}

#[test]
fn bars_answer_while_decoding_is_on_and_follow_the_guest() {
    let (segment, functions) = setup(1);
    assert_eq!(look(&segment, LOW), 0xff);
    segment.write(at(1, COMMAND), &[0b10]);
    assert_eq!(functions[0].heard(), [(0, Some(LOW)), (2, Some(HIGH))]);
    assert_eq!((look(&segment, LOW), look(&segment, HIGH)), (0, 2));

    segment.write(at(1, BAR0), &0xd000_0000_u32.to_le_bytes());
    assert_eq!(functions[0].heard(), [(0, None), (0, Some(0xd000_0000))]);
    assert_eq!(look(&segment, LOW), 0xff);
    assert_eq!(look(&segment, 0xd000_1fff), 0);

    segment.write(at(1, COMMAND), &[0]);
    assert_eq!(functions[0].heard(), [(2, None), (0, None)]);
    assert_eq!(look(&segment, 0xd000_0000), 0xff);

    // Sizing, with decoding off.
    segment.write(at(1, BAR2), &[0xff; 8]);
    segment.write(at(1, BAR2), &(HIGH + 0x1_0000).to_le_bytes());
    assert_eq!(functions[0].heard(), []);
    segment.write(at(1, COMMAND), &[0b10]);
    assert_eq!(look(&segment, HIGH + 0x1_0000), 2);
}

#[test]
fn a_bar_outside_the_windows_does_not_answer() {
    let (segment, functions) = setup(1);
    for address in [
        0_u32,
        0x0010_0000,
        0xbfff_e000,
        0xe000_0000,
        0xfee0_0000,
        0xffff_ffff,
    ] {
        segment.write(at(1, COMMAND), &[0]);
        segment.write(at(1, BAR0), &address.to_le_bytes());
        functions[0].heard();
        segment.write(at(1, COMMAND), &[0b10]);
        assert_eq!(functions[0].heard(), [(2, Some(HIGH))], "{address:#x}");
        let here = u64::from(address & !0x1fff);
        assert_eq!(look(&segment, here), 0xff, "{address:#x}");
    }
}

#[test]
fn bars_on_top_of_each_other_answer_once_the_way_is_free() {
    let (segment, functions) = setup(2);
    let (first, second) = (LOW as u32, LOW as u32 + 0x2000);
    segment.write(at(1, COMMAND), &[0b10]);
    segment.write(at(2, COMMAND), &[0b10]);
    functions.iter().for_each(|function| drop(function.heard()));

    segment.write(at(2, BAR0), &first.to_le_bytes());
    assert_eq!(functions[1].heard(), [(0, None)]);
    segment.write(at(1, BAR0), &second.to_le_bytes());
    assert_eq!(
        functions[0].heard(),
        [(0, None), (0, Some(u64::from(second)))]
    );
    assert_eq!(functions[1].heard(), [(0, Some(u64::from(first)))]);

    // A BAR on top of its own function's other one.
    segment.write(at(1, BAR2), &u64::from(second).to_le_bytes());
    assert_eq!(look(&segment, u64::from(second)), 0);
}

#[test]
fn functions_share_slots_where_there_are_too_few() {
    for (count, alone, places) in [
        (31, true, &[(1, 0), (31, 0)][..]),
        (32, false, &[(1, 0), (1, 7), (2, 0), (4, 7)]),
        (33, false, &[(1, 0), (4, 7), (5, 0)]),
        (248, false, &[(1, 0), (31, 7)]),
    ] {
        let (segment, _functions) = setup(count);
        let ids = |place: u64| {
            let mut data = [0; 4];
            segment.read(place << 12, &mut data);
            u32::from_le_bytes(data)
        };
        let there: Vec<_> = (8..256).filter(|place| ids(*place) != u32::MAX).collect();
        let place = |number: u64| if alone { number * 8 } else { number + 7 };
        let expected: Vec<_> = (1..=count as u64).map(place).collect();
        assert_eq!(there, expected, "{count} functions");
        for (slot, function) in places {
            assert!(there.contains(&(slot * 8 + function)), "{slot}.{function}");
        }
        assert!(
            (1..8).all(|place| ids(place) == u32::MAX),
            "beside the host bridge"
        );
    }
}

#[test]
fn function_0_tells_of_those_beside_it() {
    for (count, slot, function, expected) in [
        (31, 1, 0, 0),
        (33, 0, 0, 0),
        (33, 1, 0, 0x80),
        (33, 1, 1, 0),
        (33, 4, 0, 0x80),
        (33, 5, 0, 0),
        (34, 5, 0, 0x80),
    ] {
        let (segment, _functions) = setup(count);
        let at = at(slot, 0) | function << 12;
        for (register, width) in [(0x0c, 4), (0x0e, 1), (0x0e, 2), (0x0d, 2)] {
            let mut data = vec![0; width];
            segment.read(at | register, &mut data);
            let header_type = data[0x0e - register as usize];
            assert_eq!(header_type, expected, "{slot}.{function} of {count}");
        }
        let mut neighbours = [0; 1];
        for register in [0x0d, 0x0f] {
            segment.read(at | register, &mut neighbours);
            assert_eq!(neighbours, [0], "{register:#x}");
        }
    }
}

#[test]
fn a_bus_has_an_end() {
    let (mut segment, functions) = setup(248);
    let one_more = segment.add(functions[0].clone());
    assert!(matches!(one_more, Err(SegmentError::NoPlace)));
}
