// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The vectors between a device and a KVM that are made for the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use vmm_sys_util::errno;

use super::*;
use crate::machine::interrupts::{InterruptRouter, IrqChip, Route};

/// In KVM's place: takes what was written to the eventfds that it has been given.
#[derive(Default)]
struct Chip {
    routes: Mutex<BTreeMap<u32, u32>>,
    irqfds: Mutex<BTreeMap<u32, EventFd>>,
    refuse: Mutex<bool>,
}

impl Chip {
    /// The messages that have come since, by their data and how often.
    fn raised(&self) -> Vec<(u32, u64)> {
        let (routes, irqfds) = (self.routes.lock().unwrap(), self.irqfds.lock().unwrap());
        let raised = irqfds.iter();
        raised
            .filter_map(|(gsi, trigger)| Some((routes[gsi], trigger.read().ok()?)))
            .collect()
    }
}

impl IrqChip for Chip {
    fn set_routes(&self, routes: &[Route]) -> Result<(), errno::Error> {
        if *self.refuse.lock().unwrap() {
            return Err(errno::Error::new(libc::EINVAL));
        }
        let messages = routes.iter().filter_map(|route| match route {
            Route::Message { gsi, message } => Some((*gsi, message.data)),
            Route::Pin { .. } => None,
        });
        *self.routes.lock().unwrap() = messages.collect();
        Ok(())
    }

    fn assign(&self, gsi: u32, trigger: &EventFd) -> Result<(), errno::Error> {
        let trigger = trigger.try_clone().unwrap();
        assert!(self.irqfds.lock().unwrap().insert(gsi, trigger).is_none());
        Ok(())
    }

    fn deassign(&self, gsi: u32, _trigger: &EventFd) -> Result<(), errno::Error> {
        assert!(self.irqfds.lock().unwrap().remove(&gsi).is_some());
        Ok(())
    }

    fn signal(&self, _message: MsiMessage) -> Result<(), errno::Error> {
        unreachable!("an assigned device's interrupts do not come to us")
    }
}

/// In the device's place: its eventfds while MSI-X is on.
#[derive(Default)]
struct Device {
    triggers: Mutex<Vec<EventFd>>,
    /// The most vectors that it gets.
    most: usize,
}

impl Device {
    fn interrupt(&self, vector: usize) {
        self.triggers.lock().unwrap()[vector].write(1).unwrap();
    }

    fn is_on(&self) -> bool {
        !self.triggers.lock().unwrap().is_empty()
    }
}

impl Source for Device {
    fn enable(&self, triggers: &[EventFd]) -> Result<(), String> {
        // As the kernel does: one that cannot be had takes the others along.
        self.triggers.lock().unwrap().clear();
        if triggers.len() > self.most {
            return Err("no vectors left".to_owned());
        }
        let triggers = triggers.iter().map(|trigger| trigger.try_clone().unwrap());
        *self.triggers.lock().unwrap() = triggers.collect();
        Ok(())
    }

    fn disable(&self) -> Result<(), String> {
        self.triggers.lock().unwrap().clear();
        Ok(())
    }
}

const VECTORS: u16 = 70;

fn setup() -> (Arc<Chip>, Device, Msix) {
    let chip = Arc::new(Chip::default());
    let router = Arc::new(InterruptRouter::new(chip.clone()));
    let msix = Msix::new(VECTORS, KvmMsiSink::new(router));
    let device = Device {
        most: VECTORS.into(),
        ..Device::default()
    };
    (chip, device, msix)
}

/// Writes the entry of a vector, as a driver does.
fn program(msix: &mut Msix, device: &Device, vector: u64, data: u32, masked: bool) {
    let entry = [0xfee0_1000, 0, data, u32::from(masked)];
    for (place, word) in (0..).zip(entry) {
        msix.write_table(vector * 16 + place * 4, &word.to_le_bytes(), device);
    }
}

