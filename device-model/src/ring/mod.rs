// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One event ring: numbers events, delivers or drops them, counts, and decides which deserve an
//! interrupt. The faults that befall single events happen here.

mod access;
mod coalescing;
mod queue;

use std::collections::VecDeque;

use lockstorm_abi::event::{Event, FLAG_ACKNOWLEDGE, PAYLOAD_SIZE, SOURCES};
use lockstorm_abi::registers::{RING_STATE_ERROR, RING_STATE_OFF, RING_STATE_ON};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use crate::fault::{Fault, FaultSet, Scope};
use crate::journal::{Fate, Journal, Made};
pub(crate) use access::Access;
use coalescing::Coalescing;
pub(crate) use queue::Layout;
use queue::{SplitQueue, Unusable};

/// For how long an event is held back, a used index is wrong, or a late interrupt is late, in
/// nanoseconds.
const DELAY: u64 = 1_000_000;
/// Events with the flag ACKNOWLEDGE that are remembered until they are acknowledged. A driver that
/// acknowledges none costs no more.
const UNACKNOWLEDGED: usize = 64;
/// Where no memory is: the last page of the address space.
const UNMAPPED: GuestAddress = GuestAddress(u64::MAX - 0xfff);

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
    pub fn turn_off<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        moment: Moment,
        journal: &mut Journal,
    ) -> Signals {
        let signals = self.settle(access, moment, journal);
        let late = &mut self.armed[Fault::LateInterrupt as usize];
        if *late > 0 && matches!(self.state, State::On(_)) {
            *late -= 1;
            self.late = Some((moment.now.saturating_add(DELAY), self.vector));
        }
        self.state = State::Off;
        self.coalescing.flush();
        self.unacknowledged.clear();
        Signals {
            interrupts: 0,
            ..signals
        }
    }

    /// Turns the ring off and forgets what the driver has set. Counters and numbers go on.
    pub fn reset<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        moment: Moment,
        journal: &mut Journal,
    ) {
        self.turn_off(access, moment, journal);
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

    /// Takes all that back.
    pub fn disarm(&mut self) {
        self.armed = [0; Fault::COUNT];
        self.late = None;
    }

    /// Makes an event. Of the `faults` that could befall it the first one does; those of interrupts
    /// befall the next interrupt.
    pub fn generate<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        draft: Draft,
        faults: FaultSet,
        moment: Moment,
        journal: &mut Journal,
    ) -> Signals {
        let fault = self.next_fault(faults);
        let mut signals = Signals::default();
        match self.held.take() {
            Some(held)
                if held.fault == Fault::ReorderedEvent
                    && fault.is_none()
                    && held.draft.source == draft.source =>
            {
                self.swap(access, held.draft, draft, moment, journal, &mut signals);
                return signals;
            }
            Some(held) => self.release(access, &held, moment, journal, &mut signals),
            None => {}
        }
        match fault {
            Some(fault @ (Fault::EarlyInterrupt | Fault::ReorderedEvent))
                if moment.run && matches!(self.state, State::On(_)) =>
            {
                self.held = Some(Held {
                    draft,
                    fault,
                    until: moment.now.saturating_add(DELAY),
                });
                if fault == Fault::EarlyInterrupt {
                    journal.fault(fault);
                    self.interrupt(journal, &mut signals);
                }
            }
            fault => {
                let event = self.number(&draft, moment.now);
                self.deliver(access, event, &draft, fault, moment, journal, &mut signals);
            }
        }
        signals
    }

    /// Makes `count` events of `source` for which there is no buffer.
    pub fn drop_events(&mut self, source: u16, count: u64) {
        self.sequence[usize::from(source)] += count;
        self.stats.generated += count;
        self.stats.dropped += count;
        self.stats.full += count;
    }

    /// The driver has acknowledged an event: how long ago it was delivered, in nanoseconds.
    pub fn acknowledge(&mut self, now: u64) -> Option<u64> {
        let delivered = self.unacknowledged.pop_front()?;
        Some(now.saturating_sub(delivered))
    }

    fn expect_acknowledgements(&mut self, count: u16, now: u64) {
        for _ in 0..count {
            if self.unacknowledged.len() < UNACKNOWLEDGED {
                self.unacknowledged.push_back(now);
            }
        }
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

    /// Does what has been put off until now. The second value is the vector of a late interrupt.
    pub fn expire<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        moment: Moment,
        journal: &mut Journal,
    ) -> (Signals, Option<u16>) {
        let past = |time: Option<u64>| time.is_some_and(|time| time <= moment.now);
        let mut signals = Signals::default();
        if past(self.held.as_ref().map(|held| held.until)) || past(self.wrong_until) {
            signals = self.settle(access, moment, journal);
        }
        if self.coalescing.expire(moment.now) {
            self.interrupt(journal, &mut signals);
        }
        let late = self.late.filter(|&(at, _)| at <= moment.now);
        if late.is_some() {
            self.late = None;
            journal.fault(Fault::LateInterrupt);
        }
        (signals, late.map(|(_, vector)| vector))
    }

    /// Makes the event that is held back, and puts a wrong used index right.
    fn settle<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        moment: Moment,
        journal: &mut Journal,
    ) -> Signals {
        let mut signals = Signals::default();
        if let Some(held) = self.held.take() {
            self.release(access, &held, moment, journal, &mut signals);
        }
        if self.wrong_until.take().is_some()
            && let State::On(queue) = &self.state
            && queue.publish(access).is_err()
        {
            self.fail(&mut signals);
        }
        signals
    }

    /// Makes an event that was held back, with the interrupt that it did not have yet.
    fn release<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        held: &Held,
        moment: Moment,
        journal: &mut Journal,
        signals: &mut Signals,
    ) {
        let fault = (held.fault == Fault::EarlyInterrupt).then_some(held.fault);
        let event = self.number(&held.draft, moment.now);
        self.deliver(access, event, &held.draft, fault, moment, journal, signals);
    }

    /// Makes two events, the second before the first.
    fn swap<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        first: Draft,
        second: Draft,
        moment: Moment,
        journal: &mut Journal,
        signals: &mut Signals,
    ) {
        let before = self.number(&first, moment.now);
        let after = self.number(&second, moment.now);
        let mut deliver = |event, draft: &Draft| {
            self.deliver(access, event, draft, None, moment, journal, signals) == Fate::Delivered
        };
        // Both, even if the first has no buffer: each must be counted.
        if deliver(after, &second) & deliver(before, &first) {
            journal.fault(Fault::ReorderedEvent);
        }
    }

    /// Which of `faults`, and of those armed, befalls the event that is made now.
    fn next_fault(&mut self, faults: FaultSet) -> Option<Fault> {
        if !faults.is_empty() {
            for &fault in Fault::ALL {
                if !faults.contains(fault) || fault.scope() != Scope::Event {
                    continue;
                }
                if is_of_interrupt(fault) {
                    self.arm(fault, 1);
                } else {
                    return Some(fault);
                }
            }
        }
        let armed = |fault: &&Fault| {
            fault.scope() == Scope::Event
                && !is_of_interrupt(**fault)
                && self.armed[**fault as usize] > 0
        };
        let fault = *Fault::ALL.iter().find(armed)?;
        self.armed[fault as usize] -= 1;
        Some(fault)
    }

    fn number(&mut self, draft: &Draft, now: u64) -> Event {
        let sequence = &mut self.sequence[usize::from(draft.source)];
        let event = Event {
            sequence: *sequence,
            timestamp: now,
            source: draft.source,
            kind: draft.kind,
            ring: self.index,
            flags: draft.flags,
            payload: draft.payload,
        };
        *sequence += 1;
        self.stats.generated += 1;
        event
    }

    /// Writes `event`, counts what becomes of it, and interrupts if it deserves that.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is used, and none belongs to another"
    )]
    fn deliver<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        event: Event,
        draft: &Draft,
        fault: Option<Fault>,
        moment: Moment,
        journal: &mut Journal,
        signals: &mut Signals,
    ) -> Fate {
        let (fate, befallen) = if self.withhold > 0 {
            self.withhold -= 1;
            (Fate::Withheld, None)
        } else {
            self.write(access, &event, fault, moment, journal, signals)
        };
        match fate {
            Fate::Delivered | Fate::Withheld => self.stats.delivered += 1,
            Fate::Faulted => self.stats.faulted += 1,
            Fate::Dropped => {
                self.stats.dropped += 1;
                signals.dropped = true;
            }
        }
        journal.made(|| {
            let mut faults = FaultSet::NONE;
            befallen.into_iter().for_each(|fault| faults.insert(fault));
            Made {
                event,
                fate,
                faults,
                storm_offset: draft.storm_offset,
            }
        });
        fate
    }

    /// Writes `event` to the next buffer, as `fault` has it. Gives the fault if it came about.
    fn write<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        event: &Event,
        fault: Option<Fault>,
        moment: Moment,
        journal: &mut Journal,
        signals: &mut Signals,
    ) -> (Fate, Option<Fault>) {
        let State::On(queue) = &mut self.state else {
            return (Fate::Dropped, None);
        };
        if !moment.run {
            return (Fate::Dropped, None);
        }
        match put(queue, access, event, fault) {
            Ok(Put { used: 0, .. }) => {
                self.stats.full += 1;
                (Fate::Dropped, None)
            }
            Ok(Put { used, wanted }) => {
                self.stats.extra += u64::from(used - 1);
                let befallen = fault.filter(|&fault| match fault {
                    Fault::DuplicateEvent => used == 2,
                    // Was counted when its interrupt was sent.
                    Fault::EarlyInterrupt => false,
                    _ => true,
                });
                if let Some(fault) = befallen {
                    journal.fault(fault);
                }
                let wrong = matches!(fault, Some(Fault::StaleIndex | Fault::WildIndex));
                self.wrong_until = wrong.then(|| moment.now.saturating_add(DELAY));
                if fault != Some(Fault::EarlyInterrupt) {
                    if self.coalescing.event(wanted, moment.now) {
                        self.interrupt(journal, signals);
                    } else {
                        self.stats.quiet += 1;
                    }
                }
                if matches!(fault, Some(Fault::CorruptChecksum | Fault::UnmappedDma)) {
                    return (Fate::Faulted, befallen);
                }
                if event.flags & FLAG_ACKNOWLEDGE != 0 {
                    self.expect_acknowledgements(used, moment.now);
                }
                (Fate::Delivered, befallen)
            }
            Err(Unusable) => {
                self.fail(signals);
                (Fate::Dropped, None)
            }
        }
    }

    /// Sends an interrupt, as the faults have it that await the next one.
    fn interrupt(&mut self, journal: &mut Journal, signals: &mut Signals) {
        for (fault, interrupts) in [(Fault::LostInterrupt, 0), (Fault::DuplicateInterrupt, 2)] {
            let armed = &mut self.armed[fault as usize];
            if *armed > 0 {
                *armed -= 1;
                journal.fault(fault);
                signals.interrupts += interrupts;
                return;
            }
        }
        signals.interrupts += 1;
    }

    fn fail(&mut self, signals: &mut Signals) {
        self.state = State::Error;
        self.wrong_until = None;
        signals.failed = true;
    }
}

