// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How an event is made and what becomes of it, with the faults that can befall it.

use lockstorm_abi::event::{Event, FLAG_ACKNOWLEDGE};
use vm_memory::{GuestAddress, GuestMemory};

use super::queue::{SplitQueue, Unusable};
use super::{Access, DELAY, Draft, Held, Ring, State, Turn};
use crate::fault::{Fault, FaultSet, Scope};
use crate::journal::{Fate, Made};

/// Events with the flag ACKNOWLEDGE whose time is kept until they are acknowledged. A driver that
/// acknowledges none costs no more.
const UNACKNOWLEDGED: usize = 64;
/// Where no memory is: the last page of the address space.
const UNMAPPED: GuestAddress = GuestAddress(u64::MAX - 0xfff);

impl Ring {
    /// Makes an event. Of the `faults` that could befall it the first one does; those of interrupts
    /// befall the next interrupt.
    pub fn generate<M: GuestMemory>(
        &mut self,
        draft: Draft,
        faults: FaultSet,
        turn: &mut Turn<'_, '_, M>,
    ) {
        let fault = self.next_fault(faults);
        match self.held.take() {
            Some(held)
                if held.fault == Fault::ReorderedEvent
                    && fault.is_none()
                    && held.draft.source == draft.source =>
            {
                self.swap(held.draft, draft, turn);
                return;
            }
            Some(held) => self.release(&held, turn),
            None => {}
        }
        match fault {
            Some(fault @ (Fault::EarlyInterrupt | Fault::ReorderedEvent))
                if turn.moment.run && matches!(self.state, State::On(_)) =>
            {
                self.held = Some(Held {
                    draft,
                    fault,
                    until: turn.moment.now.saturating_add(DELAY),
                });
                if fault == Fault::EarlyInterrupt {
                    turn.journal.fault(fault);
                    self.interrupt(turn);
                }
            }
            fault => {
                let event = self.number(&draft, turn.moment.now);
                self.deliver(event, &draft, fault, turn);
            }
        }
    }

    /// Makes an event that was held back, with the interrupt that it did not have yet.
    pub(super) fn release<M: GuestMemory>(&mut self, held: &Held, turn: &mut Turn<'_, '_, M>) {
        let fault = (held.fault == Fault::EarlyInterrupt).then_some(held.fault);
        let event = self.number(&held.draft, turn.moment.now);
        self.deliver(event, &held.draft, fault, turn);
    }

    /// Makes two events, the second before the first.
    fn swap<M: GuestMemory>(&mut self, first: Draft, second: Draft, turn: &mut Turn<'_, '_, M>) {
        let before = self.number(&first, turn.moment.now);
        let after = self.number(&second, turn.moment.now);
        let mut deliver =
            |event, draft: &Draft| self.deliver(event, draft, None, turn) == Fate::Delivered;
        // Both, even if the first has no buffer: each must be counted.
        if deliver(after, &second) & deliver(before, &first) {
            turn.journal.fault(Fault::ReorderedEvent);
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
                    self.arm_once(fault);
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
    fn deliver<M: GuestMemory>(
        &mut self,
        event: Event,
        draft: &Draft,
        fault: Option<Fault>,
        turn: &mut Turn<'_, '_, M>,
    ) -> Fate {
        let (fate, befallen) = if self.withhold > 0 {
            self.withhold -= 1;
            (Fate::Withheld, None)
        } else {
            self.write(&event, fault, turn)
        };
        match fate {
            Fate::Delivered | Fate::Withheld => self.stats.delivered += 1,
            Fate::Faulted => self.stats.faulted += 1,
            Fate::Dropped => {
                self.stats.dropped += 1;
                turn.signals.dropped = true;
            }
        }
        turn.journal.made(|| {
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
        event: &Event,
        fault: Option<Fault>,
        turn: &mut Turn<'_, '_, M>,
    ) -> (Fate, Option<Fault>) {
        let State::On(queue) = &mut self.state else {
            return (Fate::Dropped, None);
        };
        if !turn.moment.run {
            return (Fate::Dropped, None);
        }
        match put(queue, turn.access, event, fault) {
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
                    turn.journal.fault(fault);
                }
                let wrong = matches!(fault, Some(Fault::StaleIndex | Fault::WildIndex));
                self.wrong_until = wrong.then(|| turn.moment.now.saturating_add(DELAY));
                let spoilt = matches!(fault, Some(Fault::CorruptChecksum | Fault::UnmappedDma));
                if fault != Some(Fault::EarlyInterrupt) {
                    if self.coalescing.event(wanted, turn.moment.now) {
                        self.interrupt(turn);
                    } else if !spoilt {
                        self.stats.quiet += 1;
                    }
                }
                if spoilt {
                    return (Fate::Faulted, befallen);
                }
                if event.flags & FLAG_ACKNOWLEDGE != 0 {
                    self.expect_acknowledgements(used, turn.moment.now);
                }
                (Fate::Delivered, befallen)
            }
            Err(Unusable) => {
                self.fail(turn);
                (Fate::Dropped, None)
            }
        }
    }

    /// Sends an interrupt, as the faults have it that await the next one.
    pub(super) fn interrupt<M: GuestMemory>(&mut self, turn: &mut Turn<'_, '_, M>) {
        for (fault, interrupts) in [(Fault::LostInterrupt, 0), (Fault::DuplicateInterrupt, 2)] {
            let armed = &mut self.armed[fault as usize];
            if *armed > 0 {
                *armed -= 1;
                turn.journal.fault(fault);
                turn.signals.interrupts += interrupts;
                return;
            }
        }
        turn.signals.interrupts += 1;
    }

    pub(super) fn fail<M: GuestMemory>(&mut self, turn: &mut Turn<'_, '_, M>) {
        // What was delivered is to be seen; if the index cannot be written, that is what failed.
        if self.wrong_until.take().is_some()
            && let State::On(queue) = &self.state
        {
            let _ = queue.publish(turn.access);
        }
        self.state = State::Error;
        turn.signals.failed = true;
    }

    fn expect_acknowledgements(&mut self, count: u16, now: u64) {
        for _ in 0..count {
            // Once there were too many, none is timed until all of them are acknowledged: each
            // acknowledgement means the oldest.
            if self.untimed == 0 && self.unacknowledged.len() < UNACKNOWLEDGED {
                self.unacknowledged.push_back(now);
            } else {
                self.untimed = self.untimed.saturating_add(1);
            }
        }
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
            let _ = access.write(&bytes, UNMAPPED);
        } else {
            access.write(&bytes, buffer.address)?;
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
