// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a port's registers, the device in its slot and the host's wishes make of each other.

use lockstorm_device_model::MsiSink;
use thiserror::Error;

use super::registers::{Event, Forwarding, Light, Registers};

/// The port's only interrupt.
const VECTOR: u16 = 0;

/// Why the guest cannot be asked to let go of a device.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AskError {
    /// It is on its way to take it or to let it go.
    #[error("the guest is busy with slot {slot}, by its power light; try again later")]
    Busy {
        /// Number of the slot.
        slot: u8,
    },
    /// It does not listen to the button.
    #[error(
        "the guest does not hear the attention button of slot {slot}: it has not enabled hot-plug \
         there; a surprise takes the device out all the same"
    )]
    Deaf {
        /// Number of the slot.
        slot: u8,
    },
}

/// What came of asking the guest to let go of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pci) enum Asked {
    /// It has been asked. [`Effects::released`] tells when it has let go.
    Waiting,
    /// It has no use for the device: the power light is off.
    Unused,
}

/// What follows from a write for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// Other accesses to memory are passed on than before.
    pub forwarding: bool,
    /// The link went down, which resets what is behind it.
    pub link_down: bool,
    /// The guest has let go of the device that the host wants to take out.
    pub released: bool,
}

/// A port with a slot, in which there is a device or not.
///
/// The link is up as long as there is a device and the guest lets it. The interrupt is as §6.7.3.4
/// has it for MSI: one message each time that there begin to be events which the guest wants to hear
/// of. So it must have cleared all of them before it hears of the next.
pub(super) struct Slot {
    number: u8,
    registers: Registers,
    sink: Box<dyn MsiSink + Send>,
    /// The guest has taken the device into use, and not let go of it. Its power light alone does not
    /// tell: it may be what it has not yet turned off since another device was in the slot.
    used: bool,
    /// The host waits for the guest to let go of the device.
    leaving: bool,
    /// Whether there were events to tell of, and a way to do it, at the last look.
    telling: bool,
}

impl Slot {
    /// Slot `number` as at power-on, empty. Interrupts go through `sink`.
    pub fn new(number: u8, sink: Box<dyn MsiSink + Send>) -> Self {
        Self {
            number,
            registers: Registers::new(number),
            sink,
            used: false,
            leaving: false,
            telling: false,
        }
    }

    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// Whether the guest uses the device.
    pub fn used(&self) -> bool {
        self.used
    }

    /// Whether the host waits for the guest to let go of the device.
    pub fn leaving(&self) -> bool {
        self.leaving
    }

    /// Writes to configuration space.
    pub fn write(&mut self, register: u16, data: &[u8]) -> Effects {
        let before = Before::of(&self.registers);
        self.registers.write(register, data);
        let link_down = self.follow_link() == Some(false);
        let released = self.follow_power_light(before.power_light);
        self.follow_interrupt(before.sends);
        Effects {
            forwarding: self.registers.forwarding() != before.forwarding,
            link_down,
            released,
        }
    }

    /// A device was put in. To a guest that does not listen it looks as if firmware had found it and
    /// turned it on.
    pub fn put_in(&mut self) {
        self.used = !self.registers.listens();
        self.set_occupied(true, Light::On);
    }

    /// The device was taken out.
    pub fn take_out(&mut self) {
        (self.used, self.leaving) = (false, false);
        self.set_occupied(false, Light::Off);
    }

    /// Presses the attention button, if there is a device that the guest uses and it has not been
    /// asked to let it go already: pressing the button again would take that back.
    pub fn ask(&mut self) -> Result<Asked, AskError> {
        let slot = self.number;
        match self.registers.power_light() {
            _ if !self.registers.occupied() => return Ok(Asked::Unused),
            Light::Off => return Ok(Asked::Unused),
            _ if self.leaving => return Ok(Asked::Waiting),
            _ if !self.used => return Err(AskError::Busy { slot }),
            Light::Blinking => return Err(AskError::Busy { slot }),
            Light::On if !self.registers.listens_to_button() => {
                return Err(AskError::Deaf { slot });
            }
            Light::On => {}
        }
        self.leaving = true;
        self.registers.report(Event::Button);
        self.tell();
        Ok(Asked::Waiting)
    }

    fn set_occupied(&mut self, occupied: bool, light: Light) {
        self.registers.set_occupied(occupied);
        self.registers.report(Event::Presence);
        if !self.registers.listens() {
            self.registers.set_power_light(light);
        }
        self.follow_link();
        self.tell();
    }

    /// Brings the link in line; gives how it is if that has changed.
    fn follow_link(&mut self) -> Option<bool> {
        let active = self.registers.occupied() && self.registers.link_allowed();
        if active == self.registers.link_active() {
            return None;
        }
        self.registers.set_link_active(active);
        self.registers.report(Event::LinkState);
        Some(active)
    }

    /// Takes the power light for what the guest says by it; gives whether it has let go of a device
    /// that the host wants. By turning the light on again, it keeps the device.
    fn follow_power_light(&mut self, before: Light) -> bool {
        let now = self.registers.power_light();
        if now == before || !self.registers.occupied() {
            return false;
        }
        match now {
            Light::On => (self.used, self.leaving) = (true, false),
            Light::Blinking => {}
            Light::Off => self.used = false,
        }
        self.leaving && now == Light::Off
    }

    fn follow_interrupt(&mut self, sent_before: bool) {
        let sends = self.registers.interrupt().is_some();
        if sent_before && !sends {
            self.sink.release();
        }
        self.tell();
    }

    /// Sends an interrupt if there is something to tell of that was not there before.
    fn tell(&mut self) {
        let message = self.registers.interrupt();
        let message = message.filter(|_| self.registers.has_news());
        let told = std::mem::replace(&mut self.telling, message.is_some());
        if let (false, Some(message)) = (told, message) {
            self.sink.raise(VECTOR, message);
        }
    }
}

/// What a write can change, and others must follow.
struct Before {
    forwarding: Forwarding,
    power_light: Light,
    sends: bool,
}

impl Before {
    fn of(registers: &Registers) -> Self {
        Self {
            forwarding: registers.forwarding(),
            power_light: registers.power_light(),
            sends: registers.interrupt().is_some(),
        }
    }
}

#[cfg(test)]
#[path = "slot_test.rs"]
mod tests;
