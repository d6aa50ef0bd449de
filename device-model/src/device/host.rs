// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the host can make the device do, and what it gets to see.

use lockstorm_abi::event::{FLAG_ACKNOWLEDGE, PAYLOAD_SIZE, SOURCE_INJECT};
use vm_memory::GuestMemory;

use super::trouble::Trouble;
use super::{Evgen, NoSuchRing};
use crate::fault::{Fault, FaultSet, Scope};
use crate::journal::Made;
use crate::msix::{MsiSink, NoSuchVector};
use crate::ring::{Access, Draft};
use crate::storm::{Progress, Storm, StormError};

/// Equal events to make on one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The ring.
    pub ring: usize,
    /// Their kind.
    pub kind: u16,
    /// Their payload.
    pub payload: [u8; PAYLOAD_SIZE],
    /// How many.
    pub count: u32,
    /// Whether the handler is to acknowledge each.
    pub acknowledge: bool,
}

impl<S: MsiSink> Evgen<S> {
    /// Makes equal events.
    pub fn inject<M: GuestMemory>(
        &mut self,
        memory: &M,
        injection: &Injection,
        now: u64,
    ) -> Result<(), NoSuchRing> {
        self.ring_mut(injection.ring)?;
        let now = self.tick(now);
        let draft = Draft {
            source: SOURCE_INJECT,
            kind: injection.kind,
            flags: u16::from(injection.acknowledge) * FLAG_ACKNOWLEDGE,
            payload: injection.payload,
            storm_offset: None,
        };
        let access = &mut Access::new(memory);
        for _ in 0..injection.count {
            self.generate(access, injection.ring, draft, FaultSet::NONE, now);
        }
        Ok(())
    }

    /// Makes the next `count` events of ring `ring` vanish: they count as delivered and are never
    /// written. With it a test proves that it would notice a lost event.
    pub fn withhold(&mut self, ring: usize, count: u32) -> Result<(), NoSuchRing> {
        self.ring_mut(ring)?.withhold(count);
        Ok(())
    }

    /// Lets `fault` befall the next `count` events or interrupts of ring `ring`, or the ring the
    /// next `count` times that it is turned off. A fault of the device happens now, `count` times
    /// over, but 65,536 times at most or, if it lasts, for `count` times its time, but for an hour
    /// at most; a spurious interrupt is ring `ring`'s. However large `count` is, it resets once.
    pub fn inject_fault<M: GuestMemory>(
        &mut self,
        memory: &M,
        ring: usize,
        fault: Fault,
        count: u32,
        now: u64,
    ) -> Result<(), NoSuchRing> {
        let target = self.ring_mut(ring)?;
        match fault.scope() {
            Scope::Event | Scope::Ring => target.arm(fault, count),
            Scope::Now => {
                let now = self.tick(now);
                self.befall(&mut Access::new(memory), ring, fault, count, now);
            }
        }
        Ok(())
    }

    /// Keeps the interrupts of `vector` pending, or lets them go, whatever the guest has masked.
    pub fn hold_vector(&mut self, vector: u16, held: bool) -> Result<(), NoSuchVector> {
        self.msix.hold(vector, held, &mut self.sink)
    }

    /// Ends all faults, those to come included, and resets the device as if it had done so itself.
    pub fn host_reset<M: GuestMemory>(&mut self, memory: &M, now: u64) {
        let now = self.tick(now);
        self.trouble = Trouble::default();
        for ring in &mut self.rings {
            ring.disarm();
        }
        self.self_reset(&mut Access::new(memory), now);
    }

    /// Starts a storm. `instance` tells devices apart that storm at the same time: it is added to
    /// the storm's seeds. The host then calls [`Self::advance`].
    pub fn start_storm(
        &mut self,
        storm: &Storm,
        instance: u64,
        now: u64,
    ) -> Result<(), StormError> {
        let running = |storm: &Progress| storm.status().running;
        if self.storm.as_ref().is_some_and(running) {
            return Err(StormError::Running);
        }
        let now = self.tick(now);
        self.storm = Some(Progress::begin(storm, instance, self.config.rings, now)?);
        Ok(())
    }

    /// Ends the storm, if there is one.
    pub fn stop_storm(&mut self) {
        if let Some(storm) = &mut self.storm {
            storm.stop();
        }
    }

    /// How long ago each event with the flag ACKNOWLEDGE had been delivered when it was
    /// acknowledged, in nanoseconds, since the last call.
    pub fn take_latencies(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.latencies)
    }

    /// Keeps each event that is made for [`Self::take_made`], or none any more.
    pub fn observe(&mut self, on: bool) {
        self.journal.watch(on);
    }

    /// The events made since the last call, oldest first, and how many more there were than are
    /// kept.
    pub fn take_made(&mut self) -> (Vec<Made>, u64) {
        self.journal.take()
    }
}
