// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Configuration space as the guest sees it: which of the device's bytes are shown, and which writes
//! reach it.
//!
//! What the host's kernel keeps from us it keeps from the guest too. On top of that:
//!
//! * BARs are the guest's own. I/O BARs and the expansion ROM are not there.
//! * Command is the guest's own. The device decodes memory all the time, for else an access of the
//!   guest to what is mapped into it would be an error, and it never pulls its interrupt line.
//! * MSI-X is shown, and its control is the guest's own.
//! * Capabilities that the guest must not have, or that need somebody to carry them out who is not
//!   there, are not in the list and read as zero: power states, in which what is mapped cannot be
//!   reached, MSI, VPD, Enhanced Allocation, and what is unknown.
//! * Express: the device is one that is integrated into the root complex, for there is no port above
//!   it. Of it, only Device Control can be written.
//! * The extended space, from 0x100 on, is not there: resizable BARs, SR-IOV, ATS and their like.

use super::bars::BarShape;
use crate::pci::header::{
    CAPABILITY_POINTER, COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, HEADER_TYPE, INTERRUPT_LINE,
    STATUS, STATUS_CAPABILITIES,
};
use crate::pci::{AddressWidth, MemoryBar};

/// Bytes of configuration space that there are.
pub(super) const SIZE: usize = 256;

const CACHE_LINE: usize = 0x0c;
const BARS: usize = 0x10;
const CARDBUS: usize = 0x28;
const ROM: usize = 0x30;
const INTERRUPT_PIN: usize = 0x3d;
/// Capabilities begin here at the earliest.
const HEADER_END: usize = 0x40;

const VENDOR_SPECIFIC: u8 = 0x09;
const SUBSYSTEM_ID: u8 = 0x0d;
const EXPRESS: u8 = 0x10;
const MSIX: u8 = 0x11;
const ADVANCED_FEATURES: u8 = 0x13;

const MSIX_ENABLE: u8 = 1 << 7;
const MSIX_FUNCTION_MASK: u8 = 1 << 6;
const INTEGRATED_ENDPOINT: u8 = 0x90;
/// Device Control and its second word, and what is about the link; offsets in the capability.
const EXPRESS_CONTROL: [usize; 2] = [0x08, 0x28];
const EXPRESS_LINK: [usize; 2] = [0x0c, 0x2c];
/// In the second byte of Device Control.
const EXPRESS_RESET: u8 = 1 << 7;
const ADVANCED_FEATURES_CONTROL: usize = 4;
const ADVANCED_FEATURES_RESET: u8 = 1 << 0;

/// A part of a BAR: where the MSI-X table is, or the pending bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BarPart {
    pub bar: u8,
    pub offset: u64,
}

/// What the device's MSI-X capability says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MsixCapability {
    pub vectors: u16,
    pub table: BarPart,
    pub pending: BarPart,
    /// Where it is in configuration space.
    at: usize,
}

impl MsixCapability {
    /// Finds it in the device's own configuration space.
    pub fn find(device: &[u8; SIZE]) -> Option<Self> {
        let (at, _) = *capabilities(device).iter().find(|(_, id)| *id == MSIX)?;
        let word = |at| -> Option<u32> {
            let bytes = device.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        let part = |word: u32| BarPart {
            bar: (word & 0b111) as u8,
            offset: u64::from(word & !0b111),
        };
        Some(Self {
            vectors: (word(at)? >> 16) as u16 % 2048 + 1,
            table: part(word(at + 4)?),
            pending: part(word(at + 8)?),
            at,
        })
    }

    /// Where Message Control is in configuration space.
    pub fn control(&self) -> u64 {
        self.at as u64 + 2
    }
}

/// What a write of the guest comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// What is to be written to the device, where.
    pub forward: Vec<(u16, Vec<u8>)>,
    /// The guest wants the function to be reset.
    pub reset: bool,
}

/// Configuration space with what the guest has written to it.
pub(super) struct ConfigSpace {
    /// What the guest sees of the bytes that are not the device's.
    own: [u8; SIZE],
    /// Bits of `own` that the guest can write.
    writable: [u8; SIZE],
    /// Bytes whose reads and writes are the device's.
    readable: [bool; SIZE],
    forwarded: [bool; SIZE],
    /// Bytes with a bit that resets the function.
    resets: Vec<(usize, u8)>,
    at_reset: [u8; SIZE],
    bars: [Option<BarShape>; 6],
    msix: usize,
}

