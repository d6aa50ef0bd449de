// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Faults of the device as a whole.

use vm_memory::GuestMemory;

use super::Evgen;
use crate::fault::{Fault, FaultSet, Scope};
use crate::msix::MsiSink;
use crate::ring::Access;

/// How long a fault lasts that lasts, in nanoseconds.
const TIME: u64 = 500_000_000;
/// The longest that a host can make it last.
const TIME_MAX: u64 = 3_600_000_000_000;
/// The most spurious interrupts at a time, so that nobody waits long for the device.
const SPURIOUS_MAX: u32 = 65_536;

/// Until when the device suffers from each fault that lasts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    /// Since when it hangs, and until when.
    hang: Option<(u64, u64)>,
    busy_until: u64,
    gone_until: u64,
}

impl Trouble {
    /// Whether the device is gone from the bus.
    pub fn gone(&self, now: u64) -> bool {
        now < self.gone_until
    }

    /// Whether the device is busy.
    pub fn busy(&self, now: u64) -> bool {
        now < self.busy_until
    }

    /// What the device's heartbeat shows, as a time.
    pub fn heartbeat(&self, now: u64) -> u64 {
        match self.hang {
            Some((since, until)) if now < until => since,
            _ => now,
        }
    }

    /// Until when the device does no work: no events, nothing that was put off.
    pub fn idle_until(&self) -> u64 {
        self.hang.map_or(0, |(_, until)| until).max(self.gone_until)
    }

    /// A reset has ended a hang.
    pub fn end_hang(&mut self) {
        self.hang = None;
    }

    fn begin(&mut self, fault: Fault, count: u32, now: u64) {
        let time = TIME.saturating_mul(count.into()).min(TIME_MAX);
        let until = now.saturating_add(time);
        // One that is to last longer already does.
        match fault {
            Fault::Hang => {
                let since = self.heartbeat(now);
                let before = self.hang.map_or(0, |(_, until)| until);
                self.hang = Some((since, until.max(before)));
            }
            Fault::StuckBusy => self.busy_until = self.busy_until.max(until),
            Fault::AllOnes => self.gone_until = self.gone_until.max(until),
            _ => {}
        }
    }
}

impl<S: MsiSink> Evgen<S> {
    /// Lets those of `faults` befall ring and device that no event took upon itself.
    pub(super) fn befall_all<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        ring: usize,
        faults: FaultSet,
        now: u64,
    ) {
        for &fault in Fault::ALL {
            match fault.scope() {
                _ if !faults.contains(fault) => {}
                Scope::Event => {}
                Scope::Ring => {
                    if let Some(ring) = self.rings.get_mut(ring) {
                        ring.arm_once(fault);
                    }
                }
                Scope::Now => self.befall(access, ring, fault, 1, now),
            }
        }
    }

    /// Lets a fault of the device happen.
    pub(super) fn befall<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        ring: usize,
        fault: Fault,
        count: u32,
        now: u64,
    ) {
        // What is gone or hangs does nothing, not even wrong things.
        let idle = now < self.trouble.idle_until();
        match fault {
            _ if count == 0 => {}
            Fault::SpuriousInterrupt if !idle => {
                let Some(vector) = self.rings.get(ring).map(|ring| ring.vector) else {
                    return;
                };
                for _ in 0..count.min(SPURIOUS_MAX) {
                    self.journal.fault(fault);
                    self.msix.trigger(vector.into(), &mut self.sink);
                }
            }
            Fault::SelfReset if !idle => self.self_reset(access, now),
            Fault::Hang | Fault::StuckBusy | Fault::AllOnes => {
                self.journal.fault(fault);
                self.trouble.begin(fault, count, now);
            }
            _ => {}
        }
    }
}
