// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The device on the bench, and what all checks need of it.

use std::ops::Range;
use std::sync::Arc;

pub use evgen_stress::check::{Failure, PATIENCE, cannot, expect, wait_until};
use evgen_stress::device::{Device, Mode};
use evgen_stress::function::Function;
use evgen_uapi::{EVENT_SIZE, Record, SOURCE_DRIVER};
use rustix::io::Errno;

/// What a call gives: what a test program wants to see unprettied.
pub type Answer<T> = Result<T, Errno>;

/// Checks that these are the events that a program added under these numbers.
pub fn expect_events(what: &str, found: &[Record], wanted: Range<u64>) -> Result<(), Failure> {
    let good = |event: &Record| event.source == SOURCE_DRIVER && event.intact;
    expect(&format!("{what}: all whole"), found.iter().all(good), true)?;
    let numbers: Vec<u64> = found.iter().map(|event| event.sequence).collect();
    expect(what, numbers, wanted.collect())
}

/// The events that `read` has put into a buffer.
pub fn events_in(bytes: &[u8]) -> Vec<Record> {
    let (events, _) = bytes.as_chunks();
    events.iter().map(Record::parse).collect()
}

/// A device, and how to reach it.
pub struct Bench {
    index: usize,
    /// The function.
    pub function: Function,
    /// The driver's file, opened for non-blocking reading, anew for each check.
    pub device: Device,
}

impl Bench {
    /// Device number `index`, which a driver must have bound.
    pub fn new(index: usize) -> Result<Self, Failure> {
        Ok(Self {
            index,
            function: Function::find(index)?,
            device: Device::open(index, Mode::Nonblocking)?,
        })
    }

    /// A fresh file, and nothing to read.
    pub fn restore(&mut self) -> Result<(), Failure> {
        self.device = Device::open(self.index, Mode::Nonblocking)?;
        self.take_all()?;
        Ok(())
    }

    /// Opens the driver's file once more.
    pub fn open(&self, mode: Mode) -> Result<Arc<Device>, Failure> {
        Ok(Arc::new(Device::open(self.index, mode)?))
    }

    /// Adds `count` events, and gives the numbers that the driver gave them.
    pub fn add(&self, count: u64) -> Result<Range<u64>, Failure> {
        let first = self.device.counters()?.added;
        for number in 0..count {
            expect("memory for an event", self.device.add(number)?, true)?;
        }
        Ok(first..first + count)
    }

    /// Reads whatever there is.
    pub fn take_all(&self) -> Result<Vec<Record>, Failure> {
        let mut all = Vec::new();
        let mut buffer = [[0; EVENT_SIZE]; 64];
        while let Some(events) = self.device.read(&mut buffer)? {
            all.extend(events);
        }
        Ok(all)
    }

    /// Events that wait to be read.
    pub fn pending(&self) -> Result<u64, Failure> {
        Ok(self.device.counters()?.pending)
    }
}
