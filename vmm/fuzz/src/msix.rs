// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use arbitrary::{Arbitrary, Unstructured};
use lockstorm::machine::interrupts::{InterruptRouter, KvmMsiSink};
use lockstorm_device_model::abi::identity::{MSIX_BAR, REGISTER_BAR};
use lockstorm_device_model::abi::registers::Register;
use lockstorm_device_model::{Config, Evgen, Fault, MsiMessage, MsiSink};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::chip::{Chip, Handle};
use crate::device::{Raised, steps};

/// What changes the state of a vector or asks for it.
#[derive(Arbitrary, Debug)]
enum Touch {
    /// A field of a table entry, by 4 bytes.
    Entry {
        vector: u16,
        field: u8,
        value: u32,
    },
    /// Half a table entry.
    Half {
        vector: u16,
        upper: bool,
        value: u64,
    },
    /// An access of any kind, aligned or not.
    Write {
        offset: u16,
        data: [u8; 8],
        width: u8,
    },
    Read {
        offset: u16,
        width: u8,
    },
    /// Message Control, or a part of it.
    Control {
        enable: bool,
        mask: bool,
        width: u8,
    },
    BusMaster(bool),
    Hold {
        vector: u16,
        held: bool,
    },
    Trigger {
        vector: u16,
    },
    TriggerMany {
        vector: u16,
        count: u8,
    },
    Reset,
    FunctionLevelReset,
}

/// A vector as PCI Local Bus 3.0, §6.8.2, has it.
#[derive(Clone)]
struct Vector {
    words: [u32; 3],
    masked: bool,
    held: bool,
    pending: bool,
}

/// All that there is to MSI-X, in as few words as possible.
struct Model {
    vectors: Vec<Vector>,
    enabled: bool,
    function_masked: bool,
    bus_master: bool,
    sent: Vec<(u16, MsiMessage)>,
}

impl Model {
    fn new(vectors: usize) -> Self {
        let vector = Vector {
            words: [0; 3],
            masked: true,
            held: false,
            pending: false,
        };
        Self {
            vectors: vec![vector; vectors],
            enabled: false,
            function_masked: false,
            bus_master: false,
            sent: Vec::new(),
        }
    }

    fn open(&self) -> bool {
        self.enabled && !self.function_masked && self.bus_master
    }

    /// Sends what is pending and may be sent.
    fn settle(&mut self) {
        let open = self.open();
        for (number, vector) in (0..).zip(&mut self.vectors) {
            if vector.pending && open && !vector.masked && !vector.held {
                vector.pending = false;
                let [low, high, data] = vector.words;
                let address = u64::from(high) << 32 | u64::from(low);
                self.sent.push((number, MsiMessage { address, data }));
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len() as u64) {
            return;
        }
        for (word, bytes) in (offset / 4..).zip(data.as_chunks::<4>().0) {
            if let Some(vector) = self.vectors.get_mut(word as usize / 4) {
                let value = u32::from_le_bytes(*bytes);
                match vector.words.get_mut(word as usize % 4) {
                    Some(word) => *word = value,
                    None => vector.masked = value & 1 != 0,
                }
            }
        }
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !matches!(data.len(), 4 | 8) || !offset.is_multiple_of(data.len() as u64) {
            return;
        }
        for (word, bytes) in (offset as usize / 4..).zip(data.as_chunks_mut::<4>().0) {
            *bytes = self.word(word).to_le_bytes();
        }
    }

    fn word(&self, word: usize) -> u32 {
        if let Some(vector) = self.vectors.get(word / 4) {
            let mask = u32::from(vector.masked);
            return vector.words.get(word % 4).copied().unwrap_or(mask);
        }
        let pending = (self.vectors.len() * 16).next_multiple_of(0x1000) / 4;
        let Some(first) = word.checked_sub(pending).map(|word| word * 32) else {
            return 0;
        };
        let bits = self.vectors.iter().skip(first).take(32).enumerate();
        bits.map(|(bit, vector)| u32::from(vector.pending) << bit)
            .sum()
    }
}

/// Remembers what is sent, and sends it as the machine does.
struct Tee(Raised, KvmMsiSink);

impl MsiSink for Tee {
    fn raise(&mut self, vector: u16, message: MsiMessage) {
        self.0.borrow_mut().push((vector, message));
        self.1.raise(vector, message);
    }

    fn settle(&mut self, vector: u16) {
        self.1.settle(vector);
    }

    fn release(&mut self) {
        self.1.release();
    }
}

struct Machine {
    device: Evgen<Tee>,
    memory: GuestMemoryMmap,
    raised: Raised,
    router: Arc<InterruptRouter>,
    chip: Arc<Mutex<Chip>>,
    model: Model,
}

/// MSI-X against a model of it, and the machine's interrupt routes against what was sent: no message
/// is lost, none comes that should not, and none with what the table does not hold.
pub fn msix(data: &[u8]) {
    let mut plan = Unstructured::new(data);
    let sizes = [2, 3, 32, 33, 64, 65, 255, 256, 257, 2047, 2048];
    let Ok(&vectors) = plan.choose(&sizes) else {
        return;
    };
    let mut machine = Machine::new(vectors);
    for touch in steps::<Touch>(&mut plan) {
        machine.take(&touch);
        machine.check();
    }
    drop(machine.device);
    machine.chip.lock().unwrap().assert_empty();
}

impl Machine {
    fn new(vectors: u16) -> Self {
        let chip = Arc::new(Mutex::new(Chip::default()));
        let router = Arc::new(InterruptRouter::new(Arc::new(Handle(Arc::clone(&chip)))));
        let raised: Raised = Rc::new(RefCell::default());
        let sink = Tee(Rc::clone(&raised), KvmMsiSink::new(Arc::clone(&router)));
        let config = Config {
            rings: 1,
            vectors: Some(vectors),
            ..Config::default()
        };
        Self {
            device: Evgen::new(config, sink).unwrap(),
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap(),
            raised,
            router,
            chip,
            model: Model::new(vectors.into()),
        }
    }

