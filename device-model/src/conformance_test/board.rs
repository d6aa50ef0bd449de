// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A device on a bench: configuration space and BAR 2 as a guest reaches them, and what comes out.

use lockstorm_abi::identity::{MSIX_BAR, REGISTER_BAR};
use lockstorm_abi::registers::{CONTROL_RESET, Register};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::{Config, Evgen, MsiMessage, MsiSink};

pub const COMMAND: u16 = 0x04;
pub const COMMAND_MEMORY: u8 = 1 << 1;
pub const COMMAND_BUS_MASTER: u8 = 1 << 2;
const CAPABILITY_POINTER: u16 = 0x34;
const MSIX_ID: u8 = 0x11;
const ADVANCED_FEATURES_ID: u8 = 0x13;
const INITIATE_FLR: u8 = 1;

pub const ENABLE: u16 = 1 << 15;
pub const FUNCTION_MASK: u16 = 1 << 14;

/// Remembers what the device asked of its host.
#[derive(Default)]
pub struct Recorder {
    sent: Vec<(u16, MsiMessage)>,
    pub settled: Vec<u16>,
    pub released: usize,
}

impl MsiSink for Recorder {
    fn raise(&mut self, vector: u16, message: MsiMessage) {
        self.sent.push((vector, message));
    }
    fn settle(&mut self, vector: u16) {
        self.settled.push(vector);
    }
    fn release(&mut self) {
        self.released += 1;
    }
}

/// The message that a running board has set up for `vector`.
pub fn message(vector: u16) -> MsiMessage {
    MsiMessage {
        address: 0x1_fee0_0000 | u64::from(vector) << 12,
        data: 0x4000 | u32::from(vector),
    }
}

pub struct Board {
    device: Evgen<Recorder>,
    memory: GuestMemoryMmap,
    pub vectors: u16,
}

impl Board {
    /// At power-on, with a single ring.
    pub fn new(vectors: u16) -> Self {
        let config = Config {
            rings: 1,
            vectors: Some(vectors),
            ..Config::default()
        };
        Self {
            device: Evgen::new(config, Recorder::default()).unwrap(),
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap(),
            vectors,
        }
    }

    /// With every vector set up and unmasked, MSI-X enabled.
    pub fn running(vectors: u16) -> Self {
        let mut board = Self::new(vectors);
        board.set_up();
        board
    }

    pub fn set_up(&mut self) {
        self.config_write(COMMAND, &[COMMAND_MEMORY | COMMAND_BUS_MASTER]);
        self.control(ENABLE);
        for vector in 0..self.vectors {
            let MsiMessage { address, data } = message(vector);
            let entry = u64::from(vector) * 16;
            self.write(entry, &address.to_le_bytes());
            self.write(entry + 8, &u64::from(data).to_le_bytes());
        }
        assert_eq!(self.sent(), []);
    }

    pub fn config_read<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut data = [0xa5; N];
        self.device.config_read(offset, &mut data, 0);
        data
    }

    pub fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.device.config_write(&self.memory, offset, data, 0);
    }

    /// Where the capability with the ID `id` is.
    fn capability(&self, id: u8) -> u16 {
        let mut at = self.config_read::<1>(CAPABILITY_POINTER)[0];
        while at != 0 {
            let [found, next] = self.config_read(at.into());
            if found == id {
                return at.into();
            }
            at = next;
        }
        panic!("there is no capability {id:#x}");
    }

    pub fn msix_capability(&self) -> u16 {
        self.capability(MSIX_ID)
    }

    /// Message Control.
    pub fn message_control(&self) -> u16 {
        u16::from_le_bytes(self.config_read(self.msix_capability() + 2))
    }

    /// Writes Message Control.
    pub fn control(&mut self, value: u16) {
        self.config_write(self.msix_capability() + 2, &value.to_le_bytes());
    }

    pub fn function_level_reset(&mut self) {
        let control = self.capability(ADVANCED_FEATURES_ID) + 4;
        self.config_write(control, &[INITIATE_FLR]);
    }

    /// The reset in the device's own registers.
    pub fn device_reset(&mut self) {
        let (offset, value) = (Register::Control.offset(0) as u64, CONTROL_RESET);
        self.device
            .bar_write(&self.memory, REGISTER_BAR, offset, &value.to_le_bytes(), 0);
    }

    /// Reads from BAR 2.
    pub fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0xa5; N];
        self.read_into(offset, &mut data);
        data
    }

    pub fn read_into(&self, offset: u64, data: &mut [u8]) {
        self.device.bar_read(MSIX_BAR, offset, data, 0);
    }

    pub fn read32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(offset))
    }

    pub fn read64(&self, offset: u64) -> u64 {
        u64::from_le_bytes(self.read(offset))
    }

    /// Writes to BAR 2.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.device
            .bar_write(&self.memory, MSIX_BAR, offset, data, 0);
    }

    /// Sets or clears a vector's mask bit.
    pub fn mask(&mut self, vector: u16, masked: bool) {
        let control = u64::from(vector) * 16 + 12;
        self.write(control, &u32::from(masked).to_le_bytes());
    }

    pub fn is_masked(&self, vector: u16) -> bool {
        let control = self.read32(u64::from(vector) * 16 + 12);
        assert!(
            control <= 1,
            "reserved bits of Vector Control: {control:#x}"
        );
        control == 1
    }

    /// Where the pending bits are.
    pub fn pending_offset(&self) -> u64 {
        let offset = u32::from_le_bytes(self.config_read(self.msix_capability() + 8));
        u64::from(offset & !7)
    }

    /// The vectors whose pending bits are set.
    pub fn pending(&self) -> Vec<u16> {
        let bit = |vector: u16| {
            let word = self.read64(self.pending_offset() + u64::from(vector / 64) * 8);
            word >> (vector % 64) & 1 == 1
        };
        (0..self.vectors).filter(|&vector| bit(vector)).collect()
    }

    /// The device has a reason to interrupt.
    pub fn trigger(&mut self, vector: u16) {
        self.device.trigger(vector);
    }

    pub fn hold(&mut self, vector: u16, held: bool) {
        self.device.hold_vector(vector, held).unwrap();
    }

    pub fn recorder(&mut self) -> &mut Recorder {
        self.device.sink_mut()
    }

    /// What was sent since the last look.
    pub fn sent(&mut self) -> Vec<(u16, MsiMessage)> {
        std::mem::take(&mut self.device.sink_mut().sent)
    }

    /// Size of BAR 2.
    pub fn bar_size(&self) -> u64 {
        self.device.bars()[1].size
    }
}
