// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A storm: events at a given rate, in bursts, on several rings at once.
//!
//! Which events a storm makes depends on its description alone, never on when the host gets around
//! to it: a host that is late makes them late, not fewer or others.

use lockstorm_abi::event::PAYLOAD_SIZE;
use thiserror::Error;

const SECOND: u128 = 1_000_000_000;

/// Description of a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storm {
    /// Events per second on each ring: 1 to [`Storm::MAX_RATE`].
    pub rate: u32,
    /// Events that come at once on each ring: 1 to [`Storm::MAX_BURST`].
    pub burst: u32,
    /// How long it lasts, in nanoseconds: 1 to [`Storm::MAX_DURATION`].
    pub duration: u64,
    /// Bit mask of the rings; at least one, and only rings that the device has.
    pub rings: u8,
    /// Seed of the payloads.
    pub seed: u64,
}

impl Storm {
    /// Highest rate, in events per second and ring.
    pub const MAX_RATE: u32 = 10_000_000;
    /// Largest burst, in events per ring.
    pub const MAX_BURST: u32 = 4096;
    /// Longest duration, in nanoseconds: one day.
    pub const MAX_DURATION: u64 = 24 * 3600 * 1_000_000_000;

    fn check(&self, rings: u8) -> Result<(), StormError> {
        let available = 0xff_u8 >> (8 - rings);
        if self.rate == 0 || self.rate > Self::MAX_RATE {
            Err(StormError::Rate(self.rate))
        } else if self.burst == 0 || self.burst > Self::MAX_BURST {
            Err(StormError::Burst(self.burst))
        } else if self.duration == 0 || self.duration > Self::MAX_DURATION {
            Err(StormError::Duration(self.duration))
        } else if self.rings == 0 || self.rings & !available != 0 {
            Err(StormError::Rings {
                asked: self.rings,
                available,
            })
        } else {
            Ok(())
        }
    }
}

/// A storm that the device will not start.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StormError {
    /// Rate out of range.
    #[error("storm rate of {0} events per second and ring: must be 1 to {max}", max = Storm::MAX_RATE)]
    Rate(u32),
    /// Burst out of range.
    #[error("storm burst of {0} events: must be 1 to {max}", max = Storm::MAX_BURST)]
    Burst(u32),
    /// Duration out of range.
    #[error("storm duration of {0} ns: must be 1 ns to 24 h")]
    Duration(u64),
    /// No rings, or rings that are not there.
    #[error("storm on rings {asked:#010b} (a bit each): must be some of {available:#010b}")]
    Rings {
        /// The mask in the description.
        asked: u8,
        /// The rings there are.
        available: u8,
    },
    /// One storm at a time.
    #[error("a storm is running already on this device: stop it first")]
    Running,
}

/// One event of a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub offset: u64,
    pub faults: crate::FaultSet,
    pub acknowledge: bool,
    pub ring: usize,
    pub kind: u16,
    pub payload: [u8; PAYLOAD_SIZE],
}

/// Status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StormStatus {
    /// r
    pub running: bool,
    /// r
    pub made: u64,
    /// r
    pub total: Option<u64>,
    /// r
    pub elapsed: u64,
    /// r
    pub digest: u64,
}

/// A storm under way.
pub(crate) struct Progress {
    storm: Storm,
    begin: u64,
    rings: Vec<usize>,
    made: u64,
    total: u64,
    random: SplitMix64,
}

impl Progress {
    /// Begins `storm` at `now` on a device with `rings` rings.
    pub fn begin(storm: &Storm, _instance: u64, rings: u8, now: u64) -> Result<Self, StormError> {
        let storm = *storm;
        storm.check(rings)?;
        let selected: Vec<usize> = (0..8).filter(|ring| storm.rings >> ring & 1 != 0).collect();
        let per_ring = u128::from(storm.rate) * u128::from(storm.duration) / SECOND;
        // Whole bursts, and at least one: a storm is never nothing at all.
        let bursts = per_ring.div_ceil(u128::from(storm.burst)).max(1) as u64;
        Ok(Self {
            total: bursts * u64::from(storm.burst) * selected.len() as u64,
            storm,
            begin: now,
            rings: selected,
            made: 0,
            random: SplitMix64(storm.seed),
        })
    }

    /// Events not made yet.
    pub fn remaining(&self) -> u64 {
        self.total - self.made
    }

    pub fn status(&self) -> StormStatus {
        StormStatus {
            running: true,
            made: self.made,
            total: Some(self.total),
            elapsed: 0,
            digest: 0,
        }
    }

