// SPDX-License-Identifier: Apache-2.0 OR MIT

//! An address space in which devices answer: one for ports, one for memory.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;

/// Why the machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest wrote this status to the exit device.
    Exit(u8),
    /// The guest asked for power-off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the vCPU goes on.
    Done,
    /// The machine is to stop.
    Stop(Stop),
}

/// Something that answers accesses to a range of addresses.
///
/// The guest chooses offsets, widths and values; no choice may make these functions panic, block
/// for long or log without bound. They are called on the vCPU's thread with no bus lock held.
pub trait BusDevice: Send + Sync {
    /// Fills `data` with what is at `offset` from the range's start.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes `data`, written at `offset` from the range's start.
    fn write(&self, offset: u64, data: &[u8]) -> Outcome;
}

/// The range is taken, empty or wraps around.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("bus range {start:#x}+{length:#x} is empty, wraps around or overlaps another device's")]
pub struct RangeError {
    start: u64,
    length: u64,
}

struct Range {
    length: u64,
    device: Arc<dyn BusDevice>,
}

/// Devices by address range.
///
/// The lock covers the map alone: a lookup takes it, clones the device's `Arc` and lets go before
/// the device is called, so a device may insert and remove ranges (a BAR that moves). It is a leaf:
/// nothing is locked inside it.
#[derive(Default)]
pub struct Bus {
    ranges: RwLock<BTreeMap<u64, Range>>,
}

impl Bus {
    /// Puts `device` at `start` for `length` bytes.
    pub fn insert(
        &self,
        start: u64,
        length: u64,
        device: Arc<dyn BusDevice>,
    ) -> Result<(), RangeError> {
        let error = RangeError { start, length };
        let Some(last) = length
            .checked_sub(1)
            .and_then(|length| start.checked_add(length))
        else {
            return Err(error);
        };
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        // Ranges do not overlap, so only the one that begins last before our end can reach into ours.
        if let Some((other, range)) = ranges.range(..=last).next_back()
            && start <= other + (range.length - 1)
        {
            return Err(error);
        }
        ranges.insert(start, Range { length, device });
        Ok(())
    }

    /// Takes away the range that begins at `start`, if there is one.
    pub fn remove(&self, start: u64) {
        self.ranges
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&start);
    }

    /// Reads; where nobody answers, or the access straddles a range's end, all bits are one.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes; where nobody answers, nothing happens.
    pub fn write(&self, address: u64, data: &[u8]) -> Outcome {
        match self.find(address, data.len()) {
            Some((offset, device)) => device.write(offset, data),
            None => Outcome::Done,
        }
    }

    fn find(&self, address: u64, width: usize) -> Option<(u64, Arc<dyn BusDevice>)> {
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let (start, range) = ranges.range(..=address).next_back()?;
        let offset = address - start;
        let inside = offset.checked_add(width as u64)? <= range.length;
        inside.then(|| (offset, Arc::clone(&range.device)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);

    impl BusDevice for Fixed {
        fn read(&self, _offset: u64, data: &mut [u8]) {
            data.fill(self.0);
        }
        fn write(&self, offset: u64, _data: &[u8]) -> Outcome {
            Outcome::Stop(Stop::Exit(offset as u8))
        }
    }

    #[test]
    fn ranges_never_overlap() {
        let bus = Bus::default();
        bus.insert(0x1000, 0x100, Arc::new(Fixed(1))).unwrap();
        for (start, length, fits) in [
            (0x1000, 0x100, false),
            (0x0fff, 2, false),
            (0x10ff, 1, false),
            (0x0800, 0x1000, false),
            (0x2000, 0, false),
            (u64::MAX, 2, false),
            (0x0fff, 1, true),
            (0x1100, 1, true),
            (u64::MAX, 1, true),
        ] {
            let result = bus.insert(start, length, Arc::new(Fixed(2)));
            assert_eq!(result.is_ok(), fits, "{start:#x}+{length:#x}");
        }
    }

    #[test]
    fn access_reaches_the_right_device_or_none() {
        let bus = Bus::default();
        bus.insert(0x1000, 0x10, Arc::new(Fixed(1))).unwrap();
        bus.insert(0x1010, 0x10, Arc::new(Fixed(2))).unwrap();
        for (address, expected) in [
            (0x0fff, 0xff),
            (0x1000, 1),
            (0x100f, 0xff),
            (0x100e, 1),
            (0x1010, 2),
            (0x1020, 0xff),
            (u64::MAX, 0xff),
        ] {
            let mut data = [0; 2];
            bus.read(address, &mut data);
            assert_eq!(data, [expected; 2], "{address:#x}");
        }
        assert_eq!(bus.write(0x1013, &[0]), Outcome::Stop(Stop::Exit(3)));
        bus.remove(0x1010);
        assert_eq!(bus.write(0x1013, &[0]), Outcome::Done);
    }
}
