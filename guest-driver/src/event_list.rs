// SPDX-License-Identifier: GPL-2.0

//! The list of events that wait to be read, and what is counted about them.

use kernel::{
    list::{
        define_list_arc_field_getter, impl_list_arc_safe, impl_list_item, List, ListArc,
        ListArcField, ListLinks,
    },
    prelude::*,
    sync::{Arc, Completion},
};

use crate::{abi::event::EVENT_SIZE, trouble::Trouble, uapi::Counters};

/// One event and its place in a list.
#[pin_data]
pub(crate) struct Node {
    #[pin]
    links: ListLinks,
    entry: ListArcField<Entry>,
}

/// An event and where it came from. The latter is not what the event itself says: the device may
/// have put anything there.
pub(crate) struct Entry {
    origin: Origin,
    pub(crate) bytes: [u8; EVENT_SIZE],
}

impl Entry {
    /// An event from ring `ring`.
    pub(crate) fn from_ring(ring: usize, bytes: [u8; EVENT_SIZE]) -> Self {
        Self {
            origin: Origin::Ring(ring),
            bytes,
        }
    }

    /// An event that a program added.
    pub(crate) fn added(bytes: [u8; EVENT_SIZE]) -> Self {
        Self {
            origin: Origin::Added,
            bytes,
        }
    }
}

/// Where an event came from.
#[derive(Clone, Copy)]
enum Origin {
    /// Added by a program.
    Added,
    /// Taken from this ring.
    Ring(usize),
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Node { untracked; }
}

impl_list_item! {
    impl ListItem<0> for Node { using ListLinks { self.links }; }
}

impl Node {
    /// Allocates a node. May sleep.
    pub(crate) fn new(entry: Entry) -> Result<ListArc<Self>> {
        ListArc::pin_init(
            try_pin_init!(Self {
                links <- ListLinks::new(),
                entry: ListArcField::new(entry),
            }),
            GFP_KERNEL,
        )
    }

    /// Allocates `count` nodes for events to come. May sleep.
    pub(crate) fn pool(count: usize) -> Result<List<Self>> {
        let mut pool = List::new();
        for _ in 0..count {
            pool.push_back(Self::new(Entry::added([0; EVENT_SIZE]))?);
        }
        Ok(pool)
    }

    define_list_arc_field_getter! {
        pub(crate) fn entry(&self) -> &Entry { entry }
        pub(crate) fn entry_mut(&mut self) -> &mut Entry { entry }
    }
}

/// What was taken from a ring at one go.
#[derive(Default)]
pub(crate) struct Batch {
    /// Intact events, oldest first.
    pub(crate) events: List<Node>,
    /// Number of those.
    pub(crate) count: usize,
    /// How much was thrown away, because it was no event.
    pub(crate) bad_checksum: u64,
    /// How many of `events` have a number that does not rise.
    pub(crate) out_of_order: u64,
}

/// The events of one device, oldest first, at most [`Counters::list_bound`] of them.
///
/// Lives under the device's spinlock, which its doc describes, and so neither allocates, frees nor
/// sleeps. Nodes only ever change places. There are `list_bound` of them in `free`, in `ready` and
/// with readers together: whoever appends brings the nodes of its events along and gets as many
/// back, from `free` or from under the oldest events.
pub(crate) struct EventList {
    ready: List<Node>,
    free: List<Node>,
    gone: bool,
    /// What those wait for, if there are any, who want to know when every event was read. The next
    /// ones get another.
    drained: Option<Arc<Completion>>,
    /// All but what the device itself counts. Its `pending` is the events in `ready` and those
    /// with readers.
    counters: Counters,
}

impl EventList {
    /// An empty list. May sleep.
    pub(crate) fn new(rings: usize, list_bound: u32) -> Result<Self> {
        Ok(Self {
            ready: List::new(),
            free: Node::pool(list_bound as usize)?,
            gone: false,
            drained: None,
            counters: Counters {
                rings: rings as u32,
                list_bound,
                ..Counters::default()
            },
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

    /// Counts what went wrong.
    pub(crate) fn count_trouble(&mut self, trouble: Trouble) {
        trouble.count(&mut self.counters.faults);
    }

    /// Counts that a ring was set up anew.
    pub(crate) fn count_ring_restart(&mut self) {
        add(&mut self.counters.faults.ring_restarts, 1);
    }

    /// Counts that the device was set up anew.
    pub(crate) fn count_device_restart(&mut self) {
        add(&mut self.counters.faults.device_restarts, 1);
    }

    /// Appends what was taken from ring `ring`. Puts a node into `spare` for each event.
    pub(crate) fn receive(&mut self, ring: usize, batch: &mut Batch, spare: &mut List<Node>) {
        if let Some(counters) = self.counters.ring.get_mut(ring) {
            add(&mut counters.received, batch.count as u64);
            add(&mut counters.bad_checksum, batch.bad_checksum);
            add(&mut counters.out_of_order, batch.out_of_order);
        }
        self.append(&mut batch.events, batch.count, spare);
    }

    /// Appends one event that a program added. Puts a node into `spare`.
    pub(crate) fn add(&mut self, event: ListArc<Node>, spare: &mut List<Node>) {
        let mut events = List::new();
        events.push_back(event);
        add(&mut self.counters.added, 1);
        self.append(&mut events, 1, spare);
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

    fn append(&mut self, events: &mut List<Node>, count: usize, spare: &mut List<Node>) {
        self.ready.push_all_back(events);
        add(&mut self.counters.pending, count as u64);
        for _ in 0..count {
            let node = self.free.pop_front().or_else(|| self.evict_oldest());
            // By the counts above there always is one: at worst, one of those just appended.
            if let Some(node) = node {
                spare.push_back(node);
            }
        }
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