    /// When the next event is due; `None` at the end.
    pub fn due(&self) -> Option<u64> {
        if self.remaining() == 0 {
            return None;
        }
        let burst_events = u64::from(self.storm.burst) * self.rings.len() as u64;
        let before = u128::from(self.made / burst_events) * u128::from(self.storm.burst);
        let after = before * SECOND / u128::from(self.storm.rate);
        Some(self.begin.saturating_add(after as u64))
    }

    /// The next event, if it is due at `now`. Bursts go around the rings event by event.
    pub fn next(&mut self, now: u64) -> Option<Planned> {
        if self.due()? > now {
            return None;
        }
        let ring = self.rings[(self.made % self.rings.len() as u64) as usize];
        let mut payload = [0; PAYLOAD_SIZE];
        for word in payload.chunks_exact_mut(8) {
            word.copy_from_slice(&self.random.next().to_le_bytes());
        }
        let kind = self.random.next() as u16;
        self.made += 1;
        Some(Planned {
            offset: 0,
            faults: crate::FaultSet::NONE,
            acknowledge: false,
            ring,
            kind,
            payload,
        })
    }
}

/// Steele, Lea and Flood's SplitMix64: the same numbers for the same seed, in every version.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    const STORM: Storm = Storm {
        rate: 1000,
        burst: 5,
        duration: 20 * MILLISECOND,
        rings: 0b101,
        seed: 7,
    };

    fn made_by(progress: &mut Progress, now: u64) -> Vec<Planned> {
        std::iter::from_fn(|| progress.next(now)).collect()
    }

    #[test]
    fn bursts_come_when_due_and_go_around_the_rings() {
        let mut progress = Progress::begin(&STORM, 0, 4, 100).unwrap();
        assert_eq!(progress.due(), Some(100));
        assert_eq!(made_by(&mut progress, 99), []);
        let rings: Vec<_> = made_by(&mut progress, 100).iter().map(|e| e.ring).collect();
        assert_eq!(rings, [0, 2, 0, 2, 0, 2, 0, 2, 0, 2]);
        assert_eq!(progress.due(), Some(100 + 5 * MILLISECOND));
        assert_eq!(made_by(&mut progress, 100 + 5 * MILLISECOND - 1), []);
        assert_eq!(made_by(&mut progress, 100 + 10 * MILLISECOND).len(), 20);
        assert_eq!(progress.remaining(), 10);
        assert_eq!(made_by(&mut progress, u64::MAX).len(), 10);
        assert_eq!((progress.due(), progress.remaining()), (None, 0));
    }

    #[test]
    fn a_late_host_makes_the_same_events() {
        let mut punctual = Progress::begin(&STORM, 0, 4, 0).unwrap();
        let mut late = Progress::begin(&STORM, 0, 4, 0).unwrap();
        let in_time: Vec<_> = (0..=20)
            .flat_map(|ms| made_by(&mut punctual, ms * MILLISECOND))
            .collect();
        assert_eq!(in_time, made_by(&mut late, 1000 * MILLISECOND));
        let other = Storm { seed: 8, ..STORM };
        let mut other = Progress::begin(&other, 0, 4, 0).unwrap();
        assert_ne!(in_time, made_by(&mut other, 1000 * MILLISECOND));
    }

    #[test]
    fn descriptions_out_of_range_are_refused_and_extremes_are_not() {
        let most = Storm {
            rate: Storm::MAX_RATE,
            burst: Storm::MAX_BURST,
            duration: Storm::MAX_DURATION,
            rings: 0xff,
            seed: u64::MAX,
        };
        let least = Storm {
            rate: 1,
            burst: 1,
            duration: 1,
            rings: 0b1,
            seed: 0,
        };
        for (storm, rings, expected) in [
            (most, 8, Ok(())),
            (least, 1, Ok(())),
            (Storm { rate: 0, ..STORM }, 4, Err(StormError::Rate(0))),
            (Storm { burst: 0, ..STORM }, 4, Err(StormError::Burst(0))),
            (
                Storm {
                    burst: 4097,
                    ..STORM
                },
                4,
                Err(StormError::Burst(4097)),
            ),
            (
                Storm {
                    duration: 0,
                    ..STORM
                },
                4,
                Err(StormError::Duration(0)),
            ),
            (
                Storm { rings: 0, ..STORM },
                4,
                Err(StormError::Rings {
                    asked: 0,
                    available: 0b1111,
                }),
            ),
            (
                STORM,
                2,
                Err(StormError::Rings {
                    asked: 0b101,
                    available: 0b11,
                }),
            ),
        ] {
            let begun = Progress::begin(&storm, 0, rings, u64::MAX);
            let planned = begun.map(|mut progress| progress.next(u64::MAX));
            assert_eq!(planned.map(|event| assert!(event.is_some())), expected);
        }
    }
}
