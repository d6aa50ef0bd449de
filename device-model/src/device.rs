// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The device: configuration space, registers, rings and vectors put together.

use lockstorm_abi::event::{
    Event, NO_RING, PAYLOAD_SIZE, SOURCE_DOORBELL, SOURCE_INJECT, SOURCE_STORM,
};
use lockstorm_abi::identity::{
    MAX_RING_SIZE, MAX_RINGS, MSIX_BAR, REGISTER_BAR, ring_vector, status_vector, vector_count,
};
use lockstorm_abi::registers::{
    CONTROL_RESET, CONTROL_RUN, MAGIC, Register, VERSION, cause_dropped, cause_error, decode,
};
use thiserror::Error;
use vm_memory::GuestMemory;

use crate::config_space::{Bar, ConfigOutcome, ConfigSpace, bar_offset};
use crate::msix::{MsiSink, Msix};
use crate::ring::{Fate, Ring, RingStats};
use crate::storm::{Progress, Storm, StormError, StormStatus};

/// Storm events made by one call to [`Evgen::advance`], so that nobody waits long for the device.
const EVENTS_PER_ADVANCE: u32 = 256;

/// What the host decides about a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Event rings: 1 to 8.
    pub rings: u8,
    /// Largest ring that a driver may set up, in descriptors: a power of two from 2 to 1024.
    pub ring_size_max: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rings: 4,
            ring_size_max: MAX_RING_SIZE,
        }
    }
}

/// A device that cannot be made.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Too few or too many rings.
    #[error("a device with {0} rings: must be 1 to {MAX_RINGS}")]
    Rings(u8),
    /// Not a possible size.
    #[error("rings of at most {0} descriptors: must be a power of two from 2 to {MAX_RING_SIZE}")]
    RingSize(u16),
}

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
    /// Per ring, since the driver last reset the device.
    pub rings: Vec<RingStats>,
    /// Interrupts sent, per vector, since the device was made.
    pub raised: Vec<u64>,
    /// The storm that runs, or the last one that did.
    pub storm: Option<StormStatus>,
}

/// An evgen device.
///
/// `now` is always in nanoseconds on a clock of the host's choice that starts near zero; a `now`
/// before an earlier one counts as the earlier one.
pub struct Evgen<S> {
    config: Config,
    space: ConfigSpace,
    msix: Msix,
    rings: Vec<Ring>,
    run: bool,
    cause: u32,
    storm: Option<Progress>,
    last_storm: Option<StormStatus>,
    now: u64,
    sink: S,
}

