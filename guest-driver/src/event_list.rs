// SPDX-License-Identifier: GPL-2.0

//! The list of events that wait to be read, and what is counted about them.

use kernel::{
    list::{List, ListArc},
    prelude::*,
    sync::{Arc, Completion},
};

use crate::{
    node::{Batch, Node, Origin},
    reset::ResetRequests,
    trouble::{History, Noticed},
    uapi::{Counters, DEFERRED_MAX},
};

/// How many free nodes there are when few events wait: good for a burst until more are made.
const FREE: usize = 1024;
/// With fewer free nodes than this, it is time to make some.
const FREE_LOW: usize = 512;
/// How many nodes are made at a time.
const PORTION: usize = 128;

/// How far the making of nodes is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Making {
    /// There were enough.
    Idle,
    /// Somebody has queued the work, or is about to.
    Queued,
    /// There was no memory.
    Failed,
}

/// How many events had to leave the list unread.
#[derive(Clone, Copy, Default)]
pub(crate) struct Evicted {
    /// All of them.
    pub(crate) count: usize,
    /// Those of them that left although the list was not full, for want of a node.
    pub(crate) early: usize,
}

/// The events of one device, oldest first, at most [`Counters::list_bound`] of them.
///
/// Lives under the device's spinlock, which its doc describes, and so neither allocates, frees nor
/// sleeps. Nodes only ever change places. There are `nodes` of them in `free`, in `ready` and with
/// readers together, at most `list_bound`: whoever appends brings the nodes of its events along and
/// gets as many back, from `free` or from under the oldest events. When few are free, others are made
/// in process context and put there. An event that a program adds may leave its node here.
pub(crate) struct EventList {
    ready: List<Node>,
    free: List<Node>,
    nodes: usize,
    making: Making,
    gone: bool,
    /// What those wait for, if there are any, who want to know when every event was read. The next
    /// ones get another.
    drained: Option<Arc<Completion>>,
    /// All but what the device itself counts. Its `pending` is the events in `ready` and those
    /// with readers.
    counters: Counters,
    history: History,
    resets: ResetRequests,
}

impl EventList {
    /// An empty list. May sleep.
    pub(crate) fn new(rings: usize, list_bound: u32) -> Result<Self> {
        let nodes = FREE.min(list_bound as usize);
        Ok(Self {
            ready: List::new(),
            free: Node::pool(nodes)?,
            nodes,
            making: Making::Idle,
            gone: false,
            drained: None,
            counters: Counters {
                rings: rings as u32,
                list_bound,
                ..Counters::default()
            },
            history: History::new(),
            resets: ResetRequests::default(),
        })
    }

