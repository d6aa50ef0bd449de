// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The evgen devices of a machine: on the PCI bus for the guest, and for commands from the host.

mod doorbells;
mod error;
mod feed;
mod function;
mod latencies;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstorm_device_model::{Config, Evgen, Fault, Injection, RingStats, Storm, StormError};
use vmm_sys_util::eventfd::EventFd;

use crate::machine::clock::Clock;
use crate::machine::events::Events;
use crate::machine::memory::Memory;
use crate::rate_limit::Occurrences;
pub use doorbells::WriteCounter;
pub use error::{AddError, CommandError, StartError};
pub use feed::{Feed, Observed};
pub use function::{EvgenFunction, Figures, Sink, Wiring};
use function::{Gone, Place};
pub use latencies::Latencies;
use worker::Worker;

/// Events or interrupts made at a command while the device is kept from others.
const INJECT_BATCH: u32 = 256;
/// Devices that are gone and whose figures are kept: those that went last.
const GONE_KEPT: usize = 32;

/// All evgen devices of a machine, each with a number that no other has had.
///
/// `devices` covers which devices there are. Any thread takes it, to find one or to add one; inside it
/// devices are locked, and the list of those that the worker does not know yet.
///
/// `storms` covers nothing but the start and the end of storms, so that "is one running?" and "start
/// one" are one step. Commands take it, in any thread; inside it `devices` is taken, and devices are
/// locked.
pub struct EvgenHost {
    interrupts_lost: Arc<Occurrences>,
    clock: Clock,
    feed: Arc<Feed>,
    wake: Arc<EventFd>,
    worker: Worker,
    devices: Mutex<Devices>,
    storms: Mutex<()>,
}

/// Devices by number: those that are there, and the last of those that are gone.
#[derive(Default)]
struct Devices {
    functions: BTreeMap<usize, Arc<EvgenFunction>>,
    next: usize,
    forgotten: Forgotten,
}

/// What those devices had counted that have been gone for so long that no more is kept of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many.
    pub devices: u64,
    /// The sums over all their rings.
    pub rings: RingStats,
}

impl EvgenHost {
    /// No devices yet. They will go by `clock`, and are served by a thread that is started here;
    /// `events` is told if it cannot go on. Their sinks count in `interrupts_lost` what they cannot
    /// send.
    pub fn start(
        interrupts_lost: Arc<Occurrences>,
        clock: &Clock,
        events: Events,
    ) -> Result<Self, StartError> {
        let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let wake = Arc::new(wake.map_err(StartError::Eventfd)?);
        let worker = Worker::start(Arc::clone(&wake), clock, events);
        Ok(Self {
            interrupts_lost,
            clock: clock.clone(),
            feed: Arc::new(Feed::new().map_err(StartError::Eventfd)?),
            wake,
            worker: worker.map_err(StartError::Worker)?,
            devices: Mutex::default(),
            storms: Mutex::default(),
        })
    }

    /// Makes one more device, wired to the machine by `wiring`; gives its number and what is to be put
    /// on a bus.
    pub fn add(
        &self,
        config: Config,
        wiring: Wiring,
    ) -> Result<(usize, Arc<EvgenFunction>), AddError> {
        let mut devices = self.devices();
        let device = devices.next;
        let place = Place {
            number: device,
            clock: self.clock.clone(),
            feed: Arc::clone(&self.feed),
            wake: Arc::clone(&self.wake),
        };
        let function = EvgenFunction::new(config, wiring, place)
            .map_err(|source| AddError::Device { device, source })?;
        let function = Arc::new(function);
        self.worker
            .serve(Arc::clone(&function))
            .map_err(AddError::Worker)?;
        devices.next += 1;
        devices.functions.insert(device, Arc::clone(&function));
        devices.forget_old();
        Ok((device, function))
    }

    /// Makes events on a ring, some of them at a time so that others have their turn in between.
    pub fn inject(&self, device: usize, injection: Injection) -> Result<(), CommandError> {
        let mut left = injection.count;
        while left > 0 {
            let count = left.min(INJECT_BATCH);
            let batch = Injection { count, ..injection };
            self.with_device(device, |evgen, memory, now| {
                evgen.inject(memory, &batch, now)
            })?
            .map_err(|source| CommandError::NoSuchRing { device, source })?;
            left -= count;
        }
        Ok(())
    }

    /// Lets the next `count` events of a ring vanish, to prove that their absence is noticed.
    pub fn withhold(&self, device: usize, ring: usize, count: u32) -> Result<(), CommandError> {
        self.with_device(device, |evgen, _, _| evgen.withhold(ring, count))?
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
        let batch = match fault {
            Fault::SpuriousInterrupt => INJECT_BATCH,
            // Of these the count costs nothing, and one that lasts must get it whole.
            _ => u32::MAX,
        };
        let mut left = count;
        while left > 0 {
            let count = left.min(batch);
            self.with_device(device, |evgen, memory, now| {
                evgen.inject_fault(memory, ring, fault, count, now)
            })?
            .map_err(|source| CommandError::NoSuchRing { device, source })?;
            left -= count;
        }
        Ok(())
    }

    /// Keeps the interrupts of a vector pending, or lets them go.
    pub fn hold_vector(&self, device: usize, vector: u16, held: bool) -> Result<(), CommandError> {
        self.with_device(device, |evgen, _, _| evgen.hold_vector(vector, held))?
            .map_err(|source| CommandError::NoSuchVector { device, source })
    }

    /// Ends all faults of a device and has it reset itself.
    pub fn reset(&self, device: usize) -> Result<(), CommandError> {
        self.with_device(device, |evgen, memory, now| evgen.host_reset(memory, now))
    }