impl<S: MsiSink> Evgen<S> {
    /// A device as after reset, which sends its interrupts through `sink`.
    pub fn new(config: Config, sink: S) -> Result<Self, ConfigError> {
        let Config {
            rings,
            ring_size_max,
        } = config;
        if rings == 0 || usize::from(rings) > MAX_RINGS {
            return Err(ConfigError::Rings(rings));
        }
        if !(2..=MAX_RING_SIZE).contains(&ring_size_max) || !ring_size_max.is_power_of_two() {
            return Err(ConfigError::RingSize(ring_size_max));
        }
        let vectors = vector_count(usize::from(rings));
        Ok(Self {
            config,
            space: ConfigSpace::new(vectors),
            msix: Msix::new(vectors),
            rings: (0..u16::from(rings))
                .map(|index| Ring::new(index, ring_size_max))
                .collect(),
            run: false,
            cause: 0,
            storm: None,
            last_storm: None,
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
            storm: self
                .storm
                .as_ref()
                .map(Progress::status)
                .or(self.last_storm),
        }
    }

    /// Reads configuration space. `offset` may be anything; beyond byte 255 there are zeros.
    pub fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    /// Writes configuration space.
    pub fn config_write(&mut self, offset: u16, data: &[u8]) -> ConfigOutcome {
        let outcome = self.space.write(offset, data);
        self.msix.set_control(
            self.space.msix_enabled(),
            self.space.msix_function_masked(),
            self.space.bus_master(),
            &mut self.sink,
        );
        outcome
    }

    /// Places a BAR where the host's firmware would; the bits below its size are ignored.
    pub fn place_bar(&mut self, index: u8, address: u64) {
        let width = if index == MSIX_BAR { 8 } else { 4 };
        let address = &address.to_le_bytes()[..width];
        self.space.write(bar_offset(index) as u16, address);
    }

    /// Where the BARs are. They answer only while [`Self::memory_enabled`].
    pub fn bars(&self) -> [Bar; 2] {
        self.space.bars()
    }

    /// Whether the guest lets the device decode memory accesses (Command, bit 1).
    pub fn memory_enabled(&self) -> bool {
        self.space.memory_enabled()
    }

    /// Reads from a BAR. Any offset and width will do; what means nothing gives zeros.
    pub fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match bar {
            REGISTER_BAR => {
                let value =
                    decode(offset, data.len()).map(|(register, ring)| self.get(register, ring));
                for (byte, value) in data.iter_mut().zip(value.unwrap_or(0).to_le_bytes()) {
                    *byte = value;
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
        let served = count.min(MAX_RING_SIZE.into());
        for _ in 0..served {
            self.generate(memory, ring, SOURCE_DOORBELL, 0, [0; PAYLOAD_SIZE], now);
        }
        if count > served
            && let Ok(target) = self.ring_mut(ring)
        {
            target.drop_events(SOURCE_DOORBELL, count - served);
            self.report(cause_dropped(ring));
        }
    }

    /// Makes `count` equal events on ring `ring`.
    pub fn inject<M: GuestMemory>(
        &mut self,
        memory: &M,
        ring: usize,
        kind: u16,
        payload: [u8; PAYLOAD_SIZE],
        count: u32,
        now: u64,
    ) -> Result<(), NoSuchRing> {
        self.ring_mut(ring)?;
        for _ in 0..count {
            self.generate(memory, ring, SOURCE_INJECT, kind, payload, now);
        }
        Ok(())
    }

    /// Makes the next `count` events of ring `ring` vanish: they count as delivered and are never
    /// written. With it a test proves that it would notice a lost event.
    pub fn withhold(&mut self, ring: usize, count: u32) -> Result<(), NoSuchRing> {
        self.ring_mut(ring)?.withhold(count);
        Ok(())
    }

    /// Starts a storm. The host then calls [`Self::advance`]. `instance`, the device's number, is
    /// added to the seeds, so that no two devices make the same events.
    pub fn start_storm(
        &mut self,
        storm: &Storm,
        instance: u64,
        now: u64,
    ) -> Result<(), StormError> {
        if self.storm.is_some() {
            return Err(StormError::Running);
        }
        let rings = self.config.rings;
        self.storm = Some(Progress::begin(storm, instance, rings, now)?);
        Ok(())
    }

    /// Ends the storm, if there is one.
    pub fn stop_storm(&mut self) {
        if let Some(storm) = self.storm.take() {
            self.last_storm = Some(StormStatus {
                running: false,
                ..storm.status()
            });
        }
    }

    /// Does what is due, as much as fits in a short time. Gives the time of the next call, which
    /// is in the past if there was too much to do; `None` if there is nothing to come.
    pub fn advance<M: GuestMemory>(&mut self, memory: &M, now: u64) -> Option<u64> {
        for _ in 0..EVENTS_PER_ADVANCE {
            let Some(event) = self.storm.as_mut()?.next(now) else {
                break;
            };
            self.generate(
                memory,
                event.ring,
                SOURCE_STORM,
                event.kind,
                event.payload,
                now,
            );
        }
        let due = self.storm.as_ref()?.due();
        if due.is_none() {
            self.stop_storm();
        }
        due
    }

    #[cfg(test)]
    pub(crate) fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    fn ring_mut(&mut self, ring: usize) -> Result<&mut Ring, NoSuchRing> {
        let rings = self.rings.len();
        self.rings.get_mut(ring).ok_or(NoSuchRing { ring, rings })
    }

    fn generate<M: GuestMemory>(
        &mut self,
        memory: &M,
        ring: usize,
        source: u16,
        kind: u16,
        payload: [u8; PAYLOAD_SIZE],
        now: u64,
    ) {
        self.now = self.now.max(now);
        let event = Event {
            sequence: 0,
            timestamp: self.now,
            source,
            kind,
            ring: NO_RING,
            flags: 0,
            payload,
        };
        // Writing to guest memory takes bus mastering, like any write that a function makes itself.
        let run = self.run && self.space.bus_master();
        let Ok(target) = self.ring_mut(ring) else {
            return;
        };
        match target.generate(memory, event, run) {
            Fate::Delivered => self.msix.trigger(ring_vector(ring), &mut self.sink),
            Fate::Withheld => {}
            Fate::Dropped => self.report(cause_dropped(ring)),
            Fate::Failed => self.report(cause_dropped(ring) | cause_error(ring)),
        }
    }

    /// Sets bits of `STATUS_CAUSE`; one that was not set interrupts.
    fn report(&mut self, cause: u32) {
        let new = cause & !self.cause;
        self.cause |= cause;
        if new != 0 {
            let vector = status_vector(self.rings.len());
            self.msix.trigger(vector, &mut self.sink);
        }
    }

    fn get(&self, register: Register, ring: usize) -> u64 {
        use Register as R;
        match register {
            R::Magic => MAGIC.into(),
            R::Version => VERSION.into(),
            R::Rings => self.config.rings.into(),
            R::RingSizeMax => self.config.ring_size_max.into(),
            R::Control => u64::from(self.run) * u64::from(CONTROL_RUN),
            R::StatusCause => self.cause.into(),
            R::Doorbell => 0,
            _ => self.rings.get(ring).map_or(0, |ring| match register {
                R::RingSize => ring.layout().size.into(),
                R::RingEnable => u64::from(ring.state() != 0),
                R::RingDescriptors => ring.layout().descriptors,
                R::RingAvailable => ring.layout().available,
                R::RingUsed => ring.layout().used,
                R::RingGenerated => ring.stats().generated,
                R::RingDelivered => ring.stats().delivered,
                R::RingDropped => ring.stats().dropped,
                _ => ring.state().into(),
            }),
        }
    }

    fn set<M: GuestMemory>(
        &mut self,
        memory: &M,
        register: Register,
        ring: usize,
        value: u64,
        now: u64,
    ) {
        match register {
            Register::Control if value & u64::from(CONTROL_RESET) != 0 => self.reset(),
            Register::Control => self.run = value & u64::from(CONTROL_RUN) != 0,
            Register::StatusCause => self.cause &= !(value as u32),
            Register::Doorbell => self.doorbell(memory, ring, 1, now),
            Register::RingEnable => self.enable(memory, ring, value != 0),
            _ => {
                let Some(layout) = self.rings.get_mut(ring).and_then(Ring::layout_mut) else {
                    return;
                };
                match register {
                    Register::RingSize => layout.size = value as u32,
                    Register::RingDescriptors => layout.descriptors = value,
                    Register::RingAvailable => layout.available = value,
                    Register::RingUsed => layout.used = value,
                    _ => {}
                }
            }
        }
    }

    fn enable<M: GuestMemory>(&mut self, memory: &M, ring: usize, on: bool) {
        let Ok(target) = self.ring_mut(ring) else {
            return;
        };
        if !on {
            target.turn_off();
        } else if !target.turn_on(memory) {
            self.report(cause_error(ring));
        }
    }

    /// `CONTROL` bit 1. Configuration space and the MSI-X table are the bus's business, and stay;
    /// so does a storm, which is the host's.
    fn reset(&mut self) {
        self.run = false;
        self.cause = 0;
        for ring in &mut self.rings {
            ring.reset();
        }
        self.msix.clear_pending();
    }
}
