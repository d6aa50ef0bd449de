// SPDX-License-Identifier: GPL-2.0

//! One event ring: a VIRTIO 1.3 split virtqueue (§2.7) whose every buffer is for the device to
//! write one event to.
//!
//! The device is not trusted: whatever it writes here can make events wrong, never memory.

use kernel::{
    device::{Bound, Device},
    dma::{Coherent, DmaAddress},
    fmt,
    io::{io_project, io_read, io_write, Io},
    prelude::*,
    sync::barrier::{dma_mb, Full, Read},
    transmute,
};

use crate::abi::event::EVENT_SIZE;

/// Most descriptors that we give a ring.
pub(crate) const MAX_SIZE: usize = 256;

/// VIRTIO 1.3 §2.7.5, `VIRTQ_DESC_F_WRITE`: the buffer is for the device to write.
const DESCRIPTOR_WRITE: u16 = 2;

/// Where the device finds the three parts of a ring.
pub(crate) struct Addresses {
    pub(crate) descriptors: DmaAddress,
    pub(crate) available: DmaAddress,
    pub(crate) used: DmaAddress,
}

/// How far driver and device are with a ring, modulo 2^16.
#[derive(Clone, Copy)]
pub(crate) struct Indices {
    /// Elements that the driver took from the used ring.
    pub(crate) taken: u16,
    /// Buffers that the device knows of.
    pub(crate) offered: u16,
    /// Elements that the device put into the used ring, or so it says.
    pub(crate) used: u16,
}

impl Indices {
    /// Events that wait in the ring, or so the device says.
    pub(crate) fn waiting(self) -> u16 {
        self.used.wrapping_sub(self.taken)
    }
}

/// What the device did that it must never do. The ring is not to be used until it was turned off and
/// set up anew.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// It used more buffers than it had.
    UsedIndex { index: u16, taken: u16 },
    /// It used a buffer whose turn it was not, or not as much of it as an event takes.
    UsedElement { id: u32, length: u32 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UsedIndex { index, taken } => {
                write!(
                    f,
                    "the used index went from {taken} to {index}, past what the device has"
                )
            }
            Self::UsedElement { id, length } => write!(
                f,
                "a used element has id {id}, length {length}: not the next buffer's, or no event's"
            ),
        }
    }
}

/// The driver's side of one ring.
///
/// Descriptor `n` always means buffer `n`. Each buffer is with the device, or used and waiting in
/// the used ring, or taken and not offered again yet. The device uses them in the order in which they
/// are offered, and they are offered in the order in which they were used: so always in a circle.
///
/// A buffer that is offered has a checksum of zero, which no event of this device has: if the device
/// wrote its event to somewhere else, that shows.
pub(crate) struct Ring {
    memory: Coherent<Memory>,
    size: u16,
    /// How many elements we took from the used ring, modulo 2^16.
    taken: u16,
    /// How many elements we put into the available ring, modulo 2^16.
    ready: u16,
    /// How many of those the device knows of, modulo 2^16.
    offered: u16,
}

impl Ring {
    /// Allocates a ring of `size` descriptors, all of them offered to the device. A power of two up to
    /// [`MAX_SIZE`].
    pub(crate) fn new(dev: &Device<Bound>, size: u16) -> Result<Self> {
        let mut ring = Self {
            memory: Coherent::zeroed(dev, GFP_KERNEL)?,
            size,
            taken: 0,
            ready: 0,
            offered: 0,
        };
        ring.begin();
        Ok(ring)
    }

    /// Brings the ring to its beginning: indices at zero, all buffers offered. The device must have
    /// turned it off. What waited in it is lost.
    pub(crate) fn begin(&mut self) {
        (self.taken, self.ready, self.offered) = (0, 0, 0);
        io_write!(self.memory, .used.flags, 0);
        io_write!(self.memory, .used.index, 0);
        io_write!(self.memory, .available.flags, 0);
        for id in 0..self.size {
            let slot = usize::from(id);
            let buffer = io_project!(self.memory, .buffers[panic: slot]);
            io_project!(self.memory, .descriptors[panic: slot]).copy_write(Descriptor {
                address: buffer.dma_address().to_le(),
                length: (EVENT_SIZE as u32).to_le(),
                flags: DESCRIPTOR_WRITE.to_le(),
                next: 0,
            });
            self.put_back(id);
        }
        self.ask_for_interrupt();
        self.offer();
    }

