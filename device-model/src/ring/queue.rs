// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The device's side of one split virtqueue (VIRTIO 1.3, §2.7) on which it only ever writes.
//!
//! `virtio_queue` knows the layout and checks it. Taking and using buffers is done here, because a
//! faulty device must be able to do it wrongly, and because a chain or an indirect table must not
//! be followed: an event costs a bounded number of guest memory accesses, whatever the guest
//! writes into the queue. The first thing that cannot be right is [`Unusable`].

use std::sync::atomic::{Ordering, fence};

use lockstorm_abi::event::EVENT_SIZE;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{Bytes, GuestAddress, GuestMemory, VolatileSlice};

use super::access::{Access, Places};

/// `VIRTQ_DESC_F_WRITE` (§2.7.5): the buffer is for the device to write. The only flag allowed.
const DESCRIPTOR_WRITE: u16 = 2;
/// Offset of the index in the available and the used ring.
const INDEX: usize = 2;
/// Offset of the entries there.
const RING_HEADER: usize = 4;
/// How far out a wild index is: further than any ring is long.
const WILD: u16 = 0x8000;

/// What the guest offers cannot be used. Which rule it breaks does not matter: the ring's state is
/// all that the driver gets to see.
#[derive(Debug)]
pub(crate) struct Unusable;

/// What the driver has set for the time that the ring is on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    pub size: u32,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    pub event_index: bool,
}

/// A buffer that the driver has made available.
pub(crate) struct Buffer {
    head: u16,
    pub address: GuestAddress,
}

pub(crate) struct SplitQueue {
    /// Number of the ring that this is the queue of.
    ring: u16,
    places: Places,
    size: u16,
    event_index: bool,
    next_available: u16,
    /// The available index when it was last read: buffers up to it need no further look.
    available_seen: u16,
    next_used: u16,
    /// The used index when it was last decided whether to interrupt.
    decided: u16,
}

impl SplitQueue {
    /// A queue as `layout` describes it, at index 0 of both rings.
    pub fn new<M: GuestMemory>(
        ring: u16,
        layout: &Layout,
        size_max: u16,
        memory: &M,
    ) -> Result<Self, Unusable> {
        let size = u16::try_from(layout.size).map_err(|_| Unusable)?;
        // To virtio-queue an available ring at address 0 is one that was not set.
        if size < 2 || layout.available == 0 {
            return Err(Unusable);
        }
        let configure = || {
            let mut queue = Queue::new(size_max)?;
            queue.try_set_size(size)?;
            queue.try_set_desc_table_address(GuestAddress(layout.descriptors))?;
            queue.try_set_avail_ring_address(GuestAddress(layout.available))?;
            queue.try_set_used_ring_address(GuestAddress(layout.used))?;
            queue.set_ready(true);
            Ok(queue)
        };
        let queue: Queue = configure().map_err(|_: virtio_queue::Error| Unusable)?;
        if !queue.is_valid(memory) {
            return Err(Unusable);
        }
        let entries = usize::from(size);
        let places = [
            (queue.desc_table(), entries * size_of::<Descriptor>()),
            // With the driver's or device's event index behind the entries.
            (queue.avail_ring(), RING_HEADER + entries * 2 + 2),
            (queue.used_ring(), RING_HEADER + entries * 8 + 2),
        ];
        Access::new(memory).parts(ring, &places)?;
        Ok(Self {
            ring,
            places,
            size,
            event_index: layout.event_index,
            next_available: 0,
            available_seen: 0,
            next_used: 0,
            decided: 0,
        })
    }

    /// The next available buffer, if there is one. It stays the next one until it is
    /// [used](Self::use_buffer).
    pub fn next_buffer<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
    ) -> Result<Option<Buffer>, Unusable> {
        let parts = access.parts(self.ring, &self.places)?;
        if self.next_available == self.available_seen {
            // What the driver wrote before the index is seen after it.
            let index = load(&parts.available, INDEX, Ordering::Acquire)?;
            if index.wrapping_sub(self.next_available) > self.size {
                return Err(Unusable);
            }
            self.available_seen = index;
            if self.next_available == index {
                return Ok(None);
            }
        }
        let slot = usize::from(self.next_available % self.size);
        let entry = RING_HEADER + slot * 2;
        let head = load(&parts.available, entry, Ordering::Relaxed)?;
        if head >= self.size {
            return Err(Unusable);
        }
        let place = usize::from(head) * size_of::<Descriptor>();
        let descriptor: Descriptor = parts.descriptors.read_obj(place).map_err(|_| Unusable)?;
        if descriptor.flags() != DESCRIPTOR_WRITE || (descriptor.len() as usize) < EVENT_SIZE {
            return Err(Unusable);
        }
        Ok(Some(Buffer {
            head,
            address: descriptor.addr(),
        }))
    }

    /// Puts the buffer that [`Self::next_buffer`] gave last into the used ring. The driver does not
    /// see it before [`Self::publish`].
    pub fn use_buffer<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
        buffer: &Buffer,
    ) -> Result<(), Unusable> {
        let parts = access.parts(self.ring, &self.places)?;
        let slot = usize::from(self.next_used % self.size);
        // §2.7.8 `virtq_used_elem`: id, then length.
        let element = u64::from(buffer.head) | (EVENT_SIZE as u64) << 32;
        parts
            .used
            .write_slice(&element.to_le_bytes(), RING_HEADER + slot * 8)
            .map_err(|_| Unusable)?;
        self.next_available = self.next_available.wrapping_add(1);
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    /// Tells the driver of every buffer used so far: sets the used index.
    pub fn publish<M: GuestMemory>(&self, access: &mut Access<'_, M>) -> Result<(), Unusable> {
        self.set_used_index(access, self.next_used)
    }

    /// Sets the used index to what it can never be.
    pub fn publish_wild<M: GuestMemory>(&self, access: &mut Access<'_, M>) -> Result<(), Unusable> {
        self.set_used_index(access, self.next_used.wrapping_add(WILD))
    }

    /// Whether the driver wants to hear of the buffers used since the last time this was asked
    /// (§2.7.7.2). They have been published.
    pub fn wants_interrupt<M: GuestMemory>(
        &mut self,
        access: &mut Access<'_, M>,
    ) -> Result<bool, Unusable> {
        if !self.event_index {
            return Ok(true);
        }
        // The index is written before the driver's wish is read; the driver does it the other way
        // round. Without this both could miss the other's.
        fence(Ordering::SeqCst);
        let parts = access.parts(self.ring, &self.places)?;
        let place = RING_HEADER + usize::from(self.size) * 2;
        let used_event = load(&parts.available, place, Ordering::Relaxed)?;
        let new = self.next_used.wrapping_sub(self.decided);
        self.decided = self.next_used;
        Ok(self.next_used.wrapping_sub(used_event).wrapping_sub(1) < new)
    }

    fn set_used_index<M: GuestMemory>(
        &self,
        access: &mut Access<'_, M>,
        index: u16,
    ) -> Result<(), Unusable> {
        let parts = access.parts(self.ring, &self.places)?;
        // Events and elements are in memory before the index that says so.
        parts
            .used
            .store(index.to_le(), INDEX, Ordering::Release)
            .map_err(|_| Unusable)
    }
}

fn load<B: BitmapSlice>(
    piece: &VolatileSlice<'_, B>,
    offset: usize,
    order: Ordering,
) -> Result<u16, Unusable> {
    piece
        .load(offset, order)
        .map(u16::from_le)
        .map_err(|_| Unusable)
}
