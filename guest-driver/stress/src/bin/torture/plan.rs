// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Who does what in which round: drawn from a seed alone, so that the seed repeats it.
//!
//! The draws are those of `fastrand`, a wyrand generator. A draw whose result is not wanted is made
//! all the same: what is left out changes nothing else.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;

use crate::part::{By, How, Part, Role};

/// Sizes of readers' buffers: too large for most, whole events, and odd ones. At least one event.
const BYTES: [usize; 8] = [64, 65, 127, 128, 1000, 4096, 20_001, 65_536];
/// Most microseconds that an actor rests between two calls.
const PAUSES: [u32; 4] = [0, 100, 1000, 5000];

/// All rounds, one after the other.
pub struct Plan {
    rng: Rng,
    devices: Vec<usize>,
}

/// One round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// What each actor does.
    pub parts: Vec<Part>,
    /// What is done to them.
    pub unrest: Unrest,
}

/// What is done to the actors, and to the machine, while they act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrest {
    /// What its own choices come from.
    pub seed: u32,
    /// For how long all go on, and then pause, in turn.
    pub stutter: Option<(Duration, Duration)>,
    /// Time between two signals.
    pub signals: Option<Duration>,
    /// Time until actors and interrupts move to other CPUs.
    pub shuffle: Option<Duration>,
    /// Time until a CPU goes, and comes again.
    pub onoff: Option<Duration>,
    /// Of a hundred allocations of the driver, how many fail.
    pub slab: Option<u8>,
    /// Time until a device is unbound from the driver, and bound again.
    pub unbind: Option<Duration>,
}

/// What can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Doorbells to be rung later
    Deferred,
    /// Waiting until all is read
    Drain,
    /// Reading the counters
    Count,
    /// Reading debugfs
    Browse,
    /// Changing coalescing
    Coalesce,
    /// Resetting the devices
    Reset,
    /// Forking with open files
    Fork,
    /// Pausing all actors
    Stutter,
    /// Interrupting system calls
    Signals,
    /// Moving actors and interrupts between CPUs
    Shuffle,
    /// Taking CPUs away
    Onoff,
    /// Failing allocations of the driver
    Slab,
    /// Unbinding devices
    Unbind,
}

impl Plan {
    /// The plan with these devices, at least one.
    pub fn new(seed: u64, devices: Vec<usize>) -> Self {
        let rng = Rng::with_seed(seed);
        Self { rng, devices }
    }

    /// The next round.
    pub fn round(&mut self) -> Round {
        let (rng, devices) = (&mut self.rng, &self.devices);
        let mut parts = Vec::new();
        // Each device has someone who takes events to the end. They come first: the first process
        // leads the group of all, and must outlive the others.
        for &device in devices {
            for _ in 0..rng.u8(1..=3) {
                parts.push(part(rng, &[device], consumer));
            }
        }
        for _ in 0..rng.u8(1..=3) {
            parts.push(part(rng, devices, writer));
        }
        for role in [
            Role::Drain,
            Role::Count,
            Role::Browse,
            Role::Coalesce,
            Role::Reset,
            Role::Fork,
        ] {
            let device = devices[rng.usize(..devices.len())];
            parts.extend(perhaps(rng, |rng| part(rng, &[device], |_| role)));
        }
        let unrest = Unrest {
            seed: rng.u32(..),
            stutter: perhaps(rng, |rng| {
                (milliseconds(rng, 50..=800), milliseconds(rng, 1..=200))
            }),
            signals: perhaps(rng, |rng| milliseconds(rng, 1..=20)),
            shuffle: perhaps(rng, |rng| milliseconds(rng, 5..=500)),
            onoff: perhaps(rng, |rng| milliseconds(rng, 10..=1000)),
            slab: perhaps(rng, |rng| rng.u8(1..=10)),
            // Rarer, because it leaves less to be judged.
            unbind: perhaps(rng, |rng| milliseconds(rng, 5..=300)).filter(|_| rng.bool()),
        };
        Round { parts, unrest }
    }
}

impl Round {
    /// The same round without that.
    pub fn without(mut self, kind: Kind) -> Self {
        let Self { parts, unrest } = &mut self;
        parts.retain(|part| kind_of(part.role) != Some(kind));
        for part in parts {
            if let (Kind::Deferred, Role::Write { deferred, .. }) = (kind, &mut part.role) {
                *deferred = 0;
            }
        }
        match kind {
            Kind::Stutter => unrest.stutter = None,
            Kind::Signals => unrest.signals = None,
            Kind::Shuffle => unrest.shuffle = None,
            Kind::Onoff => unrest.onoff = None,
            Kind::Slab => unrest.slab = None,
            Kind::Unbind => unrest.unbind = None,
            _ => {}
        }
        self
    }
}

fn kind_of(role: Role) -> Option<Kind> {
    match role {
        Role::Write { .. } | Role::Read { .. } | Role::Poll { .. } => None,
        Role::Drain => Some(Kind::Drain),
        Role::Count => Some(Kind::Count),
        Role::Browse => Some(Kind::Browse),
        Role::Coalesce => Some(Kind::Coalesce),
        Role::Reset => Some(Kind::Reset),
        Role::Fork => Some(Kind::Fork),
    }
}

