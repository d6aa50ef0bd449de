// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The generators: when the events of a phase come, and on which ring.
//!
//! Nothing drifts: steady rates are kept to the nanosecond, and a ramp makes exactly as many events
//! as its rates come to. Floating point is used only in ways that give the same on every machine.

use std::sync::Arc;

use lockstorm_abi::identity::MAX_RINGS;

use super::random::SplitMix64;
use super::{Pattern, Phase, Shape, TraceEvent};

const SECOND: u64 = 1_000_000_000;

/// The events of a phase, one by one.
pub(super) struct Schedule {
    generator: Generator,
    /// Of the phase; no event comes then or later.
    end: u64,
    next: Option<Slot>,
}

/// When and where an event comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Nanoseconds since the phase began.
    pub at: u64,
    pub ring: u8,
    /// Random if there is none.
    pub kind: Option<u16>,
}

enum Generator {
    Rounds(Rounds),
    Poisson(Poisson),
    Ramp(Ramp),
    Trace {
        events: Arc<[TraceEvent]>,
        next: usize,
    },
}

impl Schedule {
    /// The schedule of `phase` on a device with `rings` rings, which have to be enough for it.
    pub fn new(phase: &Phase, rings: u8, random: SplitMix64) -> Self {
        let end = phase.duration();
        let generator = match &phase.pattern {
            Pattern::Stream {
                shape,
                rate,
                vectors,
                ..
            } => {
                let rings = match vectors {
                    Some(vectors) => Rings::new(vectors),
                    None => Rings::new(&[0, 1, 2, 3, 4, 5, 6, 7][..usize::from(rings.min(8))]),
                };
                match *shape {
                    Shape::Poisson => Generator::Poisson(Poisson::new(rings, *rate, random)),
                    Shape::Ramp(rate_end) => {
                        Generator::Ramp(Ramp::new(rings, *rate, rate_end, end))
                    }
                    shape => Generator::Rounds(Rounds::new(rings, shape, *rate, random)),
                }
            }
            Pattern::Trace(events) => Generator::Trace {
                events: Arc::clone(events),
                next: 0,
            },
        };
        let mut schedule = Self {
            generator,
            end,
            next: None,
        };
        schedule.advance();
        schedule
    }

    /// The next event, if there is one.
    pub fn peek(&self) -> Option<Slot> {
        self.next
    }

    /// Goes on to the event after it.
    pub fn advance(&mut self) {
        let end = self.end;
        self.next = match &mut self.generator {
            Generator::Rounds(rounds) => Some(rounds.next()).filter(|slot| slot.at < end),
            Generator::Poisson(poisson) => Some(poisson.next()).filter(|slot| slot.at < end),
            Generator::Ramp(ramp) => ramp.next(),
            Generator::Trace { events, next } => events.get(*next).map(|event| {
                *next += 1;
                Slot {
                    at: event.at * 1000,
                    ring: event.vector,
                    kind: event.kind,
                }
            }),
        };
    }

    /// How many events there are, and whether that is exact; else it is the average. As of the
    /// phase's begin.
    pub fn count(&self) -> (u64, bool) {
        match &self.generator {
            Generator::Rounds(rounds) => (rounds.count(self.end), true),
            Generator::Poisson(poisson) => ((self.end as f64 / poisson.mean) as u64, false),
            Generator::Ramp(ramp) => (ramp.total, true),
            Generator::Trace { events, .. } => (events.len() as u64, true),
        }
    }
}

/// The rings of a phase, in its order; at least one.
#[derive(Clone, Copy)]
struct Rings {
    numbers: [u8; MAX_RINGS],
    count: usize,
}

impl Rings {
    fn new(list: &[u8]) -> Self {
        let mut numbers = [0; MAX_RINGS];
        for (slot, &ring) in numbers.iter_mut().zip(list) {
            *slot = ring;
        }
        Self {
            numbers,
            count: list.len().clamp(1, MAX_RINGS),
        }
    }

    /// The one after the `index`th, the first one after the last.
    fn after(&self, index: usize) -> usize {
        if index + 1 < self.count { index + 1 } else { 0 }
    }
}

/// Rounds over the rings, at a fixed rate: each ring has its time in the round, and then gets
/// `burst` events.
struct Rounds {
    rings: Rings,
    /// Of each ring in the round, in nanoseconds; never falling.
    offsets: [u64; MAX_RINGS],
    burst: u32,
    clock: Clock,
    index: usize,
    left: u32,
}

impl Rounds {
    fn new(rings: Rings, shape: Shape, rate: u32, mut random: SplitMix64) -> Self {
        let burst = match shape {
            Shape::Burst(burst) => burst,
            _ => 1,
        };
        let clock = Clock::new(u64::from(burst) * SECOND, rate.into());
        let mut placed = [(0, 0); MAX_RINGS];
        for (index, place) in placed.iter_mut().enumerate() {
            let offset = match shape {
                // The first one's clock gives the time for the others'.
                Shape::Periodic if index > 0 => random.below(clock.quotient),
                Shape::RoundRobin => index as u64 * SECOND / (u64::from(rate) * rings.count as u64),
                _ => 0,
            };
            *place = (offset, rings.numbers[index]);
        }
        if matches!(shape, Shape::Periodic) {
            placed[..rings.count].sort_by_key(|&(offset, _)| offset);
        }
        Self {
            rings: Rings {
                numbers: placed.map(|(_, ring)| ring),
                count: rings.count,
            },
            offsets: placed.map(|(offset, _)| offset),
            burst,
            clock,
            index: 0,
            left: burst,
        }
    }

