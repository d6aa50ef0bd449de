// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One event ring: a split virtqueue (VIRTIO 1.3, §2.7) that only ever carries events to the guest.
//!
//! The driver offers buffers, the device fills one per event. Whatever the guest writes into the
//! queue, an event costs a bounded number of guest memory accesses: a descriptor is looked at once,
//! and the first thing that cannot be right ends in the error state.

use lockstorm_abi::event::{EVENT_SIZE, Event, SOURCES};
use lockstorm_abi::registers::{RING_STATE_ERROR, RING_STATE_OFF, RING_STATE_ON};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

/// `VIRTQ_DESC_F_WRITE` (§2.7.5): the buffer is for the device to write. The only flag allowed.
const DESCRIPTOR_WRITE: u16 = 2;

/// What a ring has counted since reset. `generated == delivered + dropped` at every moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Events made for this ring.
    pub generated: u64,
    /// Events written to guest memory.
    pub delivered: u64,
    /// Events made but not written.
    pub dropped: u64,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in guest memory and in the used ring: the driver must hear of it.
    Delivered,
    /// It counts as delivered and is nowhere ([`Ring::withhold`]).
    Withheld,
    /// No buffer was available, or the ring or the device is off.
    Dropped,
    /// The ring has just gone into the error state. The event is dropped.
    Failed,
}

/// What the driver has set for the time that the ring is on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    pub size: u32,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

enum State {
    Off,
    On(Queue),
    Error,
}

/// What the guest offers cannot be used. Which rule it breaks does not matter: the state is all
/// that the driver gets to see.
struct Unusable;

pub(crate) struct Ring {
    index: u16,
    size_max: u16,
    layout: Layout,
    state: State,
    sequence: [u64; SOURCES],
    stats: RingStats,
    withhold: u32,
}

impl Ring {
    pub fn new(index: u16, size_max: u16) -> Self {
        Self {
            index,
            size_max,
            layout: Layout::default(),
            state: State::Off,
            sequence: [0; SOURCES],
            stats: RingStats::default(),
            withhold: 0,
        }
    }

    pub fn reset(&mut self) {
        *self = Self::new(self.index, self.size_max);
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
            self.state = match self.queue(memory) {
                Ok(queue) => State::On(queue),
                Err(Unusable) => State::Error,
            };
        }
        !matches!(self.state, State::Error)
    }

    /// Turns the ring off, out of the error state too. Its layout stays.
    pub fn turn_off(&mut self) {
        self.state = State::Off;
    }

    /// Makes the next `count` events vanish: counted as delivered, never written.
    ///
    /// No hardware does this. It is how a test shows that it would notice if one did.
    pub fn withhold(&mut self, count: u32) {
        self.withhold = self.withhold.saturating_add(count);
    }

    /// Makes an event; `event` gives all but its sequence number and ring. With `run` false the
    /// device is off, and the event is dropped.
    pub fn generate<M: GuestMemory>(&mut self, memory: &M, mut event: Event, run: bool) -> Fate {
        let sequence = &mut self.sequence[usize::from(event.source)];
        event.sequence = *sequence;
        event.ring = self.index;
        *sequence += 1;
        self.stats.generated += 1;

        if self.withhold > 0 {
            self.withhold -= 1;
            self.stats.delivered += 1;
            return Fate::Withheld;
        }
        let State::On(queue) = &mut self.state else {
            self.stats.dropped += 1;
            return Fate::Dropped;
        };
        let delivered = if run {
            deliver(queue, memory, &event)
        } else {
            Ok(false)
        };
        match delivered {
            Ok(true) => {
                self.stats.delivered += 1;
                Fate::Delivered
            }
            Ok(false) => {
                self.stats.dropped += 1;
                Fate::Dropped
            }
            Err(Unusable) => {
                self.state = State::Error;
                self.stats.dropped += 1;
                Fate::Failed
            }
        }
    }

    /// Makes `count` events of `source` for which there is no buffer.
    pub fn drop_events(&mut self, source: u16, count: u64) {
        self.sequence[usize::from(source)] += count;
        self.stats.generated += count;
        self.stats.dropped += count;
    }

    fn queue<M: GuestMemory>(&self, memory: &M) -> Result<Queue, Unusable> {
        let size = u16::try_from(self.layout.size).map_err(|_| Unusable)?;
        // To virtio-queue an available ring at address 0 is one that was not set.
        if size < 2 || self.layout.available == 0 {
            return Err(Unusable);
        }
        let configure = || {
            let mut queue = Queue::new(self.size_max)?;
            queue.try_set_size(size)?;
            queue.try_set_desc_table_address(GuestAddress(self.layout.descriptors))?;
            queue.try_set_avail_ring_address(GuestAddress(self.layout.available))?;
            queue.try_set_used_ring_address(GuestAddress(self.layout.used))?;
            queue.set_ready(true);
            Ok(queue)
        };
        let queue: Queue = configure().map_err(|_: virtio_queue::Error| Unusable)?;
        if queue.is_valid(memory) {
            Ok(queue)
        } else {
            Err(Unusable)
        }
    }
}

/// Writes `event` into the next available buffer; `Ok(false)` if there is none.
fn deliver<M: GuestMemory>(queue: &mut Queue, memory: &M, event: &Event) -> Result<bool, Unusable> {
    let mut available = queue.iter(memory).map_err(|_| Unusable)?;
    let Some(chain) = available.next() else {
        return Ok(false);
    };
    let head = chain.head_index();
    if head >= queue.size() {
        return Err(Unusable);
    }
    // Not by way of the chain, which would follow an indirect table.
    let address = GuestAddress(queue.desc_table())
        .checked_add(u64::from(head) * size_of::<Descriptor>() as u64)
        .ok_or(Unusable)?;
    let buffer: Descriptor = memory.read_obj(address).map_err(|_| Unusable)?;
    if buffer.flags() != DESCRIPTOR_WRITE || (buffer.len() as usize) < EVENT_SIZE {
        return Err(Unusable);
    }
    memory
        .write_slice(&event.to_bytes(), buffer.addr())
        .map_err(|_| Unusable)?;
    // Publishes the index with release ordering, so the driver never sees it before the event.
    queue
        .add_used(memory, head, EVENT_SIZE as u32)
        .map_err(|_| Unusable)?;
    Ok(true)
}