    fn take(&mut self, touch: &Touch) {
        let vectors = self.model.vectors.len() as u16;
        match *touch {
            Touch::Entry {
                vector,
                field,
                value,
            } => {
                let offset = u64::from(vector % vectors) * 16 + u64::from(field % 4) * 4;
                self.write(offset, &value.to_le_bytes());
            }
            Touch::Half {
                vector,
                upper,
                value,
            } => {
                let offset = u64::from(vector % vectors) * 16 + u64::from(upper) * 8;
                self.write(offset, &value.to_le_bytes());
            }
            Touch::Write {
                offset,
                data,
                width,
            } => {
                self.write(offset.into(), &data[..usize::from(width % 9)]);
            }
            Touch::Read { offset, width } => self.read(offset.into(), (width % 9).into()),
            Touch::Control {
                enable,
                mask,
                width,
            } => {
                let high = u8::from(enable) << 7 | u8::from(mask) << 6;
                match width % 3 {
                    0 => self.config(0x43, &[high]),
                    1 => self.config(0x42, &[0xff, high | 0x3f]),
                    _ => self.config(0x40, &[0, 0xff, 0, high]),
                }
                self.model.enabled = enable;
                self.model.function_masked = mask;
            }
            Touch::BusMaster(on) => {
                self.config(0x04, &[u8::from(on) << 2]);
                self.model.bus_master = on;
            }
            Touch::Hold { vector, held } => {
                let known = self
                    .device
                    .hold_vector(vector % (vectors + 2), held)
                    .is_ok();
                let of = self
                    .model
                    .vectors
                    .get_mut(usize::from(vector % (vectors + 2)));
                assert_eq!(known, of.is_some());
                if let Some(of) = of {
                    of.held = held;
                }
            }
            Touch::Trigger { vector } => self.trigger(vector % vectors),
            Touch::TriggerMany { vector, count } => {
                for vector in (vector % vectors..vectors).take(count.into()) {
                    self.trigger(vector);
                }
            }
            Touch::Reset => {
                let (offset, value) = (Register::Control.offset(0) as u64, [2, 0, 0, 0]);
                self.device
                    .bar_write(&self.memory, REGISTER_BAR, offset, &value, 0);
                self.model
                    .vectors
                    .iter_mut()
                    .for_each(|vector| vector.pending = false);
            }
            Touch::FunctionLevelReset => {
                self.config(0x54, &[1]);
                // Holds are the host's, and stay.
                let held = self.model.vectors.iter().map(|vector| vector.held);
                let held: Vec<_> = held.collect();
                self.model = Model::new(vectors.into());
                for (vector, held) in self.model.vectors.iter_mut().zip(held) {
                    vector.held = held;
                }
            }
        }
        self.model.settle();
    }

    fn config(&mut self, offset: u16, data: &[u8]) {
        self.device.config_write(&self.memory, offset, data, 0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.device
            .bar_write(&self.memory, MSIX_BAR, offset, data, 0);
        self.model.write(offset, data);
    }

    fn read(&self, offset: u64, width: usize) {
        let (mut found, mut expected) = ([0xa5; 8], [0xa5; 8]);
        self.device
            .bar_read(MSIX_BAR, offset, &mut found[..width], 0);
        self.model.read(offset, &mut expected[..width]);
        assert_eq!(found, expected, "{width} bytes at {offset:#x}");
    }

    /// Raises a vector by way of ring 0, which may have any.
    fn trigger(&mut self, vector: u16) {
        let offset = Register::RingVector.offset(0) as u64;
        let value = u32::from(vector).to_le_bytes();
        self.device
            .bar_write(&self.memory, REGISTER_BAR, offset, &value, 0);
        let fault = Fault::SpuriousInterrupt;
        self.device
            .inject_fault(&self.memory, 0, fault, 1, 0)
            .unwrap();
        self.model.vectors[usize::from(vector)].pending = true;
        self.model.settle();
    }

    fn check(&mut self) {
        let sent = std::mem::take(&mut self.model.sent);
        assert_eq!(self.raised.take(), sent);
        let pending = (self.model.vectors.len() as u64 * 16).next_multiple_of(0x1000);
        for word in 0..self.model.vectors.len().div_ceil(64) as u64 {
            self.read(pending + word * 8, 8);
        }
        // What KVM would not route is lost, and counted.
        let chip = &mut *self.chip.lock().unwrap();
        let mut expected: Vec<_> = sent.iter().map(|(_, message)| *message).collect();
        expected.retain(|message| !Chip::refuses(*message));
        chip.lost += sent.len() - expected.len();
        assert_eq!(self.router.lost().count(), chip.lost as u64);
        let mut arrived = chip.arrived();
        let key = |message: &MsiMessage| (message.address, message.data);
        arrived.sort_unstable_by_key(key);
        expected.sort_unstable_by_key(key);
        assert_eq!(arrived, expected);
        if !self.model.open() {
            chip.assert_empty();
        }
    }
}
