// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The buses: who sits where, and which BARs answer where.

use std::fmt;
use std::ops::Range;
use std::ptr::addr_eq;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstorm_device_model::ConfigOutcome;
use thiserror::Error;
use tracing::warn;

use super::header::HEADER_TYPE;
use super::host_bridge::HostBridge;
use super::root_port::Asked;
use super::{AskError, MemoryBar, PciFunction, RootPort, WindowError, Windows};
use crate::machine::bus::{Bus, BusDevice, Outcome};
use crate::rate_limit::Occurrences;

/// Slots on a bus.
const SLOTS: usize = 32;
/// Functions in a slot.
const FUNCTIONS: usize = 8;
/// Functions on the root bus: the host bridge has a slot to itself.
const PLACES: usize = 1 + (SLOTS - 1) * FUNCTIONS;
/// Where the bus number begins in a configuration address, and where slot and function do.
const BUS_SHIFT: u32 = 20;
const REGISTER_BITS: u32 = 12;
/// Header Type (PCI Local Bus 3.0, §6.2.1), and its bit that tells of functions beside function 0.
const MULTI_FUNCTION: u8 = 0x80;

/// A function that cannot be put on the bus.
#[derive(Debug, Error)]
pub enum SegmentError {
    /// Every place is taken.
    #[error(
        "all {PLACES} places on the PCI bus are taken: give the machine fewer devices or ports"
    )]
    NoPlace,
    /// A BAR has no place.
    #[error(transparent)]
    Window(#[from] WindowError),
}

/// What sits in a place on the root bus.
#[derive(Clone)]
enum Seat {
    Function(Arc<dyn PciFunction>),
    Port(Arc<RootPort>),
}

/// Where a function is.
#[derive(Clone, Copy)]
struct Place {
    bus: u8,
    slot: usize,
    function: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bus,
            slot,
            function,
        } = self;
        write!(f, "{bus:02x}:{slot:02x}.{function}")
    }
}

/// A BAR that answers.
#[derive(Clone)]
struct Decoded {
    function: Arc<dyn PciFunction>,
    bar: MemoryBar,
    place: Place,
}

/// Whether it is the same BAR at the same address. The place is only to be told.
impl PartialEq for Decoded {
    fn eq(&self, other: &Self) -> bool {
        let functions = [self, other].map(|decoded| Arc::as_ptr(&decoded.function));
        self.bar == other.bar && addr_eq(functions[0], functions[1])
    }
}

/// One PCI segment: the host bridge in slot 0 of its root bus, functions and root ports in the
/// others. Each has a slot to itself as long as there are enough of them; otherwise there are eight to
/// a slot. Either way their addresses rise in the order in which they were added.
///
/// A configuration address is an offset in ECAM: bus, device, function and register at bits 20, 15,
/// 12 and 0. Behind a port there is device 0 alone. Of ports that were given the same bus number, the
/// first with a device has it.
///
/// The lock covers the list of BARs that answer, and with it the changes to the memory bus that
/// follow from configuration writes and from devices that are taken out. A vCPU takes it after a
/// write that changed BARs or windows, the control socket's thread when a device is gone; inside it
/// ports and functions lock themselves and the bus is changed, so nobody may take it with any of them
/// locked.
pub struct Segment {
    seats: Vec<Seat>,
    bus: Arc<Bus>,
    windows: Windows,
    decoded: Mutex<Vec<Decoded>>,
    refused: Occurrences,
}

impl Segment {
    /// A segment with nothing but the host bridge. BARs answer on `bus`, inside `windows`.
    pub fn new(bus: Arc<Bus>, windows: Windows) -> Self {
        Self {
            seats: vec![Seat::Function(Arc::new(HostBridge))],
            bus,
            windows,
            decoded: Mutex::default(),
            refused: Occurrences::default(),
        }
    }

    /// Puts a function into the next free place and gives its BARs their first places. Not while the
    /// guest runs: it may change where others are.
    pub fn add(&mut self, function: Arc<dyn PciFunction>) -> Result<(), SegmentError> {
        self.require_place()?;
        for bar in function.bars() {
            function.place_bar(bar.index, self.windows.place(&bar)?);
        }
        self.seats.push(Seat::Function(function));
        Ok(())
    }