/// Whether `fault` befalls an interrupt rather than an event.
fn is_of_interrupt(fault: Fault) -> bool {
    matches!(fault, Fault::LostInterrupt | Fault::DuplicateInterrupt)
}

/// What was written to the queue.
struct Put {
    /// Buffers used: none if none was available.
    used: u16,
    /// Whether the driver wants an interrupt for it.
    wanted: bool,
}

/// Writes `event` into the next available buffer, as `fault` has it.
fn put<M: GuestMemory>(
    queue: &mut SplitQueue,
    access: &mut Access<'_, M>,
    event: &Event,
    fault: Option<Fault>,
) -> Result<Put, Unusable> {
    let mut bytes = event.to_bytes();
    if fault == Some(Fault::CorruptChecksum) {
        let bit = event.sequence % 64;
        bytes[56 + bit as usize / 8] ^= 1 << (bit % 8);
    }
    let copies = 1 + u16::from(fault == Some(Fault::DuplicateEvent));
    let mut used = 0;
    while used < copies
        && let Some(buffer) = queue.next_buffer(access)?
    {
        if fault == Some(Fault::UnmappedDma) {
            // As on a bus: nobody answers, and the device does not care.
            let _ = access.memory.write_slice(&bytes, UNMAPPED);
        } else {
            access
                .memory
                .write_slice(&bytes, buffer.address)
                .map_err(|_| Unusable)?;
        }
        queue.use_buffer(access, &buffer)?;
        used += 1;
    }
    if used == 0 {
        return Ok(Put {
            used,
            wanted: false,
        });
    }
    let wanted = match fault {
        Some(Fault::StaleIndex) => true,
        Some(Fault::WildIndex) => {
            queue.publish_wild(access)?;
            true
        }
        // Its interrupt came before; whether the next one has one is decided for both.
        Some(Fault::EarlyInterrupt) => {
            queue.publish(access)?;
            false
        }
        _ => {
            queue.publish(access)?;
            queue.wants_interrupt(access)?
        }
    };
    Ok(Put { used, wanted })
}
