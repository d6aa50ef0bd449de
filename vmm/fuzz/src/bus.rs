// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Devices on a PCI bus without a machine around it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use lockstorm::machine::bus::Outcome;
use lockstorm::pci::{AddressWidth, MemoryBar, PciFunction};
use lockstorm_device_model::abi::identity::MSIX_BAR;
use lockstorm_device_model::{Config, ConfigOutcome, Evgen, MsiMessage, MsiSink};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Nobody hears its interrupts.
pub struct Deaf;

impl MsiSink for Deaf {
    fn raise(&mut self, _vector: u16, _message: MsiMessage) {}
    fn release(&mut self) {}
}

/// A device as a function, which checks what its segment tells it.
pub struct Function {
    id: u8,
    device: Mutex<Evgen<Deaf>>,
    memory: GuestMemoryMmap,
    /// Where each of the two BARs answers, as it was told.
    decoding: Mutex<[Option<u64>; 2]>,
    /// Reads of BARs and of configuration space say whose it is.
    probed: Arc<AtomicBool>,
    /// It was taken out of its slot, and must not be reached any more.
    gone: AtomicBool,
}

impl Function {
    pub fn new(id: u8, config: Config, probed: Arc<AtomicBool>) -> Self {
        Self {
            id,
            device: Mutex::new(Evgen::new(config, Deaf).unwrap()),
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap(),
            decoding: Mutex::default(),
            probed,
            gone: AtomicBool::new(false),
        }
    }

    /// What a probe of its configuration space reads in each byte.
    pub fn name(&self) -> u8 {
        self.tag(0xf)
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// What a probe of its BAR reads in each byte.
    pub fn tag(&self, bar: u8) -> u8 {
        self.id << 4 | bar
    }

    pub fn decoding(&self) -> [Option<u64>; 2] {
        *self.decoding.lock().unwrap()
    }

    fn device(&self) -> MutexGuard<'_, Evgen<Deaf>> {
        assert!(!self.is_gone(), "reached what was taken out");
        self.device.lock().unwrap()
    }
}

impl PciFunction for Function {
    fn config_read(&self, register: u16, data: &mut [u8]) {
        assert!(register < 4096);
        assert!([1, 2, 4].contains(&data.len()) && usize::from(register) % data.len() == 0);
        if self.probed.load(Ordering::Relaxed) {
            data.fill(self.name());
        } else {
            self.device().config_read(register, data, 0);
        }
    }

    fn config_write(&self, register: u16, data: &[u8]) -> ConfigOutcome {
        assert!(register < 4096);
        assert!([1, 2, 4].contains(&data.len()) && usize::from(register) % data.len() == 0);
        self.device().config_write(&self.memory, register, data, 0)
    }

    fn bars(&self) -> Vec<MemoryBar> {
        if self.is_gone() {
            return Vec::new();
        }
        let device = self.device();
        let enabled = device.memory_enabled();
        let bars = device.bars().into_iter();
        bars.map(|bar| MemoryBar {
            index: bar.index,
            address: bar.address,
            size: bar.size,
            width: match bar.index {
                MSIX_BAR => AddressWidth::Bits64,
                _ => AddressWidth::Bits32,
            },
            enabled,
        })
        .collect()
    }

    fn place_bar(&self, index: u8, address: u64) {
        self.device().place_bar(index, address);
    }

    fn decoding(&self, index: u8, address: Option<u64>) {
        let mut decoding = self.decoding.lock().unwrap();
        let here = &mut decoding[usize::from(index / 2)];
        assert_ne!(here.is_some(), address.is_some(), "told twice");
        *here = address;
    }

    fn reset(&self) {
        self.device().bus_reset(&self.memory, 0);
    }

    fn take_out(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    fn bar_read(&self, index: u8, offset: u64, data: &mut [u8]) {
        if self.probed.load(Ordering::Relaxed) {
            data.fill(self.tag(index));
        } else {
            self.device().bar_read(index, offset, data, 0);
        }
    }

    fn bar_write(&self, index: u8, offset: u64, data: &[u8]) -> Outcome {
        self.device()
            .bar_write(&self.memory, index, offset, data, 0);
        Outcome::Done
    }
}
