// SPDX-License-Identifier: Apache-2.0 OR MIT

//! PCI Express root ports, each with a slot into which a device can be put while the machine runs
//! (native hot-plug; PCI Express Base 5.0, §6.7).
//!
//! A guest learns of it from the port alone: by Slot Status and Link Status, and by an interrupt. A
//! device that is put in has its link up at once, for which Linux waits neither for the button to be
//! pressed nor for the power to be on. To take a device out the host asks first, by pressing the
//! attention button; the guest lets go of it by turning the power light off. Linux does so 5 seconds
//! later, in which time a second press would have been a change of mind (§6.7.1.5). Without asking,
//! the device is gone, and the guest hears of it.
//!
//! What a device behind a port writes, to memory or as interrupts, is passed on whatever the port's
//! Bus Master bit says.

mod registers;
mod slot;

use std::ptr::addr_eq;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstorm_device_model::MsiSink;

use super::{MemoryBar, PciFunction};
pub use registers::Light;
pub use slot::AskError;
pub(super) use slot::Asked;
use slot::Slot;

/// A slot as one sees it who stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Whether there is a device in it.
    pub occupied: bool,
    /// Whether the guest has taken it into use, and not let go of it.
    pub used: bool,
    /// Whether the guest was asked to let go of it, and has not yet.
    pub leaving: bool,
    /// The power light: on while the guest uses a device, blinking while it is about to begin or to
    /// stop. Unknown where the port is another VMM's.
    pub power: Option<Light>,
    /// The attention light, which is on when the guest had trouble; likewise.
    pub attention: Option<Light>,
    /// The bus that the device is on, as its device 0, if the guest has given it a number.
    pub bus: Option<u8>,
}

/// What follows from a write to a port for its segment.
pub(super) struct Written {
    /// Other BARs may answer than before.
    pub decoding: bool,
    /// The guest has let go of this device, which the host wants to take out.
    pub released: Option<Arc<dyn PciFunction>>,
}

/// A root port and what is behind it.
///
/// The lock covers the port's registers and which device is in the slot. vCPUs take it in a trap, the
/// control socket's thread for a command, both also with the segment's lock held. Inside it the device
/// may be locked, to be reset, and the interrupt router; no other.
pub struct RootPort {
    number: u8,
    state: Mutex<State>,
}

struct State {
    slot: Slot,
    device: Option<Arc<dyn PciFunction>>,
}

impl RootPort {
    /// The port to slot `number`, which is empty. It sends its interrupts through `sink`.
    pub fn new(number: u8, sink: Box<dyn MsiSink + Send>) -> Self {
        let slot = Slot::new(number, sink);
        Self {
            number,
            state: Mutex::new(State { slot, device: None }),
        }
    }

    /// The number of its slot, as the guest is told it.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// What is to be seen of the slot.
    pub fn view(&self) -> SlotView {
        let state = self.lock();
        let registers = state.slot.registers();
        SlotView {
            occupied: state.device.is_some(),
            used: state.slot.used(),
            leaving: state.slot.leaving(),
            power: Some(registers.power_light()),
            attention: Some(registers.attention_light()),
            bus: registers.secondary_bus(),
        }
    }

    /// Reads configuration space of the port itself.
    pub(super) fn config_read(&self, register: u16, data: &mut [u8]) {
        self.lock().slot.registers().read(register, data);
    }

    /// Writes configuration space of the port itself. A device whose link goes down is reset before
    /// anybody else reaches the port.
    pub(super) fn config_write(&self, register: u16, data: &[u8]) -> Written {
        let mut state = self.lock();
        let effects = state.slot.write(register, data);
        if let (true, Some(device)) = (effects.link_down, &state.device) {
            device.reset();
        }
        Written {
            decoding: effects.forwarding || effects.link_down,
            released: state.device.clone().filter(|_| effects.released),
        }
    }

    /// Who answers to configuration accesses to device 0 on bus `bus`; nobody if that is not behind
    /// this port, or the link is down.
    pub(super) fn device_on(&self, bus: u8) -> Option<Arc<dyn PciFunction>> {
        let state = self.lock();
        let registers = state.slot.registers();
        let here = registers.secondary_bus() == Some(bus) && registers.link_active();
        state.device.clone().filter(|_| here)
    }

    /// The device behind the port with those of its BARs that the port passes accesses on to. The
    /// bus is 0 if the guest has given it no number.
    pub(super) fn reachable(&self) -> Option<(u8, Arc<dyn PciFunction>, Vec<MemoryBar>)> {
        let (device, bus, forwarding) = {
            let state = self.lock();
            let registers = state.slot.registers();
            let bus = registers.secondary_bus().unwrap_or(0);
            (state.device.clone()?, bus, registers.forwarding())
        };
        let mut bars = device.bars();
        bars.retain(|bar| forwarding.contains(bar.address, bar.size));
        Some((bus, device, bars))
    }

    /// Puts a device into the slot; false if there is one already.
    pub(super) fn put_in(&self, device: Arc<dyn PciFunction>) -> bool {
        let mut state = self.lock();
        if state.device.is_some() {
            return false;
        }
        state.device = Some(device);
        state.slot.put_in();
        true
    }

    /// The device in the slot.
    pub(super) fn device(&self) -> Option<Arc<dyn PciFunction>> {
        self.lock().device.clone()
    }

    /// Takes `device` out of the slot, if it is still there.
    pub(super) fn take_out(&self, device: &Arc<dyn PciFunction>) {
        let mut state = self.lock();
        if let Some(here) = &state.device
            && addr_eq(Arc::as_ptr(here), Arc::as_ptr(device))
        {
            state.device = None;
            state.slot.take_out();
        }
    }

    /// Asks the guest to let go of the device.
    pub(super) fn ask(&self) -> Result<Asked, AskError> {
        self.lock().slot.ask()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
