// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The evgen devices of a machine: on the PCI bus for the guest, and for commands from the host.

mod doorbells;
mod function;
mod storm;
mod worker;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kvm_ioctls::VmFd;
use lockstorm_device_model::abi::event::PAYLOAD_SIZE;
use lockstorm_device_model::{Config, Injection, NoSuchRing, Stats, StormError};
use thiserror::Error;

use crate::machine::events::Events;
use crate::machine::interrupts::InterruptRouter;
use crate::machine::memory::Memory;
use crate::pci::PciFunction;
use doorbells::WriteCounter;
use function::{EvgenFunction, NewError};
pub use storm::StormRequest;
use worker::Worker;

/// Events injected while the device is kept from others.
const INJECT_BATCH: u32 = 256;

/// Devices that cannot be made.
#[derive(Debug, Error)]
pub enum StartError {
    /// One of them cannot.
    #[error("cannot make evgen device {device}: {source}")]
    Device {
        /// Which one.
        device: usize,
        /// Why.
        source: NewError,
    },
    /// Their thread cannot.
    #[error("cannot start the thread that serves evgen devices: {0}")]
    Worker(#[source] io::Error),
}

/// A command that cannot be done. Nothing has changed then.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// There is no such device.
    #[error("there is no device {device}: the machine has {devices}, counted from 0")]
    NoSuchDevice {
        /// What was asked for.
        device: usize,
        /// How many there are.
        devices: usize,
    },
    /// The device has no such ring.
    #[error("device {device}: {source}")]
    NoSuchRing {
        /// Which device.
        device: usize,
        /// What it says.
        source: NoSuchRing,
    },
    /// The device does not start this storm.
    #[error("device {device}: {source}")]
    Storm {
        /// Which device.
        device: usize,
        /// What it says.
        source: StormError,
    },
    /// A storm on no device.
    #[error("the storm names no device: leave `devices` out to mean all")]
    NoDevices,
}

/// All evgen devices of a machine.
///
/// The lock covers nothing but the start and the end of storms, so that "is one running?" and
/// "start one" are one step. Commands take it, in any thread; devices are locked inside it.
pub struct EvgenHost {
    functions: Vec<Arc<EvgenFunction>>,
    router: Arc<InterruptRouter>,
    worker: Worker,
    storms: Mutex<()>,
}

impl EvgenHost {
    /// Makes `devices` devices, which work for the guest in `memory` and take the time since
    /// `started` for the time, and starts the thread that serves them. `events` is told if that
    /// cannot go on.
    pub fn start(
        vm: Arc<VmFd>,
        router: Arc<InterruptRouter>,
        memory: &Memory,
        devices: usize,
        config: Config,
        started: Instant,
        events: Events,
    ) -> Result<Self, StartError> {
        Self::with_counter(vm, router, memory, devices, config, started, events)
    }

    fn with_counter(
        counter: Arc<dyn WriteCounter>,
        router: Arc<InterruptRouter>,
        memory: &Memory,
        devices: usize,
        config: Config,
        started: Instant,
        events: Events,
    ) -> Result<Self, StartError> {
        let functions = (0..devices)
            .map(|device| {
                let (router, counter) = (Arc::clone(&router), Arc::clone(&counter));
                EvgenFunction::new(config, router, counter, memory.clone(), started)
                    .map(Arc::new)
                    .map_err(|source| StartError::Device { device, source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let worker =
            Worker::start(functions.clone(), started, events).map_err(StartError::Worker)?;
        Ok(Self {
            functions,
            router,
            worker,
            storms: Mutex::default(),
        })
    }

    /// The devices, to be put on the PCI bus in this order.
    pub fn functions(&self) -> impl Iterator<Item = Arc<dyn PciFunction>> {
        let functions = self.functions.iter();
        functions.map(|function| Arc::clone(function) as Arc<dyn PciFunction>)
    }

    /// Makes `count` events of `kind` on a ring.
    pub fn inject(
        &self,
        device: usize,
        ring: usize,
        kind: u16,
        count: u32,
    ) -> Result<(), CommandError> {
        let function = self.function(device)?;
        let mut left = count;
        while left > 0 {
            let batch = left.min(INJECT_BATCH);
            function
                .with_device(|evgen, memory, now| {
                    evgen.inject(
                        memory,
                        &Injection {
                            ring,
                            kind,
                            payload: [0; PAYLOAD_SIZE],
                            count: batch,
                            acknowledge: false,
                        },
                        now,
                    )
                })
                .map_err(|source| CommandError::NoSuchRing { device, source })?;
            left -= batch;
        }
        Ok(())
    }

    /// Lets the next `count` events of a ring vanish, to prove that their absence is noticed.
    pub fn withhold(&self, device: usize, ring: usize, count: u32) -> Result<(), CommandError> {
        self.function(device)?
            .with_device(|evgen, _, _| evgen.withhold(ring, count))
            .map_err(|source| CommandError::NoSuchRing { device, source })
    }

    /// Starts a storm on all the devices that it names, or on none.
    pub fn start_storm(&self, request: &StormRequest) -> Result<(), CommandError> {
        let _storms = self.storms.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = match &request.devices {
            None => (0..self.functions.len()).collect(),
            Some(devices) => distinct(devices),
        };
        if devices.is_empty() {
            return Err(CommandError::NoDevices);
        }
        for &device in &devices {
            let running = self
                .function(device)?
                .with_device(|evgen, _, _| evgen.stats());
            if running.storm.is_some_and(|storm| storm.running) {
                return Err(CommandError::Storm {
                    device,
                    source: StormError::Running,
                });
            }
        }
        let storm = request.to_storm();
        for &device in &devices {
            // All devices are alike, so what the first one takes they all take.
            self.function(device)?
                .with_device(|evgen, _, now| {
                    evgen.start_storm(storm.as_ref().map_err(Clone::clone)?, device as u64, now)
                })
                .map_err(|source| CommandError::Storm { device, source })?;
        }
        Ok(())
    }

    /// Ends all storms.
    pub fn stop_storm(&self) {
        let _storms = self.storms.lock().unwrap_or_else(PoisonError::into_inner);
        for function in &self.functions {
            function.with_device(|evgen, _, _| evgen.stop_storm());
        }
    }

    /// What each device has counted.
    pub fn stats(&self) -> Vec<Stats> {
        let functions = self.functions.iter();
        functions
            .map(|function| function.with_device(|evgen, _, _| evgen.stats()))
            .collect()
    }

    /// Interrupts that the devices sent and the host lost. Zero on a sound host.
    pub fn interrupts_lost(&self) -> u64 {
        self.router.failures()
    }

    /// Ends the thread that serves the devices.
    pub fn stop(&self) {
        self.worker.stop();
    }

    fn function(&self, device: usize) -> Result<&EvgenFunction, CommandError> {
        let devices = self.functions.len();
        self.functions
            .get(device)
            .map(Arc::as_ref)
            .ok_or(CommandError::NoSuchDevice { device, devices })
    }
}

fn distinct(devices: &[usize]) -> Vec<usize> {
    let mut devices = devices.to_vec();
    devices.sort_unstable();
    devices.dedup();
    devices
}

#[cfg(test)]
#[path = "evgen_test.rs"]
mod tests;
