// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A root port's configuration space: a type 1 header (PCI Express Base 5.0, §7.5.1.3) with the
//! capabilities PCI Express (§7.5.3), which has the slot in it, and MSI (§7.7.1).
//!
//! It is 256 bytes, with a mask of the bits that the guest may write and one of those that it clears
//! by writing a one. With those, an access of any width works.
//!
//! There is no I/O window, no power management and no error reporting. All these are registers that
//! read as zeros.

use std::ops::RangeInclusive;

use lockstorm_device_model::MsiMessage;

use crate::pci::header::{
    CAPABILITY_POINTER, COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, HEADER_TYPE, INTERRUPT_LINE,
    STATUS, STATUS_CAPABILITIES,
};

/// Identity of QEMU's root port, for which guests have no quirks.
const VENDOR_AND_DEVICE: u32 = 0x000c_1b36;
/// Revision 0; class 06_04_00, PCI-to-PCI bridge.
const REVISION_AND_CLASS: usize = 0x08;
const PCI_BRIDGE: u32 = 0x0604_0000;
const BRIDGE_HEADER: u8 = 1;
const PRIMARY_BUS: usize = 0x18;
const MEMORY_BASE: usize = 0x20;
const MEMORY_LIMIT: usize = 0x22;
const PREFETCHABLE_BASE: usize = 0x24;
const PREFETCHABLE_LIMIT: usize = 0x26;
const PREFETCHABLE_BASE_HIGH: usize = 0x28;
const PREFETCHABLE_LIMIT_HIGH: usize = 0x2c;
/// In the low bits of the prefetchable window's base and limit: both have an upper half.
const WINDOW_64_BIT: u16 = 1;
/// Address bits 31 to 20 of a window's base or limit. Those below are zeros in a base and ones in a
/// limit.
const WINDOW_ADDRESS: u16 = 0xfff0;
const WINDOW_GRANULE: u64 = 1 << 20;
const BRIDGE_CONTROL: usize = 0x3e;
const SECONDARY_BUS_RESET: u16 = 1 << 6;

const EXPRESS: usize = 0x40;
const EXPRESS_ID: u8 = 0x10;
/// Version 2, root port, slot implemented; its events are MSI number 0.
const EXPRESS_FLAGS: u16 = 2 | 4 << 4 | 1 << 8;
const DEVICE_CAPABILITIES: usize = EXPRESS + 0x04;
const ROLE_BASED_ERROR_REPORTING: u32 = 1 << 15;
const DEVICE_CONTROL: usize = EXPRESS + 0x08;
const ERROR_REPORTING: u16 = 0xf;
const LINK_CAPABILITIES: usize = EXPRESS + 0x0c;
/// 2.5 GT/s, one lane.
const SPEED_AND_WIDTH: u32 = 1 | 1 << 4;
const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
const ASPM_OPTIONALITY: u32 = 1 << 22;
const PORT_NUMBER_SHIFT: u32 = 24;
const LINK_CONTROL: usize = EXPRESS + 0x10;
const LINK_DISABLE: u16 = 1 << 4;
const LINK_STATUS: usize = EXPRESS + 0x12;
const LINK_ACTIVE: u16 = 1 << 13;
const SLOT_CAPABILITIES: usize = EXPRESS + 0x14;
/// Attention button, attention and power indicator, hot-plug surprise, hot-plug. There is no power
/// controller: it would reset a device that goes, and with it what that has counted; and for a second
/// after it has turned a slot off, Linux is blind to what is put in there.
const SLOT_FEATURES: u32 = 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6;
const SLOT_NUMBER_SHIFT: u32 = 19;
const SLOT_CONTROL: usize = EXPRESS + 0x18;
const ATTENTION_BUTTON_ENABLE: u16 = 1 << 0;
const PRESENCE_ENABLE: u16 = 1 << 3;
const COMMAND_COMPLETED_ENABLE: u16 = 1 << 4;
const HOT_PLUG_INTERRUPT_ENABLE: u16 = 1 << 5;
const ATTENTION_INDICATOR_SHIFT: u32 = 6;
const POWER_INDICATOR_SHIFT: u32 = 8;
const INDICATOR_BITS: u16 = 0b11;
const LINK_STATE_ENABLE: u16 = 1 << 12;
const SLOT_STATUS: usize = EXPRESS + 0x1a;
const OCCUPIED: u16 = 1 << 6;
const ROOT_CONTROL: usize = EXPRESS + 0x1c;
const LINK_CAPABILITIES_2: usize = EXPRESS + 0x2c;
const SPEED_2_5: u32 = 1 << 1;