/// The capabilities in the device's list, as (offset, identifier) and in the list's order.
fn capabilities(device: &[u8; SIZE]) -> Vec<(usize, u8)> {
    let mut found: Vec<(usize, u8)> = Vec::new();
    let mut at = usize::from(device[CAPABILITY_POINTER] & !0b11);
    // A list that runs in a circle ends too.
    while (HEADER_END..SIZE).contains(&at) && found.iter().all(|&(other, _)| other != at) {
        found.push((at, device[at]));
        at = usize::from(device[at + 1] & !0b11);
    }
    found
}

impl ConfigSpace {
    /// Of a device whose own configuration space is `device`, with these memory BARs: at an index,
    /// the one whose address begins there.
    pub fn new(device: &[u8; SIZE], bars: [Option<BarShape>; 6], msix: MsixCapability) -> Self {
        let mut space = Self {
            own: [0; SIZE],
            writable: [0; SIZE],
            readable: [true; SIZE],
            forwarded: [false; SIZE],
            resets: Vec::new(),
            at_reset: [0; SIZE],
            bars,
            msix: msix.at,
        };
        space.forwarded[HEADER_END..].fill(true);
        for hidden in [
            COMMAND..0x08,
            CACHE_LINE..CARDBUS + 4,
            ROM..INTERRUPT_PIN + 1,
        ] {
            space.hide(hidden);
        }
        space.own[CACHE_LINE] = device[CACHE_LINE];
        // Without the bit that says that there are more functions: here there are none.
        space.own[HEADER_TYPE] = device[HEADER_TYPE] & 0x7f;
        space.writable[COMMAND] = (COMMAND_MEMORY | COMMAND_BUS_MASTER) as u8;
        space.writable[INTERRUPT_LINE] = 0xff;
        for (index, shape) in (0..).zip(bars) {
            if let Some(shape) = shape {
                let at = BARS + 4 * index;
                let width = if shape.is_64_bit() { 8 } else { 4 };
                let bits = !(shape.size - 1);
                space.writable[at..at + width].copy_from_slice(&bits.to_le_bytes()[..width]);
                space.own[at] = shape.kind;
            }
        }
        space.add_capabilities(device);
        space.at_reset = space.own;
        space
    }

    fn hide(&mut self, bytes: std::ops::Range<usize>) {
        self.readable[bytes.clone()].fill(false);
        self.forwarded[bytes].fill(false);
    }

    /// Links the capabilities that are shown, and hides the others. How long one is that is hidden,
    /// and may be unknown, nobody says: it is taken to reach up to the next one.
    fn add_capabilities(&mut self, device: &[u8; SIZE]) {
        let list = capabilities(device);
        let mut link = CAPABILITY_POINTER;
        for &(at, id) in &list {
            let later = list.iter().map(|&(other, _)| other);
            let end = later.filter(|&other| other > at).min().unwrap_or(SIZE);
            // Its head is ours.
            self.hide(at..at + 2);
            match id {
                MSIX => self.show_msix(device, at),
                EXPRESS => self.show_express(device, at, end),
                ADVANCED_FEATURES => {
                    self.hide(at..end);
                    self.own[at..end].copy_from_slice(&device[at..end]);
                    self.resets
                        .push((at + ADVANCED_FEATURES_CONTROL, ADVANCED_FEATURES_RESET));
                }
                VENDOR_SPECIFIC | SUBSYSTEM_ID => {}
                _ => {
                    self.hide(at..end);
                    continue;
                }
            }
            self.own[at] = id;
            self.own[at + 1] = 0;
            self.own[link] = at as u8;
            self.own[STATUS] = STATUS_CAPABILITIES as u8;
            link = at + 1;
        }
    }

    fn show_msix(&mut self, device: &[u8; SIZE], at: usize) {
        let end = (at + 12).min(SIZE);
        self.hide(at..end);
        self.own[at..end].copy_from_slice(&device[at..end]);
        let control = at + 3;
        self.own[control] &= !(MSIX_ENABLE | MSIX_FUNCTION_MASK);
        self.writable[control] = MSIX_ENABLE | MSIX_FUNCTION_MASK;
    }