    /// Whether the device is gone. Then nobody may wait any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// The device is gone. Gives what is to be completed, with the lock released.
    #[must_use]
    pub(crate) fn set_gone(&mut self) -> Option<Arc<Completion>> {
        self.gone = true;
        self.drained.take()
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// What will be completed when every event was read or the device is gone: `new`, or what
    /// others wait for already. `None` if every event was read.
    pub(crate) fn when_drained(&mut self, new: &Arc<Completion>) -> Option<Arc<Completion>> {
        match self.counters.pending {
            0 => None,
            _ => Some(self.drained.get_or_insert_with(|| new.clone()).clone()),
        }
    }

    /// What is counted; the fields for what the device itself counts are zero.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Counts an interrupt of a ring; an `empty` one found nothing to take.
    pub(crate) fn count_interrupt(&mut self, empty: bool) {
        add(&mut self.counters.interrupts, 1);
        add(&mut self.counters.empty_interrupts, u64::from(empty));
    }

    /// Counts an interrupt of the status vector.
    pub(crate) fn count_status_interrupt(&mut self) {
        add(&mut self.counters.status_interrupts, 1);
    }

    /// Counts an injection that waits from now on. `EBUSY` if too many wait already.
    pub(crate) fn defer(&mut self) -> Result {
        if self.counters.deferred_pending >= u64::from(DEFERRED_MAX) {
            return Err(EBUSY);
        }
        add(&mut self.counters.deferred, 1);
        add(&mut self.counters.deferred_pending, 1);
        Ok(())
    }

    /// Counts that the doorbell of such an injection was rung.
    pub(crate) fn count_deferred_doorbell(&mut self) {
        add(&mut self.counters.deferred_rung, 1);
        subtract(&mut self.counters.deferred_pending, 1);
    }

    /// Counts and remembers what went wrong.
    pub(crate) fn record_trouble(&mut self, noticed: Noticed) {
        noticed.trouble.count(&mut self.counters.faults);
        self.history.remember(noticed);
    }

    /// What went wrong lately.
    pub(crate) fn history(&self) -> History {
        self.history
    }

    /// Counts that a ring was set up anew.
    pub(crate) fn count_ring_restart(&mut self) {
        add(&mut self.counters.faults.ring_restarts, 1);
    }

    /// Counts that the device was set up anew.
    pub(crate) fn count_device_restart(&mut self) {
        add(&mut self.counters.faults.device_restarts, 1);
    }

    /// What programs want to be reset.
    pub(crate) fn resets(&mut self) -> &mut ResetRequests {
        &mut self.resets
    }

    /// Appends what was taken from ring `ring`. Puts a node into `spare` for each event.
    pub(crate) fn receive(
        &mut self,
        ring: usize,
        batch: &mut Batch,
        spare: &mut List<Node>,
    ) -> Evicted {
        if let Some(counters) = self.counters.ring.get_mut(ring) {
            add(&mut counters.received, batch.count as u64);
            add(&mut counters.bad_checksum, batch.bad_checksum);
            add(&mut counters.out_of_order, batch.out_of_order);
        }
        self.append(&mut batch.events, batch.count, spare)
    }

    /// Appends one event that a program added. If there are as many nodes as there may be, puts one
    /// into `spare`.
    pub(crate) fn add(&mut self, event: ListArc<Node>, spare: &mut List<Node>) -> Evicted {
        let mut events = List::new();
        events.push_back(event);
        add(&mut self.counters.added, 1);
        if self.nodes < self.bound() {
            self.nodes += 1;
            self.ready.push_all_back(&mut events);
            add(&mut self.counters.pending, 1);
            return Evicted::default();
        }
        self.append(&mut events, 1, spare)
    }

    /// Whether the caller is to queue the work that makes nodes, now that some were used.
    pub(crate) fn wants_nodes(&mut self) -> bool {
        let wants =
            self.making == Making::Idle && self.nodes < self.bound() && self.free() < FREE_LOW;
        if wants {
            self.making = Making::Queued;
        }
        wants
    }

    /// Whether the caller is to queue that work once more, because there was no memory for it.
    pub(crate) fn wants_nodes_again(&mut self) -> bool {
        let wants = self.making == Making::Failed;
        if wants {
            self.making = Making::Queued;
        }
        wants
    }

    /// How many nodes that work is to make next. If none, it ends, and may be queued again.
    pub(crate) fn next_portion(&mut self) -> usize {
        let missing = FREE.saturating_sub(self.free());
        let portion = match self.gone {
            true => 0,
            false => missing.min(self.bound() - self.nodes).min(PORTION),
        };
        if portion == 0 {
            self.making = Making::Idle;
        }
        portion
    }

    /// Takes `nodes` for events to come, as many as there may be. Programs may have left some here
    /// since it was said how many are wanted.
    pub(crate) fn supply(&mut self, nodes: &mut List<Node>) {
        while self.nodes < self.bound() {
            let Some(node) = nodes.pop_front() else {
                break;
            };
            self.free.push_back(node);
            self.nodes += 1;
        }
    }

    /// That work ends because there was no memory.
    pub(crate) fn refill_failed(&mut self) {
        self.making = Making::Failed;
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    /// How many nodes are free.
    pub(crate) fn free(&self) -> usize {
        self.nodes.saturating_sub(self.counters.pending as usize)
    }

    fn bound(&self) -> usize {
        self.counters.list_bound as usize
    }

    /// Takes the oldest events out to be read, at most `count` of them. The reader gives each node
    /// back with [`Self::give_back`].
    pub(crate) fn take(&mut self, count: usize) -> List<Node> {
        let mut taken = List::new();
        for _ in 0..count {
            match self.ready.pop_front() {
                Some(node) => taken.push_back(node),
                None => break,
            }
        }
        taken
    }

    /// Takes back what [`Self::take`] gave: the nodes of `count` events that were `read`, and the
    /// events that were left `unread`, which become the oldest ones again. Gives what is to be
    /// completed, with the lock released.
    #[must_use]
    pub(crate) fn give_back(
        &mut self,
        read: &mut List<Node>,
        count: usize,
        unread: &mut List<Node>,
    ) -> Option<Arc<Completion>> {
        add(&mut self.counters.read, count as u64);
        subtract(&mut self.counters.pending, count as u64);
        self.free.push_all_back(read);
        unread.push_all_back(&mut self.ready);
        core::mem::swap(unread, &mut self.ready);
        match self.counters.pending {
            0 => self.drained.take(),
            _ => None,
        }
    }

    fn append(&mut self, events: &mut List<Node>, count: usize, spare: &mut List<Node>) -> Evicted {
        self.ready.push_all_back(events);
        add(&mut self.counters.pending, count as u64);
        let mut evicted = Evicted::default();
        for _ in 0..count {
            let node = self.free.pop_front().or_else(|| {
                evicted.count += 1;
                self.evict_oldest()
            });
            // By the counts above there always is one: at worst, one of those just appended.
            if let Some(node) = node {
                spare.push_back(node);
            }
        }
        if self.nodes < self.bound() {
            evicted.early = evicted.count;
            add(&mut self.counters.evicted_early, evicted.early as u64);
        }
        evicted
    }

    fn evict_oldest(&mut self) -> Option<ListArc<Node>> {
        let node = self.ready.pop_front()?;
        subtract(&mut self.counters.pending, 1);
        let evicted = match node.entry().origin {
            Origin::Added => Some(&mut self.counters.added_evicted),
            Origin::Ring(ring) => self
                .counters
                .ring
                .get_mut(ring)
                .map(|ring| &mut ring.evicted),
        };
        if let Some(evicted) = evicted {
            add(evicted, 1);
        }
        Some(node)
    }
}

/// Counters wrap: with the kernel's overflow checks, `+=` could panic in an interrupt handler.
fn add(counter: &mut u64, count: u64) {
    *counter = counter.wrapping_add(count);
}

fn subtract(counter: &mut u64, count: u64) {
    *counter = counter.wrapping_sub(count);
}