const MSI: usize = 0x80;
const MSI_ID: u8 = 0x05;
const MSI_CONTROL: usize = MSI + 0x02;
const MSI_ENABLE: u16 = 1 << 0;
const MSI_64_BIT: u16 = 1 << 7;
const MSI_ADDRESS: usize = MSI + 0x04;
const MSI_DATA: usize = MSI + 0x0c;

/// An event that Slot Status tells of, as its bit there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The attention button was pressed.
    Button = 1 << 0,
    /// A device was put in or taken out.
    Presence = 1 << 3,
    /// What a write to Slot Control wants has been done.
    CommandCompleted = 1 << 4,
    /// The link went up or down.
    LinkState = 1 << 8,
}

/// The events, each with what enables its interrupt in Slot Control.
const EVENTS: [(Event, u16); 4] = [
    (Event::Button, ATTENTION_BUTTON_ENABLE),
    (Event::Presence, PRESENCE_ENABLE),
    (Event::CommandCompleted, COMMAND_COMPLETED_ENABLE),
    (Event::LinkState, LINK_STATE_ENABLE),
];

/// A light beside the slot, as the guest has set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Light {
    /// On. So is one that the guest has set to what is reserved: it did not say that it is off.
    On,
    /// Blinking.
    Blinking,
    /// Off.
    Off,
}

impl Light {
    fn from_bits(bits: u16) -> Self {
        match bits & INDICATOR_BITS {
            0b10 => Self::Blinking,
            0b11 => Self::Off,
            _ => Self::On,
        }
    }

    fn bits(self) -> u16 {
        match self {
            Self::On => 0b01,
            Self::Blinking => 0b10,
            Self::Off => 0b11,
        }
    }
}

/// What a port passes on to its secondary bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forwarding {
    /// Command: Memory Space Enable. Without it no access to memory is passed on.
    enabled: bool,
    /// Those of the two windows that are open.
    windows: [Option<RangeInclusive<u64>>; 2],
}

impl Forwarding {
    /// Whether accesses to all addresses of a BAR are passed on, by the same window.
    pub fn contains(&self, address: u64, size: u64) -> bool {
        let Some(last) = address.checked_add(size.saturating_sub(1)) else {
            return false;
        };
        let mut windows = self.windows.iter().flatten();
        self.enabled && windows.any(|window| window.contains(&address) && window.contains(&last))
    }
}

pub(super) struct Registers {
    bytes: [u8; 256],
    /// The bits that the guest may write.
    writable: [u8; 256],
    /// The bits that the guest clears by writing a one.
    cleared: [u8; 256],
}

impl Registers {
    /// As at power-on, for the port to slot `number`, which is empty. Both windows are closed.
    pub fn new(number: u8) -> Self {
        let mut registers = Self {
            bytes: [0; 256],
            writable: [0; 256],
            cleared: [0; 256],
        };
        registers.header();
        registers.express(number.into());
        registers.message();
        registers
    }

    fn header(&mut self) {
        self.set_dword(0x00, VENDOR_AND_DEVICE);
        self.set_word(STATUS, STATUS_CAPABILITIES);
        self.set_dword(REVISION_AND_CLASS, PCI_BRIDGE);
        self.bytes[HEADER_TYPE] = BRIDGE_HEADER;
        self.bytes[CAPABILITY_POINTER] = EXPRESS as u8;
        self.set_word(MEMORY_BASE, WINDOW_ADDRESS);
        self.set_word(PREFETCHABLE_BASE, WINDOW_ADDRESS | WINDOW_64_BIT);
        self.set_word(PREFETCHABLE_LIMIT, WINDOW_64_BIT);

        self.allow_word(COMMAND, COMMAND_MEMORY | COMMAND_BUS_MASTER);
        // Primary, secondary and subordinate bus.
        self.allow_dword(PRIMARY_BUS, 0x00ff_ffff);
        for window in [
            MEMORY_BASE,
            MEMORY_LIMIT,
            PREFETCHABLE_BASE,
            PREFETCHABLE_LIMIT,
        ] {
            self.allow_word(window, WINDOW_ADDRESS);
        }
        self.allow_dword(PREFETCHABLE_BASE_HIGH, u32::MAX);
        self.allow_dword(PREFETCHABLE_LIMIT_HIGH, u32::MAX);
        self.allow_word(INTERRUPT_LINE, 0xff);
        self.allow_word(BRIDGE_CONTROL, SECONDARY_BUS_RESET);
    }

