// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The device on the bench: its MSI-X structures by hand, its interrupts by what the driver counts.

use std::fmt::Debug;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::ktap::{self, Wrong};
use evgen_stress::status;
use evgen_uapi::{Counters, EVENT_SIZE};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use thiserror::Error;

use crate::bar::{Bar, BarError, Word};
use evgen_stress::function::{COMMAND, Function, FunctionError};

const MSIX_ID: u8 = 0x11;
/// Message Control: MSI-X Enable.
pub const ENABLE: u16 = 1 << 15;
/// Message Control: Function Mask.
pub const FUNCTION_MASK: u16 = 1 << 14;
const TABLE_SIZE: u16 = 0x7ff;
/// The BAR with table and pending bits (datasheet, "On the bus").
pub const MSIX_BAR: u8 = 2;
const COMMAND_MEMORY: u8 = 1 << 1;

/// By when what must come has come, on the slowest machine there is.
const PATIENCE: Duration = Duration::from_secs(20);
/// For how long what must not come is waited for, once all processors have taken their interrupts.
const GRACE: Duration = Duration::from_millis(20);

/// Why a rule does not hold, or could not be checked.
#[derive(Debug, Error)]
pub enum Failure {
    /// The driver.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The BAR.
    #[error(transparent)]
    Bar(#[from] BarError),
    /// Sysfs.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The scheduler.
    #[error("cannot run on each processor in turn: {0}")]
    Processors(#[source] io::Error),
    /// The device.
    #[error(transparent)]
    Wrong(#[from] Wrong),
}

impl Failure {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::Device(error) => error.status(),
            Self::Function(FunctionError::Missing { .. }) => status::UNAVAILABLE,
            _ => status::FINDING,
        }
    }
}

/// Says what is wrong if something is not as it must be.
pub fn expect<T: PartialEq + Debug>(what: &str, found: T, wanted: T) -> Result<(), Failure> {
    Ok(ktap::expect(what, found, wanted)?)
}

/// A device, and how to reach it.
pub struct Bench {
    /// Number of the device.
    pub index: usize,
    /// The function.
    pub function: Function,
    /// BAR 2.
    pub bar: Bar,
    /// The driver's file.
    pub device: Device,
    capability: u64,
}

impl Bench {
    /// Device number `index`, which a driver must have bound.
    pub fn new(index: usize) -> Result<Self, Failure> {
        let function = Function::find(index)?;
        Ok(Self {
            index,
            bar: Bar::map(&function.bar_path(MSIX_BAR))?,
            device: Device::open(index, Mode::Nonblocking)?,
            capability: function.capability(MSIX_ID)?,
            function,
        })
    }

    /// Opens the driver's file anew, after it was bound anew.
    pub fn reopen(&mut self) -> Result<(), Failure> {
        self.device = Device::open(self.index, Mode::Nonblocking)?;
        Ok(())
    }

    /// Where the MSI-X capability is.
    pub fn capability(&self) -> u64 {
        self.capability
    }

    /// Message Control.
    pub fn message_control(&self) -> Result<u16, Failure> {
        Ok(u16::from_le_bytes(self.function.read(self.capability + 2)?))
    }

    /// Writes Message Control. When this returns, the device has it.
    pub fn control(&self, value: u16) -> Result<(), Failure> {
        let written = self
            .function
            .write(self.capability + 2, &value.to_le_bytes());
        Ok(written?)
    }

    /// Number of vectors.
    pub fn vectors(&self) -> Result<usize, Failure> {
        Ok(usize::from(self.message_control()? & TABLE_SIZE) + 1)
    }

    /// Offset in BAR 2 of the table.
    pub fn table(&self) -> Result<usize, Failure> {
        self.structure(4)
    }

    /// Offset in BAR 2 of the pending bits.
    pub fn pending_bits(&self) -> Result<usize, Failure> {
        self.structure(8)
    }

    fn structure(&self, register: u64) -> Result<usize, Failure> {
        let value = u32::from_le_bytes(self.function.read(self.capability + register)?);
        expect("BAR of an MSI-X structure", value & 7, MSIX_BAR.into())?;
        Ok((value & !7) as usize)
    }

