// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One event ring: numbers events, delivers or drops them, counts, and decides which deserve an
//! interrupt. The faults that befall single events happen here.

mod access;
mod coalescing;
mod delivery;
mod queue;

use std::collections::VecDeque;

use lockstorm_abi::event::{PAYLOAD_SIZE, SOURCES};
use lockstorm_abi::registers::{RING_STATE_ERROR, RING_STATE_OFF, RING_STATE_ON};
use vm_memory::GuestMemory;

use crate::fault::Fault;
use crate::journal::Journal;
pub(crate) use access::Access;
use coalescing::Coalescing;
pub(crate) use queue::Layout;
use queue::{SplitQueue, Unusable};

/// For how long an event is held back, a used index is wrong, or a late interrupt is late, in
/// nanoseconds.
const DELAY: u64 = 1_000_000;

/// What a ring has counted. `generated == delivered + dropped + faulted` at every moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Events made for this ring.
    pub generated: u64,
    /// Events written to guest memory as they should be.
    pub delivered: u64,
    /// Events made but not written.
    pub dropped: u64,
    /// Events that a fault spoiled.
    pub faulted: u64,
    /// Second copies of events, which a fault made.
    pub extra: u64,
    /// Of the dropped events, the ones for which the driver had no buffer available.
    pub full: u64,
    /// Events delivered without an interrupt of their own, by event index or coalescing.
    pub quiet: u64,
}

/// An event to be made: all but its number and its time.
#[derive(Clone, Copy)]
pub(crate) struct Draft {
    pub source: u16,
    pub kind: u16,
    pub flags: u16,
    pub payload: [u8; PAYLOAD_SIZE],
    /// See [`Made::storm_offset`].
    pub storm_offset: Option<u64>,
}

/// What the device must do for its ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signals {
    /// Interrupts to send by the ring's vector.
    pub interrupts: u32,
    /// An event was dropped.
    pub dropped: bool,
    /// The ring has just gone into the error state.
    pub failed: bool,
}

/// The circumstances in which an event is made.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    /// The time, in nanoseconds.
    pub now: u64,
    /// The device may write events to memory.
    pub run: bool,
    /// It may write to memory at all.
    pub bus_master: bool,
}

/// One turn of work for a ring: what it may use, and what comes of it.
pub(crate) struct Turn<'t, 'm, M: GuestMemory> {
    pub access: &'t mut Access<'m, M>,
    pub moment: Moment,
    pub journal: &'t mut Journal,
    pub signals: Signals,
}

enum State {
    Off,
    On(SplitQueue),
    Error,
}

/// An event that a fault keeps from being made.
struct Held {
    draft: Draft,
    /// [`Fault::EarlyInterrupt`] or [`Fault::ReorderedEvent`].
    fault: Fault,
    until: u64,
}

pub(crate) struct Ring {
    index: u16,
    size_max: u16,
    /// The vector that the driver has chosen.
    pub vector: u16,
    layout: Layout,
    state: State,
    sequence: [u64; SOURCES],
    stats: RingStats,
    coalescing: Coalescing,
    /// When each event was delivered that is to be acknowledged and was not yet.
    unacknowledged: VecDeque<u64>,
    /// How many more there are, whose times are not kept.
    untimed: u64,
    withhold: u32,
    /// How often each fault is still to come, on the next events, interrupts, or when the ring is
    /// turned off.
    armed: [u32; Fault::COUNT],
    held: Option<Held>,
    /// The used index in memory is wrong until then.
    wrong_until: Option<u64>,
    /// A late interrupt: when, and by which vector.
    late: Option<(u64, u16)>,
}

impl Ring {
    pub fn new(index: u16, size_max: u16) -> Self {
        Self {
            index,
            size_max,
            vector: index,
            layout: Layout::default(),
            state: State::Off,
            sequence: [0; SOURCES],
            stats: RingStats::default(),
            coalescing: Coalescing::default(),
            unacknowledged: VecDeque::new(),
            untimed: 0,
            withhold: 0,
            armed: [0; Fault::COUNT],
            held: None,
            wrong_until: None,
            late: None,
        }
    }