    /// Puts a root port into the next free place. The guest gives it its bus and its windows.
    pub fn add_port(&mut self, port: RootPort) -> Result<(), SegmentError> {
        self.require_place()?;
        self.seats.push(Seat::Port(Arc::new(port)));
        Ok(())
    }

    fn require_place(&self) -> Result<(), SegmentError> {
        if self.seats.len() == PLACES {
            return Err(SegmentError::NoPlace);
        }
        Ok(())
    }

    /// The root ports.
    pub fn ports(&self) -> impl Iterator<Item = &RootPort> {
        self.seats.iter().filter_map(|seat| match seat {
            Seat::Port(port) => Some(port.as_ref()),
            Seat::Function(_) => None,
        })
    }

    /// Puts a function into the slot of `port`; false if there is one already. The guest gives its
    /// BARs their places.
    pub fn put_in(&self, port: &RootPort, function: Arc<dyn PciFunction>) -> bool {
        port.put_in(function)
    }

    /// Asks the guest to let go of the function in the slot of `port`, which is taken out as soon as
    /// it has. One that the guest does not use is taken out at once.
    pub fn ask(&self, port: &RootPort) -> Result<(), AskError> {
        if port.ask()? == Asked::Unused {
            self.take_out(port);
        }
        Ok(())
    }

    /// Takes the function, if there is one, out of the slot of `port`. When this returns, it answers
    /// nowhere any more.
    pub fn take_out(&self, port: &RootPort) {
        if let Some(function) = port.device() {
            self.remove(port, &function);
        }
    }

    /// Takes that function out, unless somebody else does; another may be in the slot by now.
    fn remove(&self, port: &RootPort, function: &Arc<dyn PciFunction>) {
        // Before the guest hears that it is gone.
        function.take_out();
        self.update_decoding();
        port.take_out(function);
    }