fn pending(msix: &Msix) -> Vec<u64> {
    let mut bytes = vec![0xff; msix.pending_size() as usize];
    msix.read_pending(0, &mut bytes);
    let words = bytes.chunks_exact(8);
    words
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

#[test]
fn an_interrupt_goes_by_its_vectors_message() {
    let (chip, device, mut msix) = setup();
    assert_eq!((msix.table_size(), msix.pending_size()), (70 * 16, 16));
    program(&mut msix, &device, 0, 0x30, false);
    program(&mut msix, &device, 69, 0x31, false);
    assert!(!device.is_on());
    msix.set_control(true, false, &device);
    device.interrupt(69);
    device.interrupt(0);
    device.interrupt(0);
    assert_eq!(chip.raised(), [(0x30, 2), (0x31, 1)]);
    // Another message for it, without masking it before.
    msix.write_table(69 * 16 + 8, &0x55_u32.to_le_bytes(), &device);
    device.interrupt(69);
    assert_eq!(chip.raised(), [(0x55, 1)]);
    msix.set_control(false, false, &device);
    assert!(!device.is_on() && chip.irqfds.lock().unwrap().is_empty());
    assert!(chip.routes.lock().unwrap().is_empty());
}

#[test]
fn what_is_masked_pends_and_comes_once_when_unmasked() {
    let (chip, device, mut msix) = setup();
    msix.set_control(true, false, &device);
    program(&mut msix, &device, 3, 0x33, false);
    program(&mut msix, &device, 65, 0x65, false);
    program(&mut msix, &device, 3, 0x33, true);
    msix.set_control(true, true, &device);
    device.interrupt(3);
    device.interrupt(3);
    device.interrupt(65);
    assert_eq!(chip.raised(), []);
    assert_eq!(pending(&msix), [1 << 3, 1 << 1]);
    // The function first: the vector's own mask stays.
    msix.set_control(true, false, &device);
    assert_eq!(chip.raised(), [(0x65, 1)]);
    assert_eq!(pending(&msix), [1 << 3, 0]);
    program(&mut msix, &device, 3, 0x34, false);
    assert_eq!(chip.raised(), [(0x34, 1)]);
    assert_eq!(pending(&msix), [0, 0]);
    // Masked and unmasked again, it does not come again.
    program(&mut msix, &device, 3, 0x34, true);
    program(&mut msix, &device, 3, 0x34, false);
    assert_eq!(chip.raised(), []);
}

#[test]
fn a_reset_masks_all_and_forgets_what_pends() {
    let (chip, device, mut msix) = setup();
    program(&mut msix, &device, 0, 0x30, true);
    msix.set_control(true, false, &device);
    device.interrupt(0);
    msix.reset(&device);
    assert!(!device.is_on());
    let mut entry = [0xff; 16];
    msix.read_table(0, &mut entry);
    assert_eq!(entry, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    program(&mut msix, &device, 0, 0x30, false);
    msix.set_control(true, false, &device);
    assert_eq!((chip.raised(), pending(&msix)), (vec![], vec![0, 0]));
}

#[test]
fn the_host_is_asked_for_what_is_used() {
    let (chip, device, mut msix) = setup();
    msix.set_control(true, false, &device);
    assert_eq!(device.triggers.lock().unwrap().len(), 1);
    for (vector, vectors) in [(0, 1), (2, 4), (1, 4), (4, 8), (69, 70)] {
        program(&mut msix, &device, vector, 0x30, false);
        assert_eq!(device.triggers.lock().unwrap().len(), vectors, "{vector}");
    }
    // Those that were there before still work.
    device.interrupt(0);
    device.interrupt(69);
    assert_eq!(chip.raised(), [(0x30, 1), (0x30, 1)]);
}

#[test]
fn refusals_are_survived() {
    let (chip, mut device, mut msix) = setup();
    device.most = 0;
    program(&mut msix, &device, 1, 0x31, false);
    msix.set_control(true, false, &device);
    assert_eq!(pending(&msix), [0, 0]);
    msix.set_control(false, false, &device);
    device.most = 2;
    *chip.refuse.lock().unwrap() = true;
    msix.set_control(true, false, &device);
    device.interrupt(1);
    assert_eq!(pending(&msix), [1 << 1, 0]);
    *chip.refuse.lock().unwrap() = false;
    program(&mut msix, &device, 1, 0x32, false);
    assert_eq!(chip.raised(), [(0x32, 1)]);
    // The third one does not come, and the others stay.
    program(&mut msix, &device, 2, 0x33, false);
    device.interrupt(1);
    assert_eq!(chip.raised(), [(0x32, 1)]);
}

#[test]
fn the_table_takes_accesses_of_any_shape() {
    let (_chip, device, mut msix) = setup();
    let size = msix.table_size();
    for offset in [0, 1, 7, 15, 16, size - 1] {
        for length in [1, 2, 4, 8] {
            msix.write_table(offset, &vec![0xff; length], &device);
            msix.read_table(offset, &mut vec![0; length]);
            msix.read_pending(offset, &mut vec![0; length]);
        }
    }
    let mut entry = [0; 16];
    msix.read_table(0, &mut entry);
    let expected = [
        0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0,
    ];
    assert_eq!(entry, expected);
    msix.write_table(size * 9, &[0; 8], &device);
    msix.read_table(size * 9, &mut [0; 8]);
}