    fn express(&mut self, number: u32) {
        self.bytes[EXPRESS] = EXPRESS_ID;
        self.bytes[EXPRESS + 1] = MSI as u8;
        self.set_word(EXPRESS + 2, EXPRESS_FLAGS);
        self.set_dword(DEVICE_CAPABILITIES, ROLE_BASED_ERROR_REPORTING);
        let link = SPEED_AND_WIDTH | LINK_ACTIVE_REPORTING | ASPM_OPTIONALITY;
        self.set_dword(LINK_CAPABILITIES, link | number << PORT_NUMBER_SHIFT);
        self.set_word(LINK_STATUS, SPEED_AND_WIDTH as u16);
        let slot = SLOT_FEATURES | number << SLOT_NUMBER_SHIFT;
        self.set_dword(SLOT_CAPABILITIES, slot);
        let (attention, power) = (Light::Off.bits(), Light::Off.bits());
        let lights = attention << ATTENTION_INDICATOR_SHIFT | power << POWER_INDICATOR_SHIFT;
        self.set_word(SLOT_CONTROL, lights);
        self.set_dword(LINK_CAPABILITIES_2, SPEED_2_5);

        self.allow_word(DEVICE_CONTROL, ERROR_REPORTING);
        self.allow_word(LINK_CONTROL, LINK_DISABLE);
        let indicators =
            INDICATOR_BITS << ATTENTION_INDICATOR_SHIFT | INDICATOR_BITS << POWER_INDICATOR_SHIFT;
        let mut control = HOT_PLUG_INTERRUPT_ENABLE | indicators;
        for (event, enable) in EVENTS {
            control |= enable;
            let bit = (event as u16).to_le_bytes();
            self.cleared[SLOT_STATUS] |= bit[0];
            self.cleared[SLOT_STATUS + 1] |= bit[1];
        }
        self.allow_word(SLOT_CONTROL, control);
        self.allow_word(ROOT_CONTROL, ERROR_REPORTING);
    }

    fn message(&mut self) {
        self.bytes[MSI] = MSI_ID;
        self.set_word(MSI_CONTROL, MSI_64_BIT);
        self.allow_word(MSI_CONTROL, MSI_ENABLE);
        self.allow_dword(MSI_ADDRESS, !0b11);
        self.allow_dword(MSI_ADDRESS + 4, u32::MAX);
        self.allow_word(MSI_DATA, u16::MAX);
    }

    /// Reads; beyond the 256 bytes there is nothing, which reads as zeros.
    pub fn read(&self, register: u16, data: &mut [u8]) {
        for (register, byte) in (usize::from(register)..).zip(data) {
            *byte = self.bytes.get(register).copied().unwrap_or(0);
        }
    }

    /// Writes the bits that may be written, and clears those that are cleared so. A write to Slot
    /// Control is a command, whatever it changes, and has completed then (§6.7.3.2).
    pub fn write(&mut self, register: u16, data: &[u8]) {
        let mut commanded = false;
        for (register, written) in (usize::from(register)..256).zip(data) {
            commanded |= (SLOT_CONTROL..SLOT_STATUS).contains(&register);
            let writable = self.writable[register];
            let byte = &mut self.bytes[register];
            *byte = *byte & !writable | written & writable;
            *byte &= !(written & self.cleared[register]);
        }
        if commanded {
            self.report(Event::CommandCompleted);
        }
    }

    /// The number of the bus behind the port, if it has been given one. It cannot be that of the
    /// root bus.
    pub fn secondary_bus(&self) -> Option<u8> {
        let [_, secondary, subordinate, _] = self.dword(PRIMARY_BUS).to_le_bytes();
        (0 < secondary && secondary <= subordinate).then_some(secondary)
    }

    pub fn forwarding(&self) -> Forwarding {
        let memory = self.window(MEMORY_BASE, MEMORY_LIMIT, 0, 0);
        let (base, limit) = (PREFETCHABLE_BASE_HIGH, PREFETCHABLE_LIMIT_HIGH);
        let (base, limit) = (self.dword(base), self.dword(limit));
        let prefetchable = self.window(PREFETCHABLE_BASE, PREFETCHABLE_LIMIT, base, limit);
        Forwarding {
            enabled: self.has(COMMAND, COMMAND_MEMORY),
            windows: [memory, prefetchable],
        }
    }

