// SPDX-License-Identifier: GPL-2.0

//! One ring in service: what there is beside the virtqueue itself, and whether what comes through it
//! is an event.

use kernel::{list::List, prelude::*};

use crate::{
    abi::event::{Event, EVENT_SIZE, FLAG_ACKNOWLEDGE, SOURCES, SOURCE_DRIVER},
    node::{Batch, Entry, Node},
    ring::{Fault, Indices, Ring},
};

/// A ring in service.
pub(crate) struct Service {
    index: usize,
    pub(crate) ring: Ring,
    pub(crate) state: State,
    /// At how many of the watchdog's looks in a row events waited, and none was taken in between.
    pub(crate) waited: u32,
    /// The highest number among the events of each source.
    highest: [Option<u64>; SOURCES],
    /// A node for each event that can wait in the ring, so that none need be found for it then.
    pub(crate) spare: List<Node>,
}

/// Whether a ring is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It is.
    InUse,
    /// Something was wrong with it, or it was not set up yet. It is not looked at until the watchdog
    /// has set it up.
    Suspended,
    /// It was wrong even when it had been turned off. It is never looked at again.
    Lost,
}

impl State {
    /// Its name, for those who look at the driver.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InUse => "in use",
            Self::Suspended => "suspended",
            Self::Lost => "lost",
        }
    }
}

/// A ring as it was at one time.
pub(crate) struct Snapshot {
    pub(crate) state: State,
    pub(crate) size: u16,
    pub(crate) indices: Indices,
    /// The highest number among the events of each source.
    pub(crate) highest: [Option<u64>; SOURCES],
}

impl Service {
    /// A ring that is not used yet. Sleeps.
    pub(crate) fn new(index: usize, ring: Ring) -> Result<Self> {
        Ok(Self {
            index,
            spare: Node::pool(usize::from(ring.size()))?,
            ring,
            state: State::Suspended,
            waited: 0,
            highest: [None; SOURCES],
        })
    }

    /// Number of the ring.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// What it is like.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state,
            size: self.ring.size(),
            indices: self.ring.indices(),
            highest: self.highest,
        }
    }

    /// Takes `waiting` events into `batch`, and calls `acknowledge` for each that asks for that.
    pub(crate) fn take(
        &mut self,
        waiting: u16,
        batch: &mut Batch,
        mut acknowledge: impl FnMut(),
    ) -> Result<(), Fault> {
        for _ in 0..waiting {
            let bytes = self.ring.take()?;
            let Some(rises) = self.accept(&bytes, &mut acknowledge) else {
                batch.bad_checksum += 1;
                continue;
            };
            batch.out_of_order += u64::from(!rises);
            // There always is one: see `spare`.
            if let Some(mut node) = self.spare.pop_front() {
                *node.entry_mut() = Entry::from_ring(self.index, bytes);
                batch.events.push_back(node);
                batch.count += 1;
            }
        }
        Ok(())
    }

    /// Looks into what the device wrote. `None` if that is no event; otherwise whether its number is
    /// higher than those before.
    fn accept(&mut self, bytes: &[u8; EVENT_SIZE], acknowledge: impl FnOnce()) -> Option<bool> {
        let event = Event::from_bytes(bytes)?;
        if event.source == SOURCE_DRIVER {
            return None;
        }
        let highest = self.highest.get_mut(usize::from(event.source))?;
        if event.flags & FLAG_ACKNOWLEDGE != 0 {
            acknowledge();
        }
        let rises = highest.is_none_or(|highest| event.sequence > highest);
        if rises {
            *highest = Some(event.sequence);
        }
        Some(rises)
    }

    /// It is not to be looked at until it was set up anew.
    pub(crate) fn suspend(&mut self) {
        if self.state == State::InUse {
            self.state = State::Suspended;
        }
    }
}

/// What was taken from a ring.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) events: usize,
    thrown_away: u64,
    pub(crate) fault: Option<Fault>,
}

impl Taken {
    /// Adds what was taken at one more go.
    pub(crate) fn add(&mut self, batch: &Batch) {
        self.events = self.events.wrapping_add(batch.count);
        self.thrown_away = self.thrown_away.wrapping_add(batch.bad_checksum);
    }

    /// How much it was, events or not.
    pub(crate) fn count(&self) -> usize {
        self.events.wrapping_add(self.thrown_away as usize)
    }

    /// Whether it was nothing, and nothing was wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0 && self.fault.is_none()
    }
}
