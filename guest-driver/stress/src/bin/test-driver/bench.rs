// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The device on the bench, and what all checks need of it.

use std::fmt::Debug;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::function::{Function, FunctionError};
use evgen_stress::ktap::{self, Wrong};
use evgen_stress::status;
use evgen_uapi::{Counters, EVENT_SIZE, Record};
use thiserror::Error;

use crate::kernel_files::DeviceFiles;
use crate::module;

/// By when what must come has come, on the slowest machine there is.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Why a check failed, or could not be done.
#[derive(Debug, Error)]
pub enum Failure {
    /// A call that should have succeeded.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Sysfs.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// Something that has nothing to do with the driver.
    #[error("cannot {what}: {source}")]
    System {
        /// What was to be done.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The driver.
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

/// Makes a [`Failure`] of an error of the system.
pub fn cannot<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Failure {
    move |error| Failure::System {
        what: what.into(),
        source: error.into(),
    }
}

/// Says what is wrong if something is not as it must be.
pub fn expect<T: PartialEq + Debug>(what: &str, found: T, wanted: T) -> Result<(), Failure> {
    Ok(ktap::expect(what, found, wanted)?)
}

/// Waits until `condition` holds.
pub fn wait_until(
    what: &str,
    mut condition: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > PATIENCE {
            return Err(Wrong(format!("{what}: not within {} s", PATIENCE.as_secs())).into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A device, and how to reach it.
pub struct Bench {
    index: usize,
    /// The function.
    pub function: Function,
    /// The driver's file, opened for non-blocking reading; `None` while nobody may have it open.
    device: Option<Device>,
    /// What debugfs shows of it.
    pub files: DeviceFiles,
    /// With which parameters the module is loaded.
    parameters: &'static str,
}

impl Bench {
    /// Device number `index`, which a driver must have bound.
    pub fn new(index: usize) -> Result<Self, Failure> {
        let function = Function::find(index)?;
        Device::open(index, Mode::Nonblocking)?;
        let mut bench = Self {
            index,
            function,
            device: None,
            files: DeviceFiles::new(index),
            // Nobody knows, so it is loaded anew.
            parameters: "unknown",
        };
        bench.load("")?;
        Ok(bench)
    }

    /// As a check may expect it: the module loaded without parameters, the device bound and with
    /// nobody else, nothing to read, nothing that waits for its time, each event with an interrupt.
    pub fn restore(&mut self) -> Result<(), Failure> {
        if !self.parameters.is_empty() {
            self.load("")?;
        } else if self.device.is_none() || self.counters()?.deferred_pending > 0 {
            self.rebind()?;
        }
        for ring in 0..self.rings()? {
            self.device()?.set_coalescing(ring, 0, 0)?;
        }
        // What may have been on its way comes through a ring that has begun anew.
        self.device()?.reset()?;
        self.take_all()?;
        Ok(())
    }

    /// Loads the module anew, with these parameters.
    pub fn load(&mut self, parameters: &'static str) -> Result<(), Failure> {
        self.unload()?;
        module::load(parameters).map_err(cannot(format!("load the module ({parameters})")))?;
        self.parameters = parameters;
        self.open()
    }

    /// Closes the device and unloads the module, if it is loaded.
    pub fn unload(&mut self) -> Result<(), Failure> {
        self.device = None;
        self.parameters = "none";
        module::unload().map_err(cannot("unload the module"))
    }

    /// Takes the device from its driver and gives it back. The file is closed before that.
    pub fn rebind(&mut self) -> Result<(), Failure> {
        self.device = None;
        self.function.unbind()?.bind()?;
        self.open()
    }

    /// Opens the driver's file once it is there.
    pub fn open(&mut self) -> Result<(), Failure> {
        let path = Device::path(self.index);
        wait_until(&path.display().to_string(), || Ok(path.exists()))?;
        self.device = Some(Device::open(self.index, Mode::Nonblocking)?);
        Ok(())
    }

    /// Closes the driver's file.
    pub fn close(&mut self) {
        self.device = None;
    }

    /// One more file of the driver.
    pub fn another(&self) -> Result<Device, Failure> {
        Ok(Device::open(self.index, Mode::Nonblocking)?)
    }

    /// The driver's file.
    pub fn device(&self) -> Result<&Device, Failure> {
        let closed = || Wrong("the check before this one left the device closed".to_owned());
        Ok(self.device.as_ref().ok_or_else(closed)?)
    }

    /// What device and driver have counted.
    pub fn counters(&self) -> Result<Counters, Failure> {
        Ok(self.device()?.counters()?)
    }

    /// Rings that the device has.
    pub fn rings(&self) -> Result<usize, Failure> {
        Ok(self.counters()?.rings as usize)
    }

    /// Makes `count` events on ring 0 and waits until they are in the list, or have left it.
    pub fn inject(&self, count: u64) -> Result<(), Failure> {
        let before = self.counters()?.ring[0].received;
        for _ in 0..count {
            self.device()?.inject(0)?;
        }
        wait_until("events after their doorbells", || {
            Ok(self.counters()?.ring[0].received == before + count)
        })
    }

    /// Reads whatever there is.
    pub fn take_all(&self) -> Result<Vec<Record>, Failure> {
        let mut all = Vec::new();
        let mut buffer = [[0; EVENT_SIZE]; 64];
        while let Some(events) = self.device()?.read(&mut buffer)? {
            all.extend(events);
        }
        Ok(all)
    }
}

/// Sum over the rings of one of their counters.
pub fn sum(counters: &Counters, counter: fn(&evgen_uapi::RingCounters) -> u64) -> u64 {
    counters.ring.iter().map(counter).sum()
}
