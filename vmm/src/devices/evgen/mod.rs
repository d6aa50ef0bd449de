// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The evgen devices of a machine: on the PCI bus for the guest, and for commands from the host.

mod doorbells;
mod error;
mod feed;
mod function;
mod latencies;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};

use lockstorm_device_model::{Config, Fault, Injection, Stats, Storm, StormError};

use crate::machine::clock::Clock;
use crate::machine::events::Events;
use crate::rate_limit::Occurrences;
pub use doorbells::WriteCounter;
pub use error::{CommandError, StartError};
pub use feed::{Feed, Observed};
use function::Place;
pub use function::{EvgenFunction, Sink, Wiring};
pub use latencies::Latencies;
use worker::Worker;

/// Events or interrupts made at a command while the device is kept from others.
const INJECT_BATCH: u32 = 256;

/// All evgen devices of a machine.
///
/// The lock covers nothing but the start and the end of storms, so that "is one running?" and
/// "start one" are one step. Commands take it, in any thread; devices are locked inside it.
pub struct EvgenHost {
    functions: Vec<Arc<EvgenFunction>>,
    interrupts_lost: Arc<Occurrences>,
    feed: Arc<Feed>,
    worker: Worker,
    storms: Mutex<()>,
}

impl EvgenHost {
    /// Makes a device for each of `wirings`, which go by `clock`, and starts the thread that serves
    /// them. `events` is told if that cannot go on. The sinks count in `interrupts_lost` what they
    /// cannot send.
    pub fn start(
        wirings: impl IntoIterator<Item = Wiring>,
        interrupts_lost: Arc<Occurrences>,
        config: Config,
        clock: &Clock,
        events: Events,
    ) -> Result<Self, StartError> {
        let feed = Arc::new(Feed::new().map_err(StartError::Feed)?);
        let functions = wirings
            .into_iter()
            .enumerate()
            .map(|(device, wiring)| {
                let place = Place {
                    number: device,
                    clock: clock.clone(),
                    feed: Arc::clone(&feed),
                };
                EvgenFunction::new(config, wiring, place)
                    .map(Arc::new)
                    .map_err(|source| StartError::Device { device, source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let worker = Worker::start(functions.clone(), clock, events).map_err(StartError::Worker)?;
        Ok(Self {
            functions,
            interrupts_lost,
            feed,
            worker,
            storms: Mutex::default(),
        })
    }

    /// The devices, to be put on the PCI bus in this order.
    pub fn functions(&self) -> &[Arc<EvgenFunction>] {
        &self.functions
    }

    /// Makes events on a ring, some of them at a time so that others have their turn in between.
    pub fn inject(&self, device: usize, injection: Injection) -> Result<(), CommandError> {
        let function = self.function(device)?;
        let mut left = injection.count;
        while left > 0 {
            let count = left.min(INJECT_BATCH);
            let batch = Injection { count, ..injection };
            function
                .with_device(|evgen, memory, now| evgen.inject(memory, &batch, now))
                .map_err(|source| CommandError::NoSuchRing { device, source })?;
            left -= count;
        }
        Ok(())
    }

    /// Lets the next `count` events of a ring vanish, to prove that their absence is noticed.
    pub fn withhold(&self, device: usize, ring: usize, count: u32) -> Result<(), CommandError> {
        self.function(device)?
            .with_device(|evgen, _, _| evgen.withhold(ring, count))
            .map_err(|source| CommandError::NoSuchRing { device, source })
    }

    /// Lets `fault` befall a ring or its next `count` events, or the device now. Interrupts without
    /// events are made some at a time, as events are by [`Self::inject`].
    pub fn inject_fault(
        &self,
        device: usize,
        ring: usize,
        fault: Fault,
        count: u32,
    ) -> Result<(), CommandError> {
        let function = self.function(device)?;
        let batch = match fault {
            Fault::SpuriousInterrupt => INJECT_BATCH,
            // Of these the count costs nothing, and one that lasts must get it whole.
            _ => u32::MAX,
        };
        let mut left = count;
        while left > 0 {
            let count = left.min(batch);
            function
                .with_device(|evgen, memory, now| {
                    evgen.inject_fault(memory, ring, fault, count, now)
                })
                .map_err(|source| CommandError::NoSuchRing { device, source })?;
            left -= count;
        }
        Ok(())
    }

    /// Keeps the interrupts of a vector pending, or lets them go.
    pub fn hold_vector(&self, device: usize, vector: u16, held: bool) -> Result<(), CommandError> {
        self.function(device)?
            .with_device(|evgen, _, _| evgen.hold_vector(vector, held))
            .map_err(|source| CommandError::NoSuchVector { device, source })
    }

    /// Ends all faults of a device and has it reset itself.
    pub fn reset(&self, device: usize) -> Result<(), CommandError> {
        self.function(device)?
            .with_device(|evgen, memory, now| evgen.host_reset(memory, now));
        Ok(())
    }

    /// Starts a storm on `devices`, or on all of them, or on none if it cannot start.
    pub fn start_storm(
        &self,
        storm: &Storm,
        devices: Option<&[usize]>,
    ) -> Result<(), CommandError> {
        let _storms = self.storms.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = self.named(devices)?;
        for &device in &devices {
            let stats = self
                .function(device)?
                .with_device(|evgen, _, _| evgen.stats());
            if stats.storm.is_some_and(|storm| storm.running) {
                return Err(CommandError::Storm {
                    device,
                    source: StormError::Running,
                });
            }
        }
        for &device in &devices {
            // All devices are alike, so what the first one takes they all take.
            self.function(device)?
                .with_device(|evgen, _, now| evgen.start_storm(storm, device as u64, now))
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

    /// From the delivery of an event to its acknowledgement, by device; `None` where nothing was
    /// acknowledged yet.
    pub fn latencies(&self) -> Vec<Option<Latencies>> {
        let functions = self.functions.iter();
        functions.map(|function| function.latencies()).collect()
    }

    /// Has those devices tell [`Self::feed`] of each event they make that are `wanted`, and the
    /// others not.
    pub fn observe(&self, wanted: &dyn Fn(usize) -> bool) {
        for (device, function) in self.functions.iter().enumerate() {
            function.observe(wanted(device));
        }
    }

    /// Where observed devices tell of their events.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// After the clock has been stopped: waits until no device goes by an earlier look at it. From
    /// then on nothing is done that is due.
    pub fn stand_still(&self) {
        for function in &self.functions {
            function.with_device(|_, _, _| ());
        }
    }

    /// After the clock goes on: has what is due be done.
    pub fn go_on(&self) {
        self.worker.wake();
    }

    /// The devices that are named, each once and in order: all if `None`.
    pub fn named(&self, devices: Option<&[usize]>) -> Result<Vec<usize>, CommandError> {
        let Some(devices) = devices else {
            return Ok((0..self.functions.len()).collect());
        };
        if devices.is_empty() {
            return Err(CommandError::NoDevices);
        }
        let mut devices = devices.to_vec();
        devices.sort_unstable();
        devices.dedup();
        for &device in &devices {
            self.function(device)?;
        }
        Ok(devices)
    }

    /// Interrupts that the devices sent and the host lost. Zero on a sound host.
    pub fn interrupts_lost(&self) -> u64 {
        self.interrupts_lost.count()
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

#[cfg(test)]
#[path = "evgen_test.rs"]
mod tests;
#[cfg(test)]
pub use tests::without_kvm;