    /// Reads configuration space; where there is no function, all bits are one.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        for (address, part) in cycles(address, data.len()) {
            let data = &mut data[part];
            match self.find(address) {
                Some((Seat::Function(function), register)) => function.config_read(register, data),
                Some((Seat::Port(port), register)) => port.config_read(register, data),
                None => data.fill(0xff),
            }
            self.tell_of_others(address, data);
        }
    }

    /// Sets the bit that tells of other functions, of which none knows itself.
    fn tell_of_others(&self, address: u64, data: &mut [u8]) {
        let Some((0, at, register)) = parts(address) else {
            return;
        };
        let other = self.number_at(at + 1);
        if !at.is_multiple_of(FUNCTIONS) || other.is_none_or(|other| other >= self.seats.len()) {
            return;
        }
        let header_type = HEADER_TYPE.checked_sub(register.into());
        if let Some(byte) = header_type.and_then(|byte| data.get_mut(byte)) {
            *byte |= MULTI_FUNCTION;
        }
    }

    /// Writes configuration space. When this returns, BARs answer where they then stand.
    pub fn write(&self, address: u64, data: &[u8]) {
        for (address, part) in cycles(address, data.len()) {
            match self.find(address) {
                Some((Seat::Function(function), register)) => {
                    let outcome = function.config_write(register, &data[part]);
                    if outcome == ConfigOutcome::BarsChanged {
                        self.update_decoding();
                    }
                }
                Some((Seat::Port(port), register)) => {
                    let written = port.config_write(register, &data[part]);
                    if let Some(function) = written.released {
                        self.remove(&port, &function);
                    }
                    if written.decoding {
                        self.update_decoding();
                    }
                }
                None => {}
            }
        }
    }

    /// Who answers at a configuration address, and which of its registers is meant.
    fn find(&self, address: u64) -> Option<(Seat, u16)> {
        let (bus, at, register) = parts(address)?;
        let seat = match (bus, at) {
            (0, at) => self.seats.get(self.number_at(at)?)?.clone(),
            (bus, 0) => Seat::Function(self.ports().find_map(|port| port.device_on(bus))?),
            _ => return None,
        };
        Some((seat, register))
    }

    /// The number of the seat at this slot and function of the root bus, if there can be one.
    fn number_at(&self, at: usize) -> Option<usize> {
        let (slot, function) = (at / FUNCTIONS, at % FUNCTIONS);
        let in_slot = self.functions_in(slot);
        (slot < SLOTS && function < in_slot).then(|| match slot {
            0 => 0,
            _ => 1 + (slot - 1) * in_slot + function,
        })
    }

    /// Where the seat with this number is.
    fn place_of(&self, number: usize) -> Place {
        let in_slot = self.functions_in(1);
        let (slot, function) = match number.checked_sub(1) {
            None => (0, 0),
            Some(behind) => (1 + behind / in_slot, behind % in_slot),
        };
        Place {
            bus: 0,
            slot,
            function,
        }
    }

    fn functions_in(&self, slot: usize) -> usize {
        if slot == 0 || self.seats.len() <= SLOTS {
            1
        } else {
            FUNCTIONS
        }
    }

    /// Lets each BAR answer where its function says, as far as the windows and the others allow.
    ///
    /// All functions are looked at, not only the one that was written to: a BAR that had no place
    /// because another was in its way gets it as soon as that one has gone.
    fn update_decoding(&self) {
        let mut decoded: MutexGuard<'_, Vec<Decoded>> =
            self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.wanted();
        // First those that go, so that two BARs can change places.
        decoded.retain(|old| {
            let stays = wanted.contains(old);
            if !stays {
                old.function.decoding(old.bar.index, None);
                self.bus.remove(old.bar.address);
            }
            stays
        });
        for new in wanted {
            if !decoded.contains(&new) && self.decode(&new) {
                decoded.push(new);
            }
        }
    }

    /// All BARs that are to answer, as functions and ports have it.
    fn wanted(&self) -> Vec<Decoded> {
        let seats = self.seats.iter().enumerate();
        let functions = seats.filter_map(|(number, seat)| match seat {
            Seat::Function(function) => {
                let place = self.place_of(number);
                Some((place, Arc::clone(function), function.bars()))
            }
            Seat::Port(port) => {
                let (bus, function, bars) = port.reachable()?;
                let place = Place {
                    bus,
                    slot: 0,
                    function: 0,
                };
                Some((place, function, bars))
            }
        });
        let mut wanted = Vec::new();
        for (place, function, bars) in functions {
            let bars = bars.into_iter().filter(|bar| bar.enabled);
            wanted.extend(bars.map(|bar| Decoded {
                function: Arc::clone(&function),
                bar,
                place,
            }));
        }
        wanted
    }

    fn decode(&self, new: &Decoded) -> bool {
        let Decoded { function, bar, .. } = new;
        let region = Region {
            function: Arc::clone(function),
            index: bar.index,
        };
        let inside = self.windows.contain(bar);
        if !inside
            || self
                .bus
                .insert(bar.address, bar.size, Arc::new(region))
                .is_err()
        {
            self.refuse(new);
            return false;
        }
        function.decoding(bar.index, Some(bar.address));
        true
    }

    /// Guests may put a BAR where it cannot answer, and some do for a moment while they size it.
    fn refuse(&self, Decoded { bar, place, .. }: &Decoded) {
        if let Some(refused) = self.refused.add() {
            warn!(
                "PCI device {place}: BAR {} does not answer at {:#x}, which is outside the windows \
                 or taken ({refused} such places so far)",
                bar.index, bar.address
            );
        }
    }
}

/// A BAR as a device on the memory bus.
struct Region {
    function: Arc<dyn PciFunction>,
    index: u8,
}

impl BusDevice for Region {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.function.bar_read(self.index, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        self.function.bar_write(self.index, offset, data)
    }
}

/// Bus, slot with function, and register of a configuration address.
fn parts(address: u64) -> Option<(u8, usize, u16)> {
    let bus = u8::try_from(address >> BUS_SHIFT).ok()?;
    let at = (address >> REGISTER_BITS) as usize % (SLOTS * FUNCTIONS);
    let register = (address & ((1 << REGISTER_BITS) - 1)) as u16;
    Some((bus, at, register))
}

/// Splits an access into configuration cycles: 1, 2 or 4 bytes, naturally aligned.
fn cycles(address: u64, length: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let here = address.wrapping_add(start as u64);
        let width = [4, 2, 1]
            .into_iter()
            .find(|&width| here.is_multiple_of(width as u64) && width <= length - start)?;
        let part = start..start + width;
        start = part.end;
        Some((here, part))
    })
}

#[cfg(test)]
#[path = "segment_test.rs"]
mod tests;

#[cfg(test)]
#[path = "segment_ports_test.rs"]
mod ports_tests;
