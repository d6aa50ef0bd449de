// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The bus: who sits in which slot, and which BARs answer where.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstorm_device_model::ConfigOutcome;
use thiserror::Error;
use tracing::warn;

use super::host_bridge::HostBridge;
use super::{MemoryBar, PciFunction, WindowError, Windows};
use crate::machine::bus::{Bus, BusDevice, Outcome};
use crate::rate_limit::Occurrences;

/// Slots on a bus.
const SLOTS: usize = 32;
/// Bits of a configuration address below the function number.
const REGISTER_BITS: u32 = 12;
/// Functions in a slot. Ours are all function 0.
const FUNCTIONS: u64 = 8;

/// A function that cannot be put on the bus.
#[derive(Debug, Error)]
pub enum SegmentError {
    /// Every slot is taken.
    #[error("all {SLOTS} slots of the PCI bus are taken: give the machine fewer devices")]
    NoSlot,
    /// A BAR has no place.
    #[error(transparent)]
    Window(#[from] WindowError),
}

/// A BAR that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decoded {
    slot: usize,
    bar: MemoryBar,
}

/// One PCI segment with one bus: the host bridge in slot 0, functions in the others.
///
/// A configuration address is an offset in ECAM: bus, device, function and register at bits 20, 15,
/// 12 and 0.
///
/// The lock covers the list of BARs that answer, and with it the changes to the memory bus that
/// follow from configuration writes. A vCPU takes it after a write that changed BARs; inside it
/// functions lock themselves and the bus is changed, so nobody may take it with either locked.
pub struct Segment {
    functions: Vec<Arc<dyn PciFunction>>,
    bus: Arc<Bus>,
    windows: Windows,
    decoded: Mutex<Vec<Decoded>>,
    refused: Occurrences,
}

impl Segment {
    /// A segment with nothing but the host bridge. BARs answer on `bus`, inside `windows`.
    pub fn new(bus: Arc<Bus>, windows: Windows) -> Self {
        Self {
            functions: vec![Arc::new(HostBridge)],
            bus,
            windows,
            decoded: Mutex::default(),
            refused: Occurrences::default(),
        }
    }

    /// Puts a function into the next free slot and gives its BARs their first places.
    pub fn add(&mut self, function: Arc<dyn PciFunction>) -> Result<(), SegmentError> {
        if self.functions.len() == SLOTS {
            return Err(SegmentError::NoSlot);
        }
        for bar in function.bars() {
            function.place_bar(bar.index, self.windows.place(&bar)?);
        }
        self.functions.push(function);
        Ok(())
    }

    /// Reads configuration space; where there is no function, all bits are one.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        for (address, part) in cycles(address, data.len()) {
            let data = &mut data[part];
            match self.find(address) {
                Some((function, register)) => function.config_read(register, data),
                None => data.fill(0xff),
            }
        }
    }

    /// Writes configuration space. When this returns, BARs answer where they then stand.
    pub fn write(&self, address: u64, data: &[u8]) {
        for (address, part) in cycles(address, data.len()) {
            if let Some((function, register)) = self.find(address)
                && function.config_write(register, &data[part]) == ConfigOutcome::BarsChanged
            {
                self.update_decoding();
            }
        }
    }

    fn find(&self, address: u64) -> Option<(&dyn PciFunction, u16)> {
        let number = usize::try_from(address >> REGISTER_BITS).ok()?;
        let functions = FUNCTIONS as usize;
        // Bus 0 ends with the last slot, so other buses and other functions are equally empty.
        let slot = number
            .is_multiple_of(functions)
            .then_some(number / functions)?;
        let register = address & ((1 << REGISTER_BITS) - 1);
        Some((self.functions.get(slot)?.as_ref(), register as u16))
    }

    /// Lets each BAR answer where its function says, as far as the windows and the others allow.
    ///
    /// All functions are looked at, not only the one that was written to: a BAR that had no place
    /// because another was in its way gets it as soon as that one has gone.
    fn update_decoding(&self) {
        let mut decoded: MutexGuard<'_, Vec<Decoded>> =
            self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: Vec<Decoded> = (0..)
            .zip(&self.functions)
            .flat_map(|(slot, function)| {
                let bars = function.bars().into_iter();
                bars.map(move |bar| Decoded { slot, bar })
            })
            .filter(|wanted| wanted.bar.enabled)
            .collect();
        // First those that go, so that two BARs can change places.
        decoded.retain(|old| {
            let stays = wanted.contains(old);
            if !stays {
                self.functions[old.slot].decoding(old.bar.index, None);
                self.bus.remove(old.bar.address);
            }
            stays
        });
        for new in wanted {
            if !decoded.contains(&new) && self.decode(new) {
                decoded.push(new);
            }
        }
    }

    fn decode(&self, new: Decoded) -> bool {
        let Decoded { slot, bar } = new;
        let function = &self.functions[slot];
        let region = Region {
            function: Arc::clone(function),
            index: bar.index,
        };
        let inside = self.windows.contain(&bar);
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
    fn refuse(&self, Decoded { slot, bar }: Decoded) {
        if let Some(refused) = self.refused.add() {
            warn!(
                "PCI device {slot}: BAR {} does not answer at {:#x}, which is outside the windows \
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
