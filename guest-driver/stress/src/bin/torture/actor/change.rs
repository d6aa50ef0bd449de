// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Those who change how the device works while it does.

use evgen_stress::device::Mode;
use evgen_stress::injected::Injected;
use evgen_stress::law::rings;
use evgen_stress::signals::stopped;
use evgen_uapi::{COALESCING_EVENTS_MAX, COALESCING_MICROSECONDS_MAX};
use rustix::io::Errno;

use super::{Actor, Failure};

/// Most microseconds that events are gathered for. Longer than the driver's watchdog waits, and
/// the round would be over.
const GATHERED: u32 = 50_000;

impl Actor {
    /// Sets coalescing again and again, and now and then to what cannot be.
    pub(super) fn coalesce(&mut self, device: usize) -> Result<(), Failure> {
        let device = self.open(device, Mode::Nonblocking)?;
        let rings = rings(&device.counters()?);
        while !stopped() {
            let ring = self.rng.usize(..rings);
            let (events, microseconds) = (self.rng.u32(..=64), self.rng.u32(..=GATHERED));
            self.tally.calls += 1;
            let set = |ring, events, microseconds| {
                let wrong = ring == rings
                    || events > COALESCING_EVENTS_MAX
                    || microseconds > COALESCING_MICROSECONDS_MAX;
                match device.set_coalescing(ring, events, microseconds) {
                    Err(error) if wrong && error.errno() == Some(Errno::INVAL) => Ok(()),
                    Ok(()) if wrong => {
                        Err(Failure::answer(&device, "took coalescing out of range"))
                    }
                    set => Ok(set?),
                }
            };
            match self.rng.u8(..16) {
                0 => set(rings, events, microseconds),
                1 => set(ring, COALESCING_EVENTS_MAX + 1, microseconds),
                2 => set(ring, events, COALESCING_MICROSECONDS_MAX + 1),
                3 => set(ring, 0, 0),
                _ => set(ring, events, microseconds),
            }?;
            self.rest(20_000);
        }
        Ok(())
    }

    /// Resets the device again and again.
    pub(super) fn reset(&mut self, device: usize, injected: &mut Injected) -> Result<(), Failure> {
        let device = self.open(device, Mode::Nonblocking)?;
        while !stopped() {
            self.tally.calls += 1;
            let ended = device.reset()?;
            injected.resets += 1;
            self.tally.interrupted += u64::from(!ended);
            self.rest(200_000);
        }
        Ok(())
    }
}