    /// Starts a storm on `devices`, or on all of them, or on none if it cannot start. One that is
    /// taken out meanwhile does not count.
    pub fn start_storm(
        &self,
        storm: &Storm,
        devices: Option<&[usize]>,
    ) -> Result<(), CommandError> {
        let _storms = self.storms.lock().unwrap_or_else(PoisonError::into_inner);
        let functions = self.named(devices)?;
        for function in &functions {
            let device = function.number();
            let stats = function.with_device(|evgen, _, _| evgen.stats());
            let stats = stats.map_err(|Gone| CommandError::Gone { device })?;
            // One with few rings does not take every storm.
            storm
                .check_rings(stats.rings.len() as u8)
                .map_err(|source| CommandError::Storm { device, source })?;
            if stats.storm.is_some_and(|storm| storm.running) {
                return Err(CommandError::Storm {
                    device,
                    source: StormError::Running,
                });
            }
        }
        for function in &functions {
            let device = function.number();
            let started =
                function.with_device(|evgen, _, now| evgen.start_storm(storm, device as u64, now));
            if let Ok(Err(source)) = started {
                return Err(CommandError::Storm { device, source });
            }
        }
        Ok(())
    }

    /// Ends all storms.
    pub fn stop_storm(&self) {
        let _storms = self.storms.lock().unwrap_or_else(PoisonError::into_inner);
        for function in self.functions() {
            let _ = function.with_device(|evgen, _, _| evgen.stop_storm());
        }
    }

    /// What each device has counted, also those that are gone, as far as that is kept.
    pub fn figures(&self) -> Vec<Figures> {
        let functions = self.functions().into_iter();
        functions.map(|function| function.figures()).collect()
    }

    /// What is left of those devices that [`Self::figures`] knows no more.
    pub fn forgotten(&self) -> Forgotten {
        self.devices().forgotten
    }

    /// Has those devices tell [`Self::feed`] of each event they make that are `wanted`, and the
    /// others not.
    pub fn observe(&self, wanted: &dyn Fn(usize) -> bool) {
        for function in self.functions() {
            function.observe(wanted(function.number()));
        }
    }

    /// Where observed devices tell of their events.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// After the clock has been stopped: waits until no device goes by an earlier look at it. From
    /// then on nothing is done that is due.
    pub fn stand_still(&self) {
        for function in self.functions() {
            let _ = function.with_device(|_, _, _| ());
        }
    }

    /// After the clock goes on: has what is due be done.
    pub fn go_on(&self) {
        self.worker.wake();
    }

    /// Whether there is a device of each number.
    pub fn check(&self, devices: Option<&[usize]>) -> Result<(), CommandError> {
        self.named(devices).map(drop)
    }

    /// Interrupts that the devices sent and the host lost. Zero on a sound host.
    pub fn interrupts_lost(&self) -> u64 {
        self.interrupts_lost.count()
    }

    /// Ends the thread that serves the devices.
    pub fn stop(&self) {
        self.worker.stop();
    }

    /// The devices that are named, each once and in order: all that are there if `None`.
    fn named(&self, devices: Option<&[usize]>) -> Result<Vec<Arc<EvgenFunction>>, CommandError> {
        let Some(devices) = devices else {
            return Ok(self.functions_here());
        };
        if devices.is_empty() {
            return Err(CommandError::NoDevices);
        }
        let mut devices = devices.to_vec();
        devices.sort_unstable();
        devices.dedup();
        let devices = devices.into_iter();
        devices.map(|device| self.function(device)).collect()
    }

    /// Lends a device that is there.
    fn with_device<T>(
        &self,
        device: usize,
        action: impl FnOnce(&mut Evgen<Sink>, &Memory, u64) -> T,
    ) -> Result<T, CommandError> {
        let function = self.function(device)?;
        let result = function.with_device(action);
        result.map_err(|Gone| CommandError::Gone { device })
    }

    /// A device that is there.
    fn function(&self, device: usize) -> Result<Arc<EvgenFunction>, CommandError> {
        let (function, next) = {
            let devices = self.devices();
            (devices.functions.get(&device).cloned(), devices.next)
        };
        match function {
            Some(function) if !function.is_gone() => Ok(function),
            None if device >= next => {
                let here = self.functions_here();
                Err(CommandError::NoSuchDevice {
                    device,
                    devices: here.iter().map(|function| function.number()).collect(),
                })
            }
            _ => Err(CommandError::Gone { device }),
        }
    }

    fn functions_here(&self) -> Vec<Arc<EvgenFunction>> {
        let mut functions = self.functions();
        functions.retain(|function| !function.is_gone());
        functions
    }

    fn functions(&self) -> Vec<Arc<EvgenFunction>> {
        self.devices().functions.values().cloned().collect()
    }

    fn devices(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Devices {
    /// Forgets those that have been gone for longest.
    fn forget_old(&mut self) {
        let functions = self.functions.iter();
        let gone = functions.filter(|(_, function)| function.is_gone());
        let gone: Vec<_> = gone.map(|(device, _)| *device).collect();
        for device in &gone[..gone.len().saturating_sub(GONE_KEPT)] {
            if let Some(function) = self.functions.remove(device) {
                self.forgotten.add(&function.figures());
            }
        }
    }
}

impl Forgotten {
    fn add(&mut self, figures: &Figures) {
        self.devices += 1;
        let sums = &mut self.rings;
        for ring in &figures.stats.rings {
            sums.generated += ring.generated;
            sums.delivered += ring.delivered;
            sums.dropped += ring.dropped;
            sums.faulted += ring.faulted;
            sums.extra += ring.extra;
            sums.full += ring.full;
            sums.quiet += ring.quiet;
        }
    }
}

#[cfg(test)]
#[path = "evgen_test.rs"]
mod tests;
#[cfg(test)]
pub use tests::{wired_to_nothing, without_kvm};
