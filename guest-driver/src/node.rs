// SPDX-License-Identifier: GPL-2.0

//! Events on their way through the driver: each is in a node, which goes from list to list.

use kernel::{
    alloc::Flags,
    list::{
        define_list_arc_field_getter, impl_list_arc_safe, impl_list_item, List, ListArc,
        ListArcField, ListLinks,
    },
    prelude::*,
};

use crate::abi::event::EVENT_SIZE;

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
    pub(crate) origin: Origin,
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

    /// No event: what is in a node that waits for one.
    pub(crate) fn none() -> Self {
        Self::added([0; EVENT_SIZE])
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
pub(crate) enum Origin {
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
    /// Allocates a node. May sleep, as `flags` say.
    pub(crate) fn new(entry: Entry, flags: Flags) -> Result<ListArc<Self>> {
        ListArc::pin_init(
            try_pin_init!(Self {
                links <- ListLinks::new(),
                entry: ListArcField::new(entry),
            }),
            flags,
        )
    }

    /// Allocates `count` nodes for events to come. May sleep.
    pub(crate) fn pool(count: usize) -> Result<List<Self>> {
        let mut pool = List::new();
        for _ in 0..count {
            pool.push_back(Self::new(Entry::none(), GFP_KERNEL)?);
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