    pub fn stats(&self) -> RingStats {
        self.stats
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The layout, for changing; `None` while the ring is on or in error.
    pub fn layout_mut(&mut self) -> Option<&mut Layout> {
        matches!(self.state, State::Off).then_some(&mut self.layout)
    }

    /// Events that make an interrupt worth while, and microseconds that one waits at most.
    pub fn coalescing(&self) -> (u32, u32) {
        (self.coalescing.count, self.coalescing.time)
    }

    /// Changes that; an interrupt that waits by the old settings is sent now.
    pub fn set_coalescing(&mut self, count: u32, time: u32) -> Signals {
        let waited = self.coalescing.flush();
        self.coalescing.count = count;
        self.coalescing.time = time;
        Signals {
            interrupts: waited.into(),
            ..Signals::default()
        }
    }

    /// Value of `RING_STATE`.
    pub fn state(&self) -> u32 {
        match self.state {
            State::Off => RING_STATE_OFF,
            State::On(_) => RING_STATE_ON,
            State::Error => RING_STATE_ERROR,
        }
    }

    /// Turns the ring on; false if its layout cannot be used, which is the error state.
    pub fn turn_on<M: GuestMemory>(&mut self, memory: &M) -> bool {
        if let State::Off = self.state {
            self.state = match SplitQueue::new(self.index, &self.layout, self.size_max, memory) {
                Ok(queue) => State::On(queue),
                Err(Unusable) => State::Error,
            };
        }
        !matches!(self.state, State::Error)
    }

    /// Turns the ring off, out of the error state too. Its layout stays. What faults had put off
    /// happens before, so that the used ring is right, but for interrupts, which have no use now.
    pub fn turn_off<M: GuestMemory>(&mut self, turn: &mut Turn<'_, '_, M>) {
        self.settle(turn);
        let late = &mut self.armed[Fault::LateInterrupt as usize];
        if *late > 0 && matches!(self.state, State::On(_)) {
            *late -= 1;
            self.late = Some((turn.moment.now.saturating_add(DELAY), self.vector));
        }
        self.state = State::Off;
        self.coalescing.flush();
        self.unacknowledged.clear();
        self.untimed = 0;
        turn.signals.interrupts = 0;
    }

    /// Turns the ring off and forgets what the driver has set, without a word. Counters and numbers
    /// go on.
    pub fn reset<M: GuestMemory>(&mut self, turn: &mut Turn<'_, '_, M>) {
        self.turn_off(turn);
        turn.signals = Signals::default();
        self.layout = Layout::default();
        self.vector = self.index;
        self.coalescing = Coalescing::default();
    }

    /// Makes the next `count` events vanish: counted as delivered, never written.
    ///
    /// No hardware does this. It is how a test shows that it would notice if one did.
    pub fn withhold(&mut self, count: u32) {
        self.withhold = self.withhold.saturating_add(count);
    }

    /// Lets `fault` befall the ring's next `count` events or interrupts, or it when it is turned
    /// off next.
    pub fn arm(&mut self, fault: Fault, count: u32) {
        let armed = &mut self.armed[fault as usize];
        *armed = armed.saturating_add(count);
    }

    /// The same for a storm, which may ask for it with each event: once is enough. There may be few
    /// interrupts, or the ring may never be turned off; then orders would pile up, and outlive the
    /// storm.
    pub fn arm_once(&mut self, fault: Fault) {
        let armed = &mut self.armed[fault as usize];
        *armed = (*armed).max(1);
    }

    /// Takes all that back.
    pub fn disarm(&mut self) {
        self.armed = [0; Fault::COUNT];
        self.late = None;
    }

    /// Makes `count` events of `source` that are dropped without a look for buffers: more than a
    /// ring that is on can have.
    pub fn drop_events<M: GuestMemory>(
        &mut self,
        source: u16,
        count: u64,
        turn: &mut Turn<'_, '_, M>,
    ) {
        self.sequence[usize::from(source)] += count;
        self.stats.generated += count;
        self.stats.dropped += count;
        if turn.moment.run && matches!(self.state, State::On(_)) {
            self.stats.full += count;
        }
        turn.signals.dropped = true;
        turn.journal.skip(count);
    }

    /// The driver has acknowledged an event: how long ago it was delivered, in nanoseconds.
    pub fn acknowledge(&mut self, now: u64) -> Option<u64> {
        let delivered = self.unacknowledged.pop_front();
        if delivered.is_none() {
            self.untimed = self.untimed.saturating_sub(1);
        }
        Some(now.saturating_sub(delivered?))
    }

    /// When [`Self::expire`] is to be called.
    pub fn due(&self) -> Option<u64> {
        [
            self.held.as_ref().map(|held| held.until),
            self.wrong_until,
            self.late.map(|(at, _)| at),
            self.coalescing.due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what has been put off until now. Gives the vector of a late interrupt.
    pub fn expire<M: GuestMemory>(&mut self, turn: &mut Turn<'_, '_, M>) -> Option<u16> {
        let now = turn.moment.now;
        let past = |time: Option<u64>| time.is_some_and(|time| time <= now);
        if past(self.held.as_ref().map(|held| held.until)) || past(self.wrong_until) {
            self.settle(turn);
        }
        if self.coalescing.expire(now) {
            self.interrupt(turn);
        }
        let late = self.late.filter(|&(at, _)| at <= now);
        if late.is_some() {
            self.late = None;
            turn.journal.fault(Fault::LateInterrupt);
        }
        late.map(|(_, vector)| vector)
    }

    /// Makes the event that is held back, and puts a wrong used index right. A device that may not
    /// write to memory leaves the index to the next event.
    fn settle<M: GuestMemory>(&mut self, turn: &mut Turn<'_, '_, M>) {
        if let Some(held) = self.held.take() {
            self.release(&held, turn);
        }
        if self.wrong_until.take().is_some()
            && turn.moment.bus_master
            && let State::On(queue) = &self.state
            && queue.publish(turn.access).is_err()
        {
            self.fail(turn);
        }
    }
}
