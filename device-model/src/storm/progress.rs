// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A storm under way.

use lockstorm_abi::event::PAYLOAD_SIZE;

use super::pattern::Schedule;
use super::random::SplitMix64;
use super::{Outline, Phase, Storm, StormError, StormStatus};
use crate::fault::{Fault, FaultSet};

/// One event of a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// When it is due, in nanoseconds since the storm began.
    pub offset: u64,
    pub ring: usize,
    pub kind: u16,
    pub payload: [u8; PAYLOAD_SIZE],
    /// What goes wrong with it, or with the device when it comes.
    pub faults: FaultSet,
    /// Whether its handler is to acknowledge it.
    pub acknowledge: bool,
}

impl Planned {
    /// All that there is to it, as words: what "the same sequence of events" means.
    ///
    /// The first is the offset; the second has the ring in its lowest 16 bits, then kind and
    /// faults, and whether to acknowledge in bit 48; then comes the payload, little endian.
    pub fn words(&self) -> [u64; 2 + PAYLOAD_SIZE / 8] {
        let mut words = [0; 2 + PAYLOAD_SIZE / 8];
        words[0] = self.offset;
        words[1] = self.ring as u64
            | u64::from(self.kind) << 16
            | u64::from(self.faults.bits()) << 32
            | u64::from(self.acknowledge) << 48;
        for (word, bytes) in words[2..].iter_mut().zip(self.payload.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }
}

/// FNV-1a, but over 64-bit words, and with the halves swapped after each, so that high bits count
/// too. Each step is a bijection: two sequences that differ in one word never have the same.
pub(super) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub fn add(&mut self, word: u64) {
        let product = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 = product.rotate_left(32);
    }

    pub fn value(&self) -> u64 {
        self.0
    }
}

/// A storm under way, or over.
pub(crate) struct Progress {
    phases: Vec<Phase>,
    rings: u8,
    /// Device number; added to every seed, so that no two devices make the same events.
    instance: u64,
    begin: u64,
    duration: u64,
    /// Gives the seeds of the phases that have none.
    seeds: SplitMix64,
    /// Index of the phase after the current one.
    following: usize,
    current: Current,
    due: Option<u64>,
    seen: u64,
    made: u64,
    total: Option<u64>,
    digest: Digest,
}

impl Progress {
    /// Begins `storm` at `now` on device number `instance`, which has `rings` rings.
    pub fn begin(storm: &Storm, instance: u64, rings: u8, now: u64) -> Result<Self, StormError> {
        storm.check_rings(rings)?;
        let mut seeds = SplitMix64::new(storm.seed.wrapping_add(instance));
        let total = outlines(&storm.phases, rings, instance, seeds.clone())
            .map(|outline| outline.exact.then_some(outline.events))
            .try_fold(0_u64, |sum, events| Some(sum.saturating_add(events?)));
        let (first, _) = storm.phases.split_first().ok_or(StormError::Phases(0))?;
        let current = Current::new(first, rings, instance, seeds.next(), 0);
        let mut progress = Self {
            phases: storm.phases.clone(),
            rings,
            instance,
            begin: now,
            duration: storm.duration(),
            seeds,
            following: 1,
            current,
            due: None,
            seen: now,
            made: 0,
            total,
            digest: Digest::default(),
        };
        progress.look_ahead();
        Ok(progress)
    }

    /// When the next event is due; `None` at the end.
    pub fn due(&self) -> Option<u64> {
        self.due
    }

    /// The next event, if it is due at `now`.
    pub fn next(&mut self, now: u64) -> Option<Planned> {
        // Of a storm that is over, time says nothing any more.
        let due = self.due?;
        self.seen = self.seen.max(now);
        if due > now {
            return None;
        }
        let planned = self.current.next()?;
        for word in planned.words() {
            self.digest.add(word);
        }
        self.made += 1;
        self.look_ahead();
        Some(planned)
    }

    /// Ends it before its time.
    pub fn stop(&mut self) {
        self.due = None;
    }