fn part(rng: &mut Rng, devices: &[usize], role: impl FnOnce(&mut Rng) -> Role) -> Part {
    Part {
        devices: devices.to_vec(),
        seed: rng.u32(..),
        role: role(rng),
    }
}

fn consumer(rng: &mut Rng) -> Role {
    let bytes = BYTES[rng.usize(..BYTES.len())];
    let pause = PAUSES[rng.usize(..PAUSES.len())];
    let read = |how| Role::Read { how, bytes, pause };
    let poll = |by| Role::Poll { by, bytes };
    match rng.u8(0..6) {
        0 => read(How::Block),
        1 => read(How::Try),
        2 => read(How::One),
        3 => poll(By::Poll),
        4 => poll(By::Level),
        _ => poll(By::Edge),
    }
}

fn writer(rng: &mut Rng) -> Role {
    Role::Write {
        threads: rng.u8(1..=3),
        pause: PAUSES[rng.usize(..PAUSES.len())],
        deferred: rng.u8(0..=40),
    }
}

/// In two rounds of three.
fn perhaps<T>(rng: &mut Rng, what: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    let what = what(rng);
    (rng.u8(0..3) > 0).then_some(what)
}

fn milliseconds(rng: &mut Rng, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

impl fmt::Display for Unrest {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(text, "unrest {}:", self.seed)?;
        match self.stutter {
            Some((go, pause)) => {
                write!(text, " stutter {}/{} ms", go.as_millis(), pause.as_millis())?;
            }
            None => write!(text, " stutter no")?,
        }
        for (name, interval) in [
            ("signals", self.signals),
            ("shuffle", self.shuffle),
            ("onoff", self.onoff),
            ("unbind", self.unbind),
        ] {
            match interval {
                Some(interval) => write!(text, ", {name} {} ms", interval.as_millis())?,
                None => write!(text, ", {name} no")?,
            }
        }
        match self.slab {
            Some(percent) => write!(text, ", slab {percent} %"),
            None => write!(text, ", slab no"),
        }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(text, "{}", self.unrest)?;
        self.parts
            .iter()
            .try_for_each(|part| write!(text, "\n{part}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Options, Task};

    fn rounds(seed: u64, devices: &[usize]) -> Vec<Round> {
        let mut plan = Plan::new(seed, devices.to_vec());
        (0..50).map(|_| plan.round()).collect()
    }

    #[test]
    fn a_seed_repeats_its_plan() {
        assert_eq!(rounds(1, &[0, 1]), rounds(1, &[0, 1]));
        assert_ne!(rounds(1, &[0, 1]), rounds(2, &[0, 1]));
        // What a seed means is not to change without notice: findings are told by it.
        let expected = "\
unrest 742918468: stutter 520/178 ms, signals 16 ms, shuffle 117 ms, onoff 634 ms, unbind 268 ms, slab 6 %
--devices 0 --seed 1159629856 poll --by edge --bytes 4096
--devices 0 --seed 954197257 read --how try --bytes 20001 --pause 0
--devices 0 --seed 3678556713 write --threads 1 --pause 5000 --deferred 0
--devices 0 --seed 2547668646 write --threads 1 --pause 5000 --deferred 2
--devices 0 --seed 1498747173 drain
--devices 0 --seed 1012575750 count
--devices 0 --seed 1011101503 browse
--devices 0 --seed 1015313419 coalesce
--devices 0 --seed 2953131437 fork";
        assert_eq!(rounds(7, &[0])[0].to_string(), expected);
    }

    #[test]
    fn each_device_has_a_consumer_and_they_come_first() {
        for round in rounds(3, &[0, 1, 5]) {
            let consumers: Vec<_> = round
                .parts
                .iter()
                .map_while(|part| part.role.consumes().then_some(part.devices[0]))
                .collect();
            for device in [0, 1, 5] {
                assert!(consumers.contains(&device), "{round}");
            }
            let all = round.parts.iter().filter(|part| part.role.consumes());
            assert_eq!(all.count(), consumers.len(), "{round}");
        }
    }

    #[test]
    fn a_part_is_the_arguments_that_it_is_played_with() {
        for part in rounds(4, &[0, 3]).iter().flat_map(|round| &round.parts) {
            let line = format!("torture act --record r {part}");
            let options = Options::try_parse_from(line.split(' ')).unwrap();
            let Some(Task::Act(act)) = options.task else {
                panic!("{line}");
            };
            assert_eq!(act.part, *part, "{line}");
        }
    }

    #[test]
    fn everything_comes_about_and_can_be_left_out() {
        let rounds = rounds(5, &[0]);
        for &kind in Kind::value_variants() {
            let differ = |round: &Round| round.clone().without(kind) != *round;
            assert!(rounds.iter().any(differ), "{kind:?}");
            // Nothing else changes.
            for round in &rounds {
                let rest = round.clone().without(kind);
                assert!(
                    round.parts.len() <= rest.parts.len() + 1,
                    "{kind:?} {round}"
                );
                assert_eq!(rest.clone().without(kind), rest);
            }
        }
    }
}