    /// Offset in BAR 2 of a vector's table entry.
    pub fn entry(&self, vector: usize) -> Result<usize, Failure> {
        Ok(self.table()? + vector * 16)
    }

    /// Reads BAR 2.
    pub fn read<T: Word>(&self, offset: usize) -> Result<T, Failure> {
        Ok(self.bar.read(offset)?)
    }

    /// Writes BAR 2.
    pub fn write<T: Word>(&self, offset: usize, value: T) -> Result<(), Failure> {
        Ok(self.bar.write(offset, value)?)
    }

    /// Masks or unmasks a vector. When this returns, the device has done it.
    pub fn mask(&self, vector: usize, masked: bool) -> Result<(), Failure> {
        let control = self.entry(vector)? + 12;
        self.write(control, u32::from(masked))?;
        expect("Vector Control", self.read(control)?, u32::from(masked))
    }

    /// The vectors whose pending bits are set.
    pub fn pending(&self) -> Result<Vec<usize>, Failure> {
        let bits = self.pending_bits()?;
        let mut pending = Vec::new();
        for vector in 0..self.vectors()? {
            let word: u64 = self.read(bits + vector / 64 * 8)?;
            if word >> (vector % 64) & 1 == 1 {
                pending.push(vector);
            }
        }
        Ok(pending)
    }

    /// Rings that the device has, each with the vector of its own number.
    pub fn rings(&self) -> Result<usize, Failure> {
        Ok(self.counters()?.rings as usize)
    }

    /// Makes `count` events on a ring. They are with the device by the next access to it.
    pub fn inject(&self, ring: usize, count: u32) -> Result<(), Failure> {
        for _ in 0..count {
            self.device.inject(ring)?;
        }
        Ok(())
    }

    /// What device and driver have counted.
    pub fn counters(&self) -> Result<Counters, Failure> {
        Ok(self.device.counters()?)
    }

    /// Times that a ring's handler ran, by now and for all that has arrived.
    pub fn interrupts(&self) -> Result<u64, Failure> {
        on_each_processor()?;
        Ok(self.counters()?.interrupts)
    }

    /// Handlers have run `more` times since there were `before` runs, and run no more.
    pub fn expect_interrupts(&self, before: u64, more: u64) -> Result<(), Failure> {
        let come = || Ok(self.counters()?.interrupts >= before + more);
        // If they do not come, the line below says how many did.
        wait_until(come)?;
        thread::sleep(GRACE);
        expect("runs of the handlers", self.interrupts()? - before, more)
    }

    /// As the driver had it: everything unmasked and sent, MSI-X enabled, the driver's list empty.
    pub fn restore(&self) -> Result<(), Failure> {
        let [command] = self.function.read(COMMAND)?;
        self.function.write(COMMAND, &[command | COMMAND_MEMORY])?;
        for vector in 0..=self.rings()? {
            self.mask(vector, false)?;
        }
        self.control(ENABLE)?;
        on_each_processor()?;
        let mut buffer = [[0; EVENT_SIZE]; 64];
        while self.device.read(&mut buffer)?.is_some() {}
        expect("pending vectors", self.pending()?, vec![])
    }
}

/// Waits until `condition` holds; false if it never does.
pub fn wait_until(mut condition: impl FnMut() -> Result<bool, Failure>) -> Result<bool, Failure> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if condition()? {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(1));
    }
    condition()
}

/// Runs on each processor in turn. One that runs a program has taken every interrupt that had
/// arrived at it before.
fn on_each_processor() -> Result<(), Failure> {
    let failed = |error: rustix::io::Errno| Failure::Processors(error.into());
    let all = sched_getaffinity(None).map_err(failed)?;
    for processor in (0..CpuSet::MAX_CPU).filter(|&processor| all.is_set(processor)) {
        let mut one = CpuSet::new();
        one.set(processor);
        sched_setaffinity(None, &one).map_err(failed)?;
    }
    sched_setaffinity(None, &all).map_err(failed)
}