    /// How far it is.
    pub fn status(&self) -> StormStatus {
        StormStatus {
            running: self.due.is_some(),
            made: self.made,
            total: self.total,
            elapsed: (self.seen - self.begin).min(self.duration),
            digest: self.digest.value(),
        }
    }

    /// Finds out when the next event is due, if need be in a later phase.
    fn look_ahead(&mut self) {
        loop {
            if let Some(slot) = self.current.schedule.peek() {
                let offset = self.current.origin + slot.at;
                self.due = Some(self.begin.saturating_add(offset));
                return;
            }
            let Some(phase) = self.phases.get(self.following) else {
                self.due = None;
                return;
            };
            let origin = self.current.origin + self.phases[self.following - 1].duration();
            let seed = self.seeds.next();
            self.current = Current::new(phase, self.rings, self.instance, seed, origin);
            self.following += 1;
        }
    }
}

/// The phase under way.
struct Current {
    schedule: Schedule,
    /// When it began, in nanoseconds since the storm did.
    origin: u64,
    payloads: SplitMix64,
    // A stream of its own: the same storm with other faults has the same payloads.
    fates: SplitMix64,
    /// A fault befalls an event whose random number is at most this.
    limits: Vec<(Fault, u64)>,
    /// Every so many events, one asks for acknowledgement; none if zero.
    acknowledge: u32,
    /// Events until the next one that does.
    quiet: u32,
}

impl Current {
    fn new(phase: &Phase, rings: u8, instance: u64, seed: u64, origin: u64) -> Self {
        let mut streams = streams(phase, instance, seed);
        let [times, payloads, fates] = [(); 3].map(|()| SplitMix64::new(streams.next()));
        let acknowledge = phase.acknowledge.unwrap_or(0);
        Self {
            schedule: Schedule::new(phase, rings, times),
            origin,
            payloads,
            fates,
            limits: phase
                .faults
                .iter()
                .map(|&(fault, odds)| (fault, u64::MAX / u64::from(odds)))
                .collect(),
            acknowledge,
            quiet: acknowledge,
        }
    }

    fn next(&mut self) -> Option<Planned> {
        let slot = self.schedule.peek()?;
        self.schedule.advance();
        let mut payload = [0; PAYLOAD_SIZE];
        for bytes in payload.as_chunks_mut().0 {
            *bytes = self.payloads.next().to_le_bytes();
        }
        let kind = self.payloads.next() as u16;
        let mut faults = FaultSet::NONE;
        for &(fault, limit) in &self.limits {
            if self.fates.next() <= limit {
                faults.insert(fault);
            }
        }
        let mut acknowledge = false;
        if self.acknowledge > 0 {
            self.quiet -= 1;
            acknowledge = self.quiet == 0;
            if acknowledge {
                self.quiet = self.acknowledge;
            }
        }
        Some(Planned {
            offset: self.origin + slot.at,
            ring: slot.ring.into(),
            kind: slot.kind.unwrap_or(kind),
            payload,
            faults,
            acknowledge,
        })
    }
}

/// What gives the seeds of a phase's three streams; `seed` is for a phase that has none of its own.
fn streams(phase: &Phase, instance: u64, seed: u64) -> SplitMix64 {
    SplitMix64::new(phase.seed.map_or(seed, |own| own.wrapping_add(instance)))
}

/// What the phases of `storm` come to on a device with `rings` rings.
pub(super) fn outline(storm: &Storm, rings: u8) -> Result<Vec<Outline>, StormError> {
    storm.check_rings(rings)?;
    let seeds = SplitMix64::new(storm.seed);
    Ok(outlines(&storm.phases, rings, 0, seeds).collect())
}

fn outlines(
    phases: &[Phase],
    rings: u8,
    instance: u64,
    mut seeds: SplitMix64,
) -> impl Iterator<Item = Outline> {
    phases.iter().map(move |phase| {
        let times = streams(phase, instance, seeds.next()).next();
        let (events, exact) = Schedule::new(phase, rings, SplitMix64::new(times)).count();
        Outline {
            pattern: phase.pattern.name(),
            duration: phase.duration(),
            events,
            exact,
        }
    })
}
