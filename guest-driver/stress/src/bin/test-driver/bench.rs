// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The device on the bench, and what all checks need of it.

use std::path::Path;

pub use evgen_stress::check::{Failure, cannot, expect, wait_until};
use evgen_stress::device::{Device, Mode};
use evgen_stress::function::Function;
use evgen_stress::ktap::Wrong;
use evgen_stress::module::{self, ModuleError};
use evgen_uapi::{Counters, EVENT_SIZE, Record, RingCounters};

use crate::kernel_files::DeviceFiles;

/// The module's file.
const MODULE: &str = "/lib/modules/evgen.ko";

/// Loads the module, which is not loaded, with these parameters.
pub fn load(parameters: &str) -> Result<(), ModuleError> {
    module::load_with(Path::new(MODULE), parameters)
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
        load(parameters)?;
        self.parameters = parameters;
        self.open()
    }

    /// Closes the device and unloads the module, if it is loaded.
    pub fn unload(&mut self) -> Result<(), Failure> {
        self.device = None;
        if module::is_loaded() {
            expect("unloading the module", module::unload()?, true)?;
        }
        self.parameters = "none";
        Ok(())
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
pub fn sum(counters: &Counters, counter: fn(&RingCounters) -> u64) -> u64 {
    counters.ring.iter().map(counter).sum()
}