    /// Number of descriptors, so also most events that can wait in the ring.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            descriptors: io_project!(self.memory, .descriptors).dma_address(),
            available: io_project!(self.memory, .available).dma_address(),
            used: io_project!(self.memory, .used).dma_address(),
        }
    }

    /// How far driver and device are.
    pub(crate) fn indices(&self) -> Indices {
        Indices {
            taken: self.taken,
            offered: self.offered,
            used: u16::from_le(io_read!(self.memory, .used.index)),
        }
    }

    /// How many events wait in the ring.
    pub(crate) fn waiting(&self) -> Result<u16, Fault> {
        let index = u16::from_le(io_read!(self.memory, .used.index));
        let waiting = index.wrapping_sub(self.taken);
        if waiting > self.offered.wrapping_sub(self.taken) {
            return Err(Fault::UsedIndex {
                index,
                taken: self.taken,
            });
        }
        // §2.7.14: the elements, and what is in the buffers, are read after the index that says
        // that they are there.
        dma_mb(Read);
        Ok(waiting)
    }

    /// Takes the oldest event, one of those that [`Self::waiting`] found.
    ///
    /// Its buffer goes back to the device with the next [`Self::offer`].
    pub(crate) fn take(&mut self) -> Result<[u8; EVENT_SIZE], Fault> {
        let slot = self.slot(self.taken);
        // Each of these is read just once: the device may change them at any time.
        let id = u32::from_le(io_read!(self.memory, .used.ring[panic: slot].id));
        let length = u32::from_le(io_read!(self.memory, .used.ring[panic: slot].length));
        if id as usize != slot || length != EVENT_SIZE as u32 {
            return Err(Fault::UsedElement { id, length });
        }
        let buffer = io_project!(self.memory, .buffers[panic: slot]).copy_read();
        self.taken = self.taken.wrapping_add(1);
        self.put_back(id as u16);
        Ok(buffer.event())
    }

    /// Asks for an interrupt when the next event comes (§2.7.7.2). One that came before this says
    /// nothing, so the caller must look for events once more.
    pub(crate) fn ask_for_interrupt(&mut self) {
        let after_ring = usize::from(self.size).min(MAX_SIZE);
        io_write!(self.memory, .available.ring[panic: after_ring], self.taken.to_le());
        // Either the device sees this when it moves the used index, or we see the index when we look
        // again: each side writes, and then reads what the other wrote.
        dma_mb(Full);
    }

    /// Offers the buffers of all events taken to the device again.
    pub(crate) fn offer(&mut self) {
        if self.offered == self.ready {
            return;
        }
        self.offered = self.ready;
        // §2.7.13.3: the index that says that a buffer is there is written after the element that
        // says which. And a full barrier rather than one for writes, because the device may write
        // to the buffer at once: what was in it must have been read by now.
        dma_mb(Full);
        io_write!(self.memory, .available.index, self.offered.to_le());
    }

    fn put_back(&mut self, id: u16) {
        io_write!(self.memory, .buffers[panic: usize::from(id) % MAX_SIZE].checksum, 0);
        let slot = self.slot(self.ready);
        io_write!(self.memory, .available.ring[panic: slot], id.to_le());
        self.ready = self.ready.wrapping_add(1);
    }

    /// Where in a ring the element numbered `count` lies.
    fn slot(&self, count: u16) -> usize {
        // Sizes are powers of two up to `MAX_SIZE`. Said like this the compiler knows it too, and
        // leaves out panics, whose calls objtool takes for code that falls off its function's end.
        usize::from(count & self.size.wrapping_sub(1)) % MAX_SIZE
    }
}

/// The memory of one ring. A ring smaller than [`MAX_SIZE`] uses the first part of each array.
#[repr(C)]
struct Memory {
    descriptors: [Descriptor; MAX_SIZE],
    used: Used,
    available: Available,
    buffers: [Buffer; MAX_SIZE],
}

// SAFETY: Any bit pattern is a valid value: there are only integers in it.
unsafe impl transmute::FromBytes for Memory {}
// SAFETY: There is no padding: see the assertion below.
unsafe impl transmute::AsBytes for Memory {}

const _: () = assert!(
    size_of::<Memory>() == MAX_SIZE * (16 + 2 + 8 + EVENT_SIZE) + 2 * 6 + 4,
    "there is padding in the ring's memory",
);

/// What the device writes one event to.
#[repr(C)]
#[derive(FromBytes)]
struct Buffer {
    content: [u8; EVENT_SIZE - 8],
    /// On its own, to clear it.
    checksum: u64,
}

impl Buffer {
    /// The event in it, if it is one.
    fn event(&self) -> [u8; EVENT_SIZE] {
        let mut event = [0; EVENT_SIZE];
        let (content, checksum) = event.split_at_mut(EVENT_SIZE - 8);
        content.copy_from_slice(&self.content);
        checksum.copy_from_slice(&self.checksum.to_ne_bytes());
        event
    }
}

/// §2.7.5 `virtq_desc`.
#[repr(C)]
#[derive(FromBytes, IntoBytes)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

/// §2.7.6 `virtq_avail`.
#[repr(C)]
struct Available {
    flags: u16,
    index: u16,
    /// And right after the elements of the ring, however many it has, `used_event`.
    ring: [u16; MAX_SIZE + 1],
    _padding: u16,
}

/// §2.7.8 `virtq_used`.
#[repr(C)]
struct Used {
    flags: u16,
    index: u16,
    ring: [UsedElement; MAX_SIZE],
    available_event: u16,
    _padding: u16,
}

/// §2.7.8 `virtq_used_elem`.
#[repr(C)]
struct UsedElement {
    id: u32,
    length: u32,
}
