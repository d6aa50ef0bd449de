// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Devices that are put into slots and taken out of them while the machine runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstorm_device_model::Config;
use thiserror::Error;

use super::evgen::{AddError, CommandError, EvgenHost, Wiring};
use crate::pci::{AskError, RootPort, Segment, SlotView};
use crate::qmp::QmpError;
use crate::socket_file::SocketError;

/// Why a device is not put in or taken out.
#[derive(Debug, Error)]
pub enum HotPlugError {
    /// There are no slots at all.
    #[error("the machine has no slots: start it with --ports 1 or more")]
    NoSlots,
    /// There is no such slot.
    #[error("there is no slot {slot}: the machine has slots 1 to {last}")]
    NoSuchSlot {
        /// What was asked for.
        slot: u8,
        /// The last one that there is.
        last: u8,
    },
    /// There is a device in the slot.
    #[error("slot {slot} is taken by device {device}: unplug that first")]
    Taken {
        /// The slot.
        slot: u8,
        /// What is in it.
        device: usize,
    },
    /// There is a device in every slot.
    #[error("all slots are taken, 1 to {last}: unplug a device first")]
    Full {
        /// The last one that there is.
        last: u8,
    },
    /// The device was there from the start.
    #[error("device {device} is not in a slot: it stays as long as the machine runs")]
    Fixed {
        /// Which one.
        device: usize,
    },
    /// There is no such device.
    #[error(transparent)]
    Device(#[from] CommandError),
    /// The device cannot be made.
    #[error(transparent)]
    Add(#[from] AddError),
    /// The guest cannot be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Another VMM cannot reach the device.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// QEMU does not do its part.
    #[error(transparent)]
    Qmp(#[from] QmpError),
}

/// A device and its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plugged {
    /// Number of the device, which no other has had.
    pub device: usize,
    /// Number of the slot, as the guest knows it.
    pub slot: u8,
}

/// A slot and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number, as the guest knows it.
    pub number: u8,
    /// The device in it.
    pub device: Option<usize>,
    /// What is to be seen of it.
    pub view: SlotView,
}

/// Puts devices into a machine's slots and takes them out.
pub trait HotPlug: Send + Sync {
    /// Makes a device and puts it into slot `slot`, or into the first one that is free.
    fn plug(
        &self,
        rings: Option<u8>,
        vectors: Option<u16>,
        slot: Option<u8>,
    ) -> Result<Plugged, HotPlugError>;

    /// Asks the guest to let go of a device, which is taken out as soon as it has. One that the guest
    /// has no use for is taken out at once.
    fn unplug(&self, device: usize) -> Result<(), HotPlugError>;

    /// Takes a device out without asking. When this returns, it is gone: it reads as ones, and neither
    /// writes memory nor interrupts any more.
    fn pull(&self, device: usize) -> Result<(), HotPlugError>;

    /// All slots.
    fn slots(&self) -> Vec<Slot>;
}

/// The machine's slots, and what a device is like that is put into one.
pub struct Slots {
    /// The root ports, with a slot each.
    pub segment: Arc<Segment>,
    /// Wires a device to the machine.
    pub wiring: Box<dyn Fn() -> Wiring + Send + Sync>,
    /// What a device is like unless asked for otherwise.
    pub usual: Config,
}

/// The slots of the machine that this program is. A machine without slots has none.
///
/// The lock covers which device was last put into each slot, so that to find a free slot and to fill
/// it is one step. Commands take it, in any thread; inside it all locks of the devices and of the PCI
/// segment are taken. A vCPU never takes it, not even one whose guest lets go of a device: which is
/// why a slot may be empty whatever is said here.
pub struct SegmentSlots {
    evgen: Arc<EvgenHost>,
    slots: Option<Slots>,
    last: Mutex<BTreeMap<u8, usize>>,
}

impl SegmentSlots {
    /// For devices of `evgen`, which `slots` wires to the machine.
    pub fn new(evgen: Arc<EvgenHost>, slots: Option<Slots>) -> Self {
        Self {
            evgen,
            slots,
            last: Mutex::default(),
        }
    }

    fn port_with(
        &self,
        last: &BTreeMap<u8, usize>,
        device: usize,
    ) -> Result<(&Segment, &RootPort), HotPlugError> {
        self.evgen.check(Some(&[device]))?;
        let fixed = HotPlugError::Fixed { device };
        let Some(slots) = &self.slots else {
            return Err(fixed);
        };
        let mut ports = slots.segment.ports();
        let port = ports.find(|port| last.get(&port.number()) == Some(&device));
        Ok((&slots.segment, port.ok_or(fixed)?))
    }

    fn last(&self) -> MutexGuard<'_, BTreeMap<u8, usize>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HotPlug for SegmentSlots {
    fn plug(
        &self,
        rings: Option<u8>,
        vectors: Option<u16>,
        slot: Option<u8>,
    ) -> Result<Plugged, HotPlugError> {
        let slots = self.slots.as_ref().ok_or(HotPlugError::NoSlots)?;
        let mut last = self.last();
        let port = free_port(&slots.segment, &last, slot)?;
        let config = Config {
            rings: rings.unwrap_or(slots.usual.rings),
            vectors: vectors.or(slots.usual.vectors),
            ..slots.usual
        };
        let (device, function) = self.evgen.add(config, (slots.wiring)())?;
        let slot = port.number();
        last.insert(slot, device);
        // Last of all, because from here on the guest may reach it.
        slots.segment.put_in(port, function);
        Ok(Plugged { device, slot })
    }

    fn unplug(&self, device: usize) -> Result<(), HotPlugError> {
        let last = self.last();
        let (segment, port) = self.port_with(&last, device)?;
        Ok(segment.ask(port)?)
    }

    fn pull(&self, device: usize) -> Result<(), HotPlugError> {
        let last = self.last();
        let (segment, port) = self.port_with(&last, device)?;
        segment.take_out(port);
        Ok(())
    }

    fn slots(&self) -> Vec<Slot> {
        let last = self.last();
        let slots = self.slots.iter();
        let ports = slots.flat_map(|slots| slots.segment.ports());
        ports
            .map(|port| {
                let (number, view) = (port.number(), port.view());
                let device = last.get(&number).copied().filter(|_| view.occupied);
                Slot {
                    number,
                    device,
                    view,
                }
            })
            .collect()
    }
}

/// The port to slot `slot`, or to any, if nothing is in it; `devices` were last put into slots.
fn free_port<'a>(
    segment: &'a Segment,
    devices: &BTreeMap<u8, usize>,
    slot: Option<u8>,
) -> Result<&'a RootPort, HotPlugError> {
    let last = segment.ports().map(RootPort::number).max();
    let last = last.ok_or(HotPlugError::NoSlots)?;
    let mut ports = segment.ports();
    let Some(slot) = slot else {
        let free = ports.find(|port| !port.view().occupied);
        return free.ok_or(HotPlugError::Full { last });
    };
    let port = ports.find(|port| port.number() == slot);
    let port = port.ok_or(HotPlugError::NoSuchSlot { slot, last })?;
    match devices.get(&slot) {
        Some(&device) if port.view().occupied => Err(HotPlugError::Taken { slot, device }),
        _ => Ok(port),
    }
}

#[cfg(test)]
#[path = "hot_plug_test.rs"]
mod tests;
#[cfg(test)]
pub use tests::with_slots;
