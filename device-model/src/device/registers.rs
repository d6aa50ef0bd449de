// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What reading and writing each register does.

use lockstorm_abi::registers::{
    COALESCE_TIME_MAX, CONTROL_RESET, CONTROL_RUN, HEALTH_BUSY, HEALTH_HEARTBEAT_SHIFT, HEALTH_RUN,
    MAGIC, RING_FEATURE_EVENT_INDEX, Register, VERSION, cause_error,
};
use vm_memory::GuestMemory;

use super::{Evgen, LATENCIES_KEPT};
use crate::msix::MsiSink;
use crate::ring::{Access, Ring, Signals};

const NANOSECONDS_PER_HEARTBEAT: u64 = 1_000_000;

impl<S: MsiSink> Evgen<S> {
    pub(super) fn get(&self, register: Register, index: usize, now: u64) -> u64 {
        use Register as R;
        match register {
            R::Magic => MAGIC.into(),
            R::Version => VERSION.into(),
            R::Rings => self.config.rings.into(),
            R::RingSizeMax => self.config.ring_size_max.into(),
            R::Control => u64::from(self.run) * u64::from(CONTROL_RUN),
            R::StatusCause => self.cause.into(),
            R::Vectors => self.config.vector_count() as u64,
            R::StatusVector => self.status_vector.into(),
            R::Health => self.health(now),
            R::FaultCount => self.journal.faults.get(index).copied().unwrap_or(0),
            R::Doorbell | R::RingAcknowledge => 0,
            _ => self
                .rings
                .get(index)
                .map_or(0, |ring| of_ring(ring, register)),
        }
    }

    fn health(&self, now: u64) -> u64 {
        let heartbeat = self.trouble.heartbeat(now.max(self.now)) / NANOSECONDS_PER_HEARTBEAT;
        let run = u64::from(self.run) * HEALTH_RUN;
        let busy = u64::from(self.trouble.busy(now)) * HEALTH_BUSY;
        heartbeat << HEALTH_HEARTBEAT_SHIFT | run | busy
    }

    pub(super) fn set<M: GuestMemory>(
        &mut self,
        memory: &M,
        register: Register,
        ring: usize,
        value: u64,
        now: u64,
    ) {
        use Register as R;
        match register {
            // A doorbell is counted on its way, where nobody knows that the device is busy.
            R::Doorbell => self.doorbell(memory, ring, 1, now),
            _ if self.trouble.busy(now) => {}
            R::Control if value & u64::from(CONTROL_RESET) != 0 => {
                self.reset(&mut Access::new(memory), now);
            }
            R::Control => self.run = value & u64::from(CONTROL_RUN) != 0,
            R::StatusCause => self.cause &= !(value as u32),
            R::StatusVector => {
                if let Some(vector) = self.vector(value) {
                    self.status_vector = vector;
                }
            }
            R::RingVector => {
                if let (Some(vector), Ok(ring)) = (self.vector(value), self.ring_mut(ring)) {
                    ring.vector = vector;
                }
            }
            R::RingEnable => self.enable(memory, ring, value != 0, now),
            R::RingAcknowledge => self.acknowledge(ring, now),
            R::RingCoalesceCount | R::RingCoalesceTime => self.coalesce(register, ring, value),
            _ => self.lay_out(register, ring, value),
        }
    }

    /// The vector with the number that the driver has written, if there is one.
    fn vector(&self, value: u64) -> Option<u16> {
        let vector = u16::try_from(value).ok()?;
        (usize::from(vector) < self.config.vector_count()).then_some(vector)
    }

    fn enable<M: GuestMemory>(&mut self, memory: &M, ring: usize, on: bool, now: u64) {
        if !on {
            self.serve(&mut Access::new(memory), ring, now, Ring::turn_off);
        } else if self
            .rings
            .get_mut(ring)
            .is_some_and(|ring| !ring.turn_on(memory))
        {
            self.report(cause_error(ring));
        }
    }

    fn acknowledge(&mut self, ring: usize, now: u64) {
        let Some(ring) = self.rings.get_mut(ring) else {
            return;
        };
        if let Some(latency) = ring.acknowledge(now)
            && self.latencies.len() < LATENCIES_KEPT
        {
            self.latencies.push(latency);
        }
    }

    fn coalesce(&mut self, register: Register, ring: usize, value: u64) {
        let Some(target) = self.rings.get_mut(ring) else {
            return;
        };
        let (count, time) = target.coalescing();
        let signals = match register {
            Register::RingCoalesceCount if value <= u16::MAX.into() => {
                target.set_coalescing(value as u32, time)
            }
            Register::RingCoalesceTime if value <= COALESCE_TIME_MAX.into() => {
                target.set_coalescing(count, value as u32)
            }
            _ => Signals::default(),
        };
        self.signal(ring, signals);
    }

    fn lay_out(&mut self, register: Register, ring: usize, value: u64) {
        let Some(layout) = self.rings.get_mut(ring).and_then(Ring::layout_mut) else {
            return;
        };
        match register {
            Register::RingSize => layout.size = value as u32,
            Register::RingDescriptors => layout.descriptors = value,
            Register::RingAvailable => layout.available = value,
            Register::RingUsed => layout.used = value,
            Register::RingFeatures => {
                layout.event_index = value & u64::from(RING_FEATURE_EVENT_INDEX) != 0;
            }
            _ => {}
        }
    }
}

/// Those that a ring has for itself.
fn of_ring(ring: &Ring, register: Register) -> u64 {
    use Register as R;
    let (layout, stats) = (ring.layout(), ring.stats());
    match register {
        R::RingSize => layout.size.into(),
        R::RingEnable => u64::from(ring.state() != 0),
        R::RingDescriptors => layout.descriptors,
        R::RingAvailable => layout.available,
        R::RingUsed => layout.used,
        R::RingState => ring.state().into(),
        R::RingFeatures => u64::from(layout.event_index) * u64::from(RING_FEATURE_EVENT_INDEX),
        R::RingVector => ring.vector.into(),
        R::RingCoalesceCount => ring.coalescing().0.into(),
        R::RingCoalesceTime => ring.coalescing().1.into(),
        R::RingGenerated => stats.generated,
        R::RingDelivered => stats.delivered,
        R::RingDropped => stats.dropped,
        R::RingFaulted => stats.faulted,
        R::RingExtra => stats.extra,
        R::RingFull => stats.full,
        R::RingQuiet => stats.quiet,
        _ => 0,
    }
}