    /// A window, unless it is closed by ending before it begins.
    fn window(
        &self,
        base: usize,
        limit: usize,
        base_high: u32,
        limit_high: u32,
    ) -> Option<RangeInclusive<u64>> {
        let address =
            |low, high| u64::from(high) << 32 | u64::from(self.word(low) & WINDOW_ADDRESS) << 16;
        let first = address(base, base_high);
        let last = address(limit, limit_high) | (WINDOW_GRANULE - 1);
        (first <= last).then_some(first..=last)
    }

    /// Whether the guest lets the link be up.
    pub fn link_allowed(&self) -> bool {
        !self.has(LINK_CONTROL, LINK_DISABLE) && !self.has(BRIDGE_CONTROL, SECONDARY_BUS_RESET)
    }

    pub fn link_active(&self) -> bool {
        self.has(LINK_STATUS, LINK_ACTIVE)
    }

    pub fn set_link_active(&mut self, active: bool) {
        self.put(LINK_STATUS, LINK_ACTIVE, active);
    }

    /// Presence Detect State.
    pub fn occupied(&self) -> bool {
        self.has(SLOT_STATUS, OCCUPIED)
    }

    pub fn set_occupied(&mut self, occupied: bool) {
        self.put(SLOT_STATUS, OCCUPIED, occupied);
    }

    pub fn power_light(&self) -> Light {
        Light::from_bits(self.word(SLOT_CONTROL) >> POWER_INDICATOR_SHIFT)
    }

    pub fn set_power_light(&mut self, light: Light) {
        let others = self.word(SLOT_CONTROL) & !(INDICATOR_BITS << POWER_INDICATOR_SHIFT);
        self.set_word(SLOT_CONTROL, others | light.bits() << POWER_INDICATOR_SHIFT);
    }

    pub fn attention_light(&self) -> Light {
        Light::from_bits(self.word(SLOT_CONTROL) >> ATTENTION_INDICATOR_SHIFT)
    }

    pub fn report(&mut self, event: Event) {
        self.put(SLOT_STATUS, event as u16, true);
    }

    /// Whether the guest wants to hear of what happens to the slot.
    pub fn listens(&self) -> bool {
        self.has(SLOT_CONTROL, HOT_PLUG_INTERRUPT_ENABLE)
    }

    /// Whether that is so for the attention button.
    pub fn listens_to_button(&self) -> bool {
        self.listens() && self.has(SLOT_CONTROL, ATTENTION_BUTTON_ENABLE)
    }

    /// Whether an event waits that the guest wants to hear of (§6.7.3.4).
    pub fn has_news(&self) -> bool {
        let (control, status) = (self.word(SLOT_CONTROL), self.word(SLOT_STATUS));
        let mut events = EVENTS.iter();
        self.listens()
            && events.any(|&(event, enable)| control & enable != 0 && status & event as u16 != 0)
    }

    /// What is sent as an interrupt, if any may be.
    pub fn interrupt(&self) -> Option<MsiMessage> {
        let enabled = self.has(MSI_CONTROL, MSI_ENABLE) && self.has(COMMAND, COMMAND_BUS_MASTER);
        let [low, high] = [self.dword(MSI_ADDRESS), self.dword(MSI_ADDRESS + 4)];
        enabled.then(|| MsiMessage {
            address: u64::from(high) << 32 | u64::from(low),
            data: self.word(MSI_DATA).into(),
        })
    }

    fn has(&self, register: usize, bits: u16) -> bool {
        self.word(register) & bits != 0
    }

    fn put(&mut self, register: usize, bits: u16, on: bool) {
        let others = self.word(register) & !bits;
        self.set_word(register, if on { others | bits } else { others });
    }

    fn word(&self, register: usize) -> u16 {
        u16::from_le_bytes([self.bytes[register], self.bytes[register + 1]])
    }

    fn dword(&self, register: usize) -> u32 {
        u32::from(self.word(register)) | u32::from(self.word(register + 2)) << 16
    }

    fn set_word(&mut self, register: usize, value: u16) {
        self.bytes[register..register + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn set_dword(&mut self, register: usize, value: u32) {
        self.bytes[register..register + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn allow_word(&mut self, register: usize, bits: u16) {
        self.writable[register..register + 2].copy_from_slice(&bits.to_le_bytes());
    }

    fn allow_dword(&mut self, register: usize, bits: u32) {
        self.writable[register..register + 4].copy_from_slice(&bits.to_le_bytes());
    }
}

#[cfg(test)]
#[path = "registers_test.rs"]
mod tests;