    fn show_express(&mut self, device: &[u8; SIZE], at: usize, end: usize) {
        self.forwarded[at..end].fill(false);
        let flags = at + 2;
        self.hide(flags..flags + 1);
        self.own[flags] = device[flags] & 0x0f | INTEGRATED_ENDPOINT;
        for link in EXPRESS_LINK {
            let link = at + link..end.min(at + link + 8);
            if !link.is_empty() {
                self.hide(link);
            }
        }
        for control in EXPRESS_CONTROL {
            let control = at + control..end.min(at + control + 2);
            if !control.is_empty() {
                self.forwarded[control].fill(true);
            }
        }
        self.resets
            .push((at + EXPRESS_CONTROL[0] + 1, EXPRESS_RESET));
    }

    /// Everything that the guest has written is gone.
    pub fn reset(&mut self) {
        self.own = self.at_reset;
    }

    /// Reads; `device` reads the device's own bytes, and is asked only if some of them are shown.
    pub fn read(&self, register: u16, data: &mut [u8], device: impl FnOnce(&mut [u8])) {
        let places = usize::from(register)..;
        let shown = |at: usize| self.readable.get(at).copied().unwrap_or(false);
        if places.clone().zip(&*data).any(|(at, _)| shown(at)) {
            device(data);
        }
        for (at, byte) in places.zip(data) {
            if !shown(at) {
                *byte = self.own.get(at).copied().unwrap_or(0);
            }
        }
    }

    /// Writes what is the guest's own, and says what else there is to be done.
    pub fn write(&mut self, register: u16, data: &[u8]) -> Written {
        let mut written = Written::default();
        let mut goes_on = false;
        for (at, &byte) in (usize::from(register)..SIZE).zip(data) {
            self.own[at] = self.own[at] & !self.writable[at] | byte & self.writable[at];
            let reset = self.resets.iter().find(|&&(place, _)| place == at);
            let bits = reset.map_or(0, |&(_, bit)| bit);
            written.reset |= byte & bits != 0;
            if self.forwarded[at] {
                let byte = byte & !bits;
                match written.forward.last_mut() {
                    Some((_, bytes)) if goes_on => bytes.push(byte),
                    _ => written.forward.push((at as u16, vec![byte])),
                }
            }
            goes_on = self.forwarded[at];
        }
        written
    }

    /// The BARs as the guest has placed them.
    pub fn bars(&self) -> Vec<MemoryBar> {
        let bars = (0_u8..).zip(self.bars);
        bars.filter_map(|(index, shape)| {
            let shape = shape?;
            let at = BARS + 4 * usize::from(index);
            let width = if shape.is_64_bit() { 8 } else { 4 };
            let mut bytes = [0; 8];
            bytes[..width].copy_from_slice(&self.own[at..at + width]);
            Some(MemoryBar {
                index,
                address: u64::from_le_bytes(bytes) & !(shape.size - 1),
                size: shape.size,
                width: match width {
                    8 => AddressWidth::Bits64,
                    _ => AddressWidth::Bits32,
                },
                enabled: self.own[COMMAND] & COMMAND_MEMORY as u8 != 0,
            })
        })
        .collect()
    }

    /// Places a BAR, as firmware does.
    pub fn place_bar(&mut self, index: u8, address: u64) {
        let at = (BARS + 4 * usize::from(index)) as u16;
        if let Some(Some(shape)) = self.bars.get(usize::from(index)) {
            let width = if shape.is_64_bit() { 8 } else { 4 };
            self.write(at, &address.to_le_bytes()[..width]);
        }
    }

    /// Whether the guest lets the function access memory.
    pub fn bus_master(&self) -> bool {
        self.own[COMMAND] & COMMAND_BUS_MASTER as u8 != 0
    }

    /// Whether the guest has turned MSI-X on, and masks all of its vectors.
    pub fn msix_control(&self) -> (bool, bool) {
        let control = self.own[self.msix + 3];
        (
            control & MSIX_ENABLE != 0,
            control & MSIX_FUNCTION_MASK != 0,
        )
    }
}

#[cfg(test)]
#[path = "config_space_test.rs"]
mod tests;
