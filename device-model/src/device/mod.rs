// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The device: configuration space, registers, rings and vectors put together.

mod config;
#[cfg(test)]
pub(crate) mod guest;
mod host;
mod registers;
mod trouble;

use lockstorm_abi::event::{FLAG_ACKNOWLEDGE, PAYLOAD_SIZE, SOURCE_DOORBELL, SOURCE_STORM};
use lockstorm_abi::identity::{MAX_RING_SIZE, MSIX_BAR, REGISTER_BAR, status_vector};
use lockstorm_abi::registers::{CAUSE_SELF_RESET, cause_dropped, cause_error, decode};
use thiserror::Error;
use vm_memory::GuestMemory;

use crate::config_space::{Bar, ConfigOutcome, ConfigSpace, bar_offset};
use crate::fault::{Fault, FaultSet};
use crate::journal::Journal;
use crate::msix::{MsiSink, Msix};
use crate::ring::{Access, Draft, Moment, Ring, RingStats, Signals, Turn};
use crate::storm::{Progress, StormStatus};
pub use config::{Config, ConfigError};
pub use host::Injection;
use trouble::Trouble;

/// Storm events made by one call to [`Evgen::advance`], so that nobody waits long for the device.
const EVENTS_PER_ADVANCE: u32 = 256;
/// Latencies kept for a host that does not fetch them.
const LATENCIES_KEPT: usize = 4096;

/// The host named a ring that the device does not have.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("there is no ring {ring}: the device has rings 0 to {last}", last = rings - 1)]
pub struct NoSuchRing {
    ring: usize,
    rings: usize,
}

/// What the device has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Per ring, since power-on or the last function level reset.
    pub rings: Vec<RingStats>,
    /// Interrupts sent, per vector, since the device was made.
    pub raised: Vec<u64>,
    /// Faults that came about, by [`Fault`], since the device was made.
    pub faults: [u64; Fault::COUNT],
    /// The storm that runs, or the last one that did.
    pub storm: Option<StormStatus>,
}

/// An evgen device.
///
/// `now` is always in nanoseconds on a clock of the host's choice that starts near zero; a `now`
/// before an earlier one counts as the earlier one.
///
/// Each call that takes `now` can make something due: after it the host looks at [`Self::due`].
pub struct Evgen<S> {
    config: Config,
    space: ConfigSpace,
    msix: Msix,
    rings: Vec<Ring>,
    status_vector: u16,
    run: bool,
    cause: u32,
    trouble: Trouble,
    storm: Option<Progress>,
    journal: Journal,
    latencies: Vec<u64>,
    now: u64,
    sink: S,
}

impl<S: MsiSink> Evgen<S> {
    /// A device as after power-on, which sends its interrupts through `sink`.
    pub fn new(config: Config, sink: S) -> Result<Self, ConfigError> {
        config.check()?;
        let vectors = config.vector_count();
        Ok(Self {
            config,
            space: ConfigSpace::new(vectors),
            msix: Msix::new(vectors),
            rings: config.make_rings(),
            status_vector: status_vector(config.rings.into()) as u16,
            run: false,
            cause: 0,
            trouble: Trouble::default(),
            storm: None,
            journal: Journal::default(),
            latencies: Vec::new(),
            now: 0,
            sink,
        })
    }

    /// What the host decided.
    pub fn config(&self) -> Config {
        self.config
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        Stats {
            rings: self.rings.iter().map(Ring::stats).collect(),
            raised: self.msix.raised(),
            faults: self.journal.faults,
            storm: self.storm.as_ref().map(Progress::status),
        }
    }

    /// Reads configuration space. `offset` may be anything; beyond byte 255 there are zeros.
    pub fn config_read(&self, offset: u16, data: &mut [u8], now: u64) {
        if self.trouble.gone(now) {
            data.fill(0xff);
        } else {
            self.space.read(offset, data);
        }
    }

    /// Writes configuration space.
    pub fn config_write<M: GuestMemory>(
        &mut self,
        memory: &M,
        offset: u16,
        data: &[u8],
        now: u64,
    ) -> ConfigOutcome {
        let now = self.tick(now);
        if self.trouble.gone(now) {
            return ConfigOutcome::Done;
        }
        let written = self.space.write(offset, data);
        if written.function_level_reset {
            self.function_level_reset(&mut Access::new(memory), now);
        }
        self.msix.set_control(
            self.space.msix_enabled(),
            self.space.msix_function_masked(),
            self.space.bus_master(),
            &mut self.sink,
        );
        written.outcome
    }

    /// Resets the function as its bus does, which does what a function level reset does.
    pub fn bus_reset<M: GuestMemory>(&mut self, memory: &M, now: u64) {
        let now = self.tick(now);
        self.space.reset();
        self.function_level_reset(&mut Access::new(memory), now);
        self.msix.set_control(false, false, false, &mut self.sink);
    }