    fn next(&mut self) -> Slot {
        if self.left == 0 {
            self.left = self.burst;
            self.index = self.rings.after(self.index);
            if self.index == 0 {
                self.clock.tick();
            }
        }
        self.left -= 1;
        Slot {
            at: self.clock.at + self.offsets[self.index],
            ring: self.rings.numbers[self.index],
            kind: None,
        }
    }

    fn count(&self, end: u64) -> u64 {
        let offsets = &self.offsets[..self.rings.count];
        let rounds = offsets
            .iter()
            .map(|offset| self.clock.ticks_before(end.saturating_sub(*offset)));
        rounds.sum::<u64>() * u64::from(self.burst)
    }
}

/// Ticks `period / rate` nanoseconds apart: the `n`th comes at `n * period / rate`, rounded down.
struct Clock {
    at: u64,
    quotient: u64,
    remainder: u64,
    rate: u64,
    /// What is cut off from `at`, in parts of `rate`.
    error: u64,
}

impl Clock {
    fn new(period: u64, rate: u64) -> Self {
        Self {
            at: 0,
            quotient: period / rate,
            remainder: period % rate,
            rate,
            error: 0,
        }
    }

    fn tick(&mut self) {
        self.at += self.quotient;
        self.error += self.remainder;
        if self.error >= self.rate {
            self.error -= self.rate;
            self.at += 1;
        }
    }

    fn ticks_before(&self, end: u64) -> u64 {
        let period = u128::from(self.quotient * self.rate + self.remainder);
        (u128::from(end) * u128::from(self.rate)).div_ceil(period) as u64
    }
}

/// Events that come independently of each other, each on any of the rings.
struct Poisson {
    rings: Rings,
    /// Between two events, in nanoseconds.
    mean: f64,
    at: f64,
    random: SplitMix64,
}

impl Poisson {
    fn new(rings: Rings, rate: u32, random: SplitMix64) -> Self {
        Self {
            mean: SECOND as f64 / (f64::from(rate) * rings.count as f64),
            rings,
            at: 0.0,
            random,
        }
    }

    fn next(&mut self) -> Slot {
        self.at += self.random.gap(self.mean);
        let index = self.random.below(self.rings.count as u64) as usize;
        Slot {
            at: self.at as u64,
            ring: self.rings.numbers[index],
            kind: None,
        }
    }
}

/// Events on one ring after the other, at a rate that changes evenly.
struct Ramp {
    rings: Rings,
    /// At the begin, in events per second on all rings.
    rate: f64,
    /// By how much it grows in a second.
    growth: f64,
    made: u64,
    total: u64,
    index: usize,
    /// Nanosecond of the phase; no event comes after it, however its time is rounded.
    last: u64,
}

impl Ramp {
    fn new(rings: Rings, rate: u32, rate_end: u32, end: u64) -> Self {
        let rates = |rate: u32| u64::from(rate) * rings.count as u64;
        let (first, last) = (rates(rate), rates(rate_end));
        let events = u128::from(first + last) * u128::from(end);
        Self {
            rings,
            rate: first as f64,
            growth: (last as f64 - first as f64) / (end as f64 / SECOND as f64),
            made: 0,
            total: events.div_ceil(u128::from(2 * SECOND)) as u64,
            index: 0,
            last: end.saturating_sub(1),
        }
    }

    /// The `n`th comes when the rate, summed up since the begin, has come to `n`.
    fn next(&mut self) -> Option<Slot> {
        if self.made == self.total {
            return None;
        }
        let made = self.made as f64;
        let root = (self.rate * self.rate + 2.0 * self.growth * made)
            .max(0.0)
            .sqrt();
        let at = (2.0 * SECOND as f64 * made / (self.rate + root)) as u64;
        let ring = self.rings.numbers[self.index];
        self.index = self.rings.after(self.index);
        self.made += 1;
        Some(Slot {
            at: at.min(self.last),
            ring,
            kind: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_steepest_ramp_is_in_its_phase() {
        const RINGS: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7];
        for (rate, rate_end, rings, end) in [
            (10_000_000, 1, 1, 86_400_000),
            (10_000_000, 1, 8, 86_400_000),
            (1, 10_000_000, 8, 86_400_000),
            // The last event comes so shortly before the end that it is rounded to it.
            (1, 10_000_000, 7, 82_165_143),
        ] {
            let end = end * 1_000_000;
            let mut ramp = Ramp::new(Rings::new(&RINGS[..rings]), rate, rate_end, end);
            let mut before = 0;
            for left in [1_000_000, 1000, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1] {
                ramp.made = ramp.total - left;
                let at = ramp.next().map(|slot| slot.at).unwrap();
                assert!((before..end).contains(&at), "{at} {before} {left}");
                before = at;
            }
            assert!(before > end - SECOND);
            assert_eq!(ramp.next(), None);
        }
    }
}
