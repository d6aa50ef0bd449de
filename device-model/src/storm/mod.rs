// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Storms: events by a plan. `storms/README.md` describes the files that they are written in.
//!
//! Which events a storm makes depends on its description and the device's number alone, never on
//! when the host gets around to it: a host that is late makes them late, not fewer or others.

mod error;
mod file;
mod keys;
mod library;
mod pattern;
mod progress;
mod random;
mod token;

use std::sync::Arc;

use lockstorm_abi::identity::MAX_RINGS;

use crate::fault::Fault;

pub use error::{Place, StormError};
pub use library::{LIBRARY, Named};
pub(crate) use progress::Progress;

/// Longest file, in bytes.
pub const MAX_FILE: usize = 64 * 1024;
/// Longest description, in bytes.
pub const MAX_DESCRIPTION: usize = 200;
/// Most phases of a storm.
pub const MAX_PHASES: usize = 64;
/// Most events that the traces of a storm have together.
pub const MAX_TRACE: usize = 4096;
/// Highest rate, in events per second and vector.
pub const MAX_RATE: u32 = 10_000_000;
/// Largest burst, in events.
pub const MAX_BURST: u32 = 4096;
/// Longest phase, in milliseconds: one day.
pub const MAX_DURATION_MS: u32 = 24 * 3600 * 1000;
/// Largest seed: the largest number that TOML can write.
pub const MAX_SEED: u64 = i64::MAX as u64;
/// Longest odds of a fault, and most events between two that ask for acknowledgement.
pub const MAX_ODDS: u32 = 1_000_000_000;

const MILLISECOND: u64 = 1_000_000;
const LAST_VECTOR: u8 = MAX_RINGS as u8 - 1;

/// Description of a storm. There is none that breaks the rules: it comes from
/// [`Storm::from_toml`], [`Storm::from_token`] or [`Storm::named`], and they check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storm {
    description: String,
    seed: u64,
    phases: Vec<Phase>,
}

/// A part of a storm. Phases follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Phase {
    pattern: Pattern,
    /// One event in so many is hit; in the order of [`Fault::ALL`].
    faults: Vec<(Fault, u32)>,
    /// Every so many events, one asks for acknowledgement.
    acknowledge: Option<u32>,
    seed: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Stream {
        shape: Shape,
        /// Events per second on each vector.
        rate: u32,
        /// All if not given.
        vectors: Option<Vec<u8>>,
        duration_ms: u32,
    },
    /// In the order of their times. Shared, as it is long and does not change.
    Trace(Arc<[TraceEvent]>),
}

/// How events come that come at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Each vector by a clock of its own.
    Periodic,
    /// Independently of each other.
    Poisson,
    /// So many at once on each vector, one vector after the other.
    Burst(u32),
    /// On one vector after the other, faster or slower towards this rate.
    Ramp(u32),
    /// One on each vector at the same time.
    AllAtOnce,
    /// On one vector after the other, evenly.
    RoundRobin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TraceEvent {
    /// Since the phase began, in microseconds.
    at: u64,
    vector: u8,
    /// Random if not given.
    kind: Option<u16>,
}

/// How far a storm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StormStatus {
    /// Whether there are events to come.
    pub running: bool,
    /// Events made so far.
    pub made: u64,
    /// Events that there are in all; `None` if chance decides that.
    pub total: Option<u64>,
    /// Nanoseconds since it began, as of the last look at it while it ran; at most its whole length.
    pub elapsed: u64,
    /// Checksum of all events made so far: when each was due, its ring, kind, payload, faults and
    /// whether it asks for acknowledgement. The same storm on the same device gives the same,
    /// however late the host was.
    pub digest: u64,
}

/// What one phase of a storm comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Name of its pattern.
    pub pattern: &'static str,
    /// How long it takes, in nanoseconds.
    pub duration: u64,
    /// How many events it makes; on average if not `exact`.
    pub events: u64,
    /// Whether it makes just so many events: not if chance decides.
    pub exact: bool,
}

impl Storm {
    /// What it is good for, in one line; may be empty.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// How long it takes, in nanoseconds.
    pub fn duration(&self) -> u64 {
        self.phases.iter().map(Phase::duration).sum()
    }

    /// What its phases come to on a device with `rings` rings.
    pub fn outline(&self, rings: u8) -> Result<Vec<Outline>, StormError> {
        progress::outline(self, rings)
    }

    /// Refuses a storm for rings that a device with `rings` rings does not have.
    pub fn check_rings(&self, rings: u8) -> Result<(), StormError> {
        for (phase, of) in (1..).zip(&self.phases) {
            if let Some(vector) = of.pattern.vectors().find(|&vector| vector >= rings) {
                return Err(StormError::NoRing {
                    phase,
                    vector,
                    rings,
                });
            }
        }
        Ok(())
    }
}

impl Phase {
    /// In nanoseconds. No sum of all that a storm can have overflows.
    fn duration(&self) -> u64 {
        match &self.pattern {
            Pattern::Stream { duration_ms, .. } => u64::from(*duration_ms) * MILLISECOND,
            Pattern::Trace(events) => events.last().map_or(0, |last| last.at * 1000),
        }
    }
}

impl Pattern {
    /// As in a file.
    fn name(&self) -> &'static str {
        match self {
            Self::Stream { shape, .. } => shape.name(),
            Self::Trace(_) => "trace",
        }
    }

    /// The vectors that it names.
    fn vectors(&self) -> impl Iterator<Item = u8> {
        let (listed, traced): (&[u8], &[TraceEvent]) = match self {
            Self::Stream { vectors, .. } => (vectors.as_deref().unwrap_or_default(), &[]),
            Self::Trace(events) => (&[], events),
        };
        let traced = traced.iter().map(|event| event.vector);
        listed.iter().copied().chain(traced)
    }
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Periodic => "periodic",
            Self::Poisson => "poisson",
            Self::Burst(_) => "burst",
            Self::Ramp(_) => "ramp",
            Self::AllAtOnce => "all-at-once",
            Self::RoundRobin => "round-robin",
        }
    }
}

#[cfg(test)]
mod events_test;
#[cfg(test)]
mod file_test;
