// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the device keeps of what it did, for its host: faults by kind, and events for those who
//! watch.

use std::collections::VecDeque;

use lockstorm_abi::event::Event;

use crate::fault::{Fault, FaultSet};

/// Events kept for a host that does not fetch them.
const KEPT: usize = 4096;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in guest memory and in the used ring.
    Delivered,
    /// It counts as delivered and is nowhere ([`crate::Evgen::withhold`]).
    Withheld,
    /// No buffer was available, or the ring or the device is off, hangs or is gone.
    Dropped,
    /// A fault spoiled it: its buffer was used, and what is in it is not the event.
    Faulted,
}

/// An event that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The event as it was meant to be.
    pub event: Event,
    /// What became of it.
    pub fate: Fate,
    /// The faults that befell it.
    pub faults: FaultSet,
    /// If a storm made it: when it was due, in nanoseconds since the storm began.
    pub storm_offset: Option<u64>,
}

/// The device's memory of its own deeds.
#[derive(Default)]
pub(crate) struct Journal {
    /// How often each fault befell an event, a ring or the device.
    pub faults: [u64; Fault::COUNT],
    watched: Option<Watched>,
}

#[derive(Default)]
struct Watched {
    made: VecDeque<Made>,
    lost: u64,
}

impl Journal {
    /// Counts a fault that has happened.
    pub fn fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    /// Keeps events from now on, or none any more.
    pub fn watch(&mut self, on: bool) {
        match (on, &self.watched) {
            (true, None) => self.watched = Some(Watched::default()),
            (false, Some(_)) => self.watched = None,
            _ => {}
        }
    }

    /// Notes an event, if anybody watches.
    pub fn made(&mut self, made: impl FnOnce() -> Made) {
        let Some(watched) = &mut self.watched else {
            return;
        };
        if watched.made.len() == KEPT {
            watched.lost += 1;
        } else {
            watched.made.push_back(made());
        }
    }

    /// Notes that `count` events were made that nobody is told of one by one.
    pub fn skip(&mut self, count: u64) {
        if let Some(watched) = &mut self.watched {
            watched.lost += count;
        }
    }

    /// The events since the last call, oldest first, and how many were too many to be kept; those
    /// came after the ones given.
    pub fn take(&mut self) -> (Vec<Made>, u64) {
        self.watched.as_mut().map_or((Vec::new(), 0), |watched| {
            let lost = std::mem::take(&mut watched.lost);
            (watched.made.drain(..).collect(), lost)
        })
    }
}
