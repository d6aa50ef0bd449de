// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Waits until nothing moves any more.

use std::thread;
use std::time::{Duration, Instant};

use evgen_uapi::{Counters, RingCounters};
use thiserror::Error;

use crate::device::{Device, DeviceError};
use crate::law::rings;
use crate::status;
use crate::thousands::thousands;

const POLL: Duration = Duration::from_millis(20);
/// It is quiet when no counter has moved for this long and no event is on its way …
const STILL: Duration = Duration::from_millis(500);
/// … or, with events on their way that do not arrive, when no counter has moved for this long. Then
/// they never will.
const STALLED: Duration = Duration::from_secs(3);

/// It does not fall quiet.
#[derive(Debug, Error)]
pub enum QuietError {
    /// A device cannot be asked.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A counter still moves.
    #[error("not quiet after {} s: {what}. Does a storm still run?", limit.as_secs())]
    Moving {
        /// Which one.
        what: String,
        /// How long it had.
        limit: Duration,
    },
    /// A doorbell that is to be rung later was not.
    #[error("not quiet after {} s: deferred injections still wait for their time", limit.as_secs())]
    PutOff {
        /// How long it had.
        limit: Duration,
    },
}

impl QuietError {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::Device(error) => error.status(),
            Self::Moving { .. } | Self::PutOff { .. } => status::TIMEOUT,
        }
    }
}

/// Waits until all is quiet on `devices` and gives their counters then. `meanwhile` is called again
/// and again.
pub fn settle(
    devices: &[Device],
    limit: Duration,
    mut meanwhile: impl FnMut() -> Result<(), DeviceError>,
) -> Result<Vec<Counters>, QuietError> {
    let start = Instant::now();
    let mut last = counters(devices)?;
    let mut moved = start;
    let mut what = None;
    loop {
        thread::sleep(POLL);
        meanwhile()?;
        let now = counters(devices)?;
        if let Some(motion) = motion(devices, &last, &now) {
            what = Some(motion);
            moved = Instant::now();
            last = now;
        }
        let still = moved.elapsed();
        // What is put off comes when its time has come.
        let put_off = last.iter().any(|counters| counters.deferred_pending > 0);
        let arrived = last.iter().all(arrived);
        let enough = if arrived { STILL } else { STALLED };
        if still >= enough && !put_off {
            return Ok(last);
        }
        if start.elapsed() >= limit {
            return match what {
                _ if put_off => Err(QuietError::PutOff { limit }),
                Some(what) if still < STILL => Err(QuietError::Moving { what, limit }),
                _ => Ok(last),
            };
        }
    }
}

fn counters(devices: &[Device]) -> Result<Vec<Counters>, DeviceError> {
    devices.iter().map(Device::counters).collect()
}

fn arrived(counters: &Counters) -> bool {
    let on_ring = |ring: &RingCounters| {
        ring.delivered.wrapping_add(ring.extra) != ring.received
            || ring.faulted != ring.bad_checksum
    };
    counters.pending == 0 && !counters.ring.iter().any(on_ring)
}

/// Says what moved between two looks at the devices.
fn motion(devices: &[Device], before: &[Counters], after: &[Counters]) -> Option<String> {
    devices
        .iter()
        .zip(before.iter().zip(after))
        .find_map(|(device, (before, after))| device_motion(device.index(), before, after))
}

fn device_motion(device: usize, before: &Counters, after: &Counters) -> Option<String> {
    if before == after {
        return None;
    }
    let ring_motion = |ring: usize| {
        let (before, after) = (&before.ring[ring], &after.ring[ring]);
        [
            ("generated", before.generated, after.generated),
            ("received", before.received, after.received),
            ("thrown out", before.bad_checksum, after.bad_checksum),
        ]
        .into_iter()
        .find(|(_, before, after)| before != after)
        .map(|(name, before, after)| (format!("evgen{device} ring {ring}: {name}"), before, after))
    };
    let (name, before, after) = (0..rings(after)).find_map(ring_motion).unwrap_or_else(|| {
        let (name, before, after) = [
            ("events read", before.read, after.read),
            (
                "deferred injections",
                before.deferred_rung,
                after.deferred_rung,
            ),
            ("interrupts", before.interrupts, after.interrupts),
            (
                "times set up anew",
                before.faults.device_restarts,
                after.faults.device_restarts,
            ),
        ]
        .into_iter()
        .find(|(_, before, after)| before != after)
        .unwrap_or_else(|| {
            let faults = |counters: &Counters| counters.came_about.iter().sum();
            ("faults", faults(before), faults(after))
        });
        (format!("evgen{device}: {name}"), before, after)
    });
    let (before, after) = (
        thousands(before.cast_signed()),
        thousands(after.cast_signed()),
    );
    Some(format!("{name} went from {before} to {after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn motion_is_named() {
        let still = Counters {
            rings: 4,
            ..Counters::default()
        };
        let mut made = still;
        made.ring[3].generated = 2000;
        let read = Counters { read: 1, ..still };
        let mut restarted = still;
        restarted.faults.device_restarts = 1;
        for (after, expected) in [
            (still, None),
            (made, Some("evgen1 ring 3: generated went from 0 to 2,000")),
            (read, Some("evgen1: events read went from 0 to 1")),
            (
                restarted,
                Some("evgen1: times set up anew went from 0 to 1"),
            ),
        ] {
            assert_eq!(device_motion(1, &still, &after).as_deref(), expected);
        }
    }

    #[test]
    fn events_arrive_when_none_is_on_a_ring_or_in_the_list() {
        let mut counters = Counters::default();
        counters.ring[2].delivered = 3;
        assert!(!arrived(&counters));
        counters.ring[2].received = 3;
        assert!(arrived(&counters));
        counters.ring[2].extra = 1;
        assert!(!arrived(&counters));
        counters.ring[2].received = 4;
        counters.ring[1].faulted = 1;
        assert!(!arrived(&counters));
        counters.ring[1].bad_checksum = 1;
        assert!(arrived(&counters));
        counters.pending = 1;
        assert!(!arrived(&counters));
    }
}