    /// Where the guest has placed the BARs, whether or not they answer.
    pub fn bars(&self) -> [Bar; 2] {
        self.space.bars()
    }

    /// Whether the BARs answer (Command, bit 1).
    pub fn memory_enabled(&self) -> bool {
        self.space.memory_enabled()
    }

    /// Places a BAR, as firmware does before the guest starts.
    pub fn place_bar(&mut self, index: u8, address: u64) {
        let Some(bar) = self.bars().into_iter().find(|bar| bar.index == index) else {
            return;
        };
        let offset = bar_offset(bar.index) as u16;
        let bytes = address.to_le_bytes();
        let width = if index == MSIX_BAR { 8 } else { 4 };
        self.space.write(offset, &bytes[..width]);
    }

    /// Reads from a BAR. Any offset and width will do; what means nothing reads as zeros.
    pub fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8], now: u64) {
        data.fill(0);
        if self.trouble.gone(now) {
            data.fill(0xff);
            return;
        }
        match bar {
            REGISTER_BAR => {
                if let Some((register, ring)) = decode(offset, data.len()) {
                    let value = self.get(register, ring, now).to_le_bytes();
                    data.copy_from_slice(&value[..data.len()]);
                }
            }
            MSIX_BAR => self.msix.read(offset, data),
            _ => {}
        }
    }

    /// Writes to a BAR. Any offset and width will do; what means nothing is ignored.
    pub fn bar_write<M: GuestMemory>(
        &mut self,
        memory: &M,
        bar: u8,
        offset: u64,
        data: &[u8],
        now: u64,
    ) {
        let now = self.tick(now);
        if self.trouble.gone(now) {
            return;
        }
        match bar {
            REGISTER_BAR => {
                if let Some((register, ring)) = decode(offset, data.len()) {
                    let mut value = [0; 8];
                    value[..data.len()].copy_from_slice(data);
                    self.set(memory, register, ring, u64::from_le_bytes(value), now);
                }
            }
            MSIX_BAR => self.msix.write(offset, data, &mut self.sink),
            _ => {}
        }
    }

    /// Takes `count` writes to ring `ring`'s doorbell at once, which the host may have counted
    /// rather than passed to [`Self::bar_write`] one by one. For a ring that is not there it does
    /// nothing.
    ///
    /// The guest must not choose how long this takes: what goes beyond the longest ring there can
    /// be is dropped without looking for buffers.
    pub fn doorbell<M: GuestMemory>(&mut self, memory: &M, ring: usize, count: u64, now: u64) {
        let now = self.tick(now);
        if self.trouble.gone(now) {
            return;
        }
        let draft = Draft {
            source: SOURCE_DOORBELL,
            kind: 0,
            flags: 0,
            payload: [0; PAYLOAD_SIZE],
            storm_offset: None,
        };
        let served = count.min(MAX_RING_SIZE.into());
        let access = &mut Access::new(memory);
        for _ in 0..served {
            self.generate(access, ring, draft, FaultSet::NONE, now);
        }
        if count > served {
            self.serve(access, ring, now, |ring, turn| {
                ring.drop_events(SOURCE_DOORBELL, count - served, turn);
            });
        }
    }

    /// When [`Self::advance`] is to be called next; `None` if there is nothing to come.
    pub fn due(&self) -> Option<u64> {
        let rings = self.rings.iter().filter_map(Ring::due).min();
        // What a device has put off waits for the end of its trouble.
        let rings = rings.map(|due| due.max(self.trouble.idle_until()));
        let storm = self.storm.as_ref().and_then(Progress::due);
        [rings, storm].into_iter().flatten().min()
    }

    /// Does what is due, as much as fits in a short time. Gives the time of the next call, which
    /// is in the past if there was too much to do; `None` if there is nothing to come.
    pub fn advance<M: GuestMemory>(&mut self, memory: &M, now: u64) -> Option<u64> {
        let now = self.tick(now);
        let access = &mut Access::new(memory);
        if now >= self.trouble.idle_until() {
            self.expire(access, now);
        }
        for _ in 0..EVENTS_PER_ADVANCE {
            let Some(event) = self.storm.as_mut().and_then(|storm| storm.next(now)) else {
                break;
            };
            let draft = Draft {
                source: SOURCE_STORM,
                kind: event.kind,
                flags: u16::from(event.acknowledge) * FLAG_ACKNOWLEDGE,
                payload: event.payload,
                storm_offset: Some(event.offset),
            };
            self.generate(access, event.ring, draft, event.faults, now);
            if !event.faults.is_empty() {
                self.befall_all(access, event.ring, event.faults, now);
            }
        }
        self.due()
    }

    /// Raises `vector`, for tests that are about nothing else.
    #[cfg(test)]
    pub(crate) fn trigger(&mut self, vector: u16) {
        self.msix.trigger(vector.into(), &mut self.sink);
    }

    #[cfg(test)]
    pub(crate) fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    /// The time, which never runs backwards.
    fn tick(&mut self, now: u64) -> u64 {
        self.now = self.now.max(now);
        self.now
    }

    fn ring_mut(&mut self, ring: usize) -> Result<&mut Ring, NoSuchRing> {
        let rings = self.rings.len();
        self.rings.get_mut(ring).ok_or(NoSuchRing { ring, rings })
    }

    /// Writing to guest memory takes bus mastering, like any write that a function makes itself.
    fn moment(&self, now: u64) -> Moment {
        let bus_master = self.space.bus_master();
        Moment {
            now,
            run: self.run && bus_master && now >= self.trouble.idle_until(),
            bus_master,
        }
    }

    fn generate<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        ring: usize,
        draft: Draft,
        faults: FaultSet,
        now: u64,
    ) {
        self.serve(access, ring, now, |ring, turn| {
            ring.generate(draft, faults, turn)
        });
    }

    fn expire<M: GuestMemory>(&mut self, access: &mut Access<'_, M>, now: u64) {
        for ring in 0..self.rings.len() {
            if self.rings[ring].due().is_some_and(|due| due <= now) {
                let late = self.serve(access, ring, now, Ring::expire);
                if let Some(vector) = late.flatten() {
                    self.msix.trigger(vector.into(), &mut self.sink);
                }
            }
        }
    }

    /// Gives ring `ring`, if there is one, a turn, and does what it then asks for.
    fn serve<'m, M: GuestMemory, T>(
        &mut self,
        access: &mut Access<'m, M>,
        ring: usize,
        now: u64,
        work: impl FnOnce(&mut Ring, &mut Turn<'_, 'm, M>) -> T,
    ) -> Option<T> {
        let moment = self.moment(now);
        let target = self.rings.get_mut(ring)?;
        let mut turn = Turn {
            access,
            moment,
            journal: &mut self.journal,
            signals: Signals::default(),
        };
        let result = work(target, &mut turn);
        let signals = turn.signals;
        self.signal(ring, signals);
        Some(result)
    }

    /// Does what a ring asks for.
    fn signal(&mut self, ring: usize, signals: Signals) {
        let vector = self.rings.get(ring).map_or(0, |ring| ring.vector);
        for _ in 0..signals.interrupts {
            self.msix.trigger(vector.into(), &mut self.sink);
        }
        let dropped = u32::from(signals.dropped) * cause_dropped(ring);
        let failed = u32::from(signals.failed) * cause_error(ring);
        self.report(dropped | failed);
    }

    /// Sets bits of `STATUS_CAUSE`; one that was not set interrupts.
    fn report(&mut self, cause: u32) {
        // What hangs or is gone from the bus has nothing to say.
        if self.now < self.trouble.idle_until() {
            return;
        }
        let new = cause & !self.cause;
        self.cause |= cause;
        if new != 0 {
            self.msix.trigger(self.status_vector.into(), &mut self.sink);
        }
    }

    /// `CONTROL` bit 1. Counters and sequence numbers go on. Configuration space and the MSI-X
    /// table are the bus's business, and stay; so does a storm, which is the host's.
    fn reset<M: GuestMemory>(&mut self, access: &mut Access<'_, M>, now: u64) {
        for ring in 0..self.rings.len() {
            self.serve(access, ring, now, Ring::reset);
        }
        self.run = false;
        self.cause = 0;
        self.status_vector = status_vector(self.rings.len()) as u16;
        self.msix.clear_pending();
        self.trouble.end_hang();
    }

    /// Puts all but configuration space into its state at power-on. Faults under way go on.
    fn function_level_reset<M: GuestMemory>(&mut self, access: &mut Access<'_, M>, now: u64) {
        self.reset(access, now);
        self.rings = self.config.make_rings();
        self.latencies.clear();
        self.msix.reset(&mut self.sink);
    }

    /// The device resets itself, which is a fault even if its host wanted it.
    fn self_reset<M: GuestMemory>(&mut self, access: &mut Access<'_, M>, now: u64) {
        self.journal.fault(Fault::SelfReset);
        self.reset(access, now);
        self.report(CAUSE_SELF_RESET);
    }
}

#[cfg(test)]
mod delivery_test;
#[cfg(test)]
mod device_test;
#[cfg(test)]
mod fault_test;
#[cfg(test)]
mod storm_test;
