// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSI-X (PCI Local Bus 3.0, §6.8.2): table, pending bit array, masking and replay.
//!
//! All of it is kept here and nowhere else: a host only ever sees messages that are to be sent now.

use thiserror::Error;

/// The memory write that is an interrupt, as the guest put it into the vector's table entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address: which interrupt controller.
    pub address: u64,
    /// Message data: which interrupt, delivered how.
    pub data: u32,
}

/// Sends the device's interrupts: the host's side of MSI-X.
///
/// All three are called with the device borrowed, and must not block.
pub trait MsiSink {
    /// Sends `message`, which is what the table entry of `vector` holds at this moment. Called only
    /// when nothing masks the vector.
    fn raise(&mut self, vector: u16, message: MsiMessage);

    /// What was raised for `vector` has reached the guest when this returns: the guest has masked
    /// the vector, and an interrupt must not come after that (§6.8.3.5). Nothing to do for a host
    /// that is done when [`Self::raise`] returns.
    fn settle(&mut self, vector: u16) {
        let _ = vector;
    }

    /// [`Self::settle`] for all vectors, and more: gives back whatever the host has set aside for
    /// them. None will be raised before the guest lets the function send messages again.
    fn release(&mut self);
}

impl<S: MsiSink + ?Sized> MsiSink for Box<S> {
    fn raise(&mut self, vector: u16, message: MsiMessage) {
        (**self).raise(vector, message);
    }

    fn settle(&mut self, vector: u16) {
        (**self).settle(vector);
    }

    fn release(&mut self) {
        (**self).release();
    }
}

/// The host named a vector that the device does not have.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("there is no vector {vector}: the device has vectors 0 to {last}", last = vectors - 1)]
pub struct NoSuchVector {
    vector: u16,
    vectors: usize,
}

/// Size of a table entry in bytes.
const ENTRY_SIZE: u64 = 16;
/// Vector Control bit 0. The other bits are reserved and read as zero.
const ENTRY_MASKED: u32 = 1;
/// Granularity of the BAR's two regions, so that a host can map each by pages of its own.
const PAGE: u64 = 0x1000;

/// The vectors of one function.
///
/// Bits are kept as the pending bit array shows them, so that reading it and looking for what may
/// be sent take a step per 64 vectors.
pub(crate) struct Msix {
    messages: Vec<MsiMessage>,
    raised: Vec<u64>,
    pending: Bits,
    /// Vector Control: Mask.
    masked: Bits,
    /// Kept from being sent by the host, which the guest does not see.
    held: Bits,
    /// Message Control: MSI-X Enable.
    enabled: bool,
    /// Message Control: Function Mask.
    function_masked: bool,
    /// Command: Bus Master Enable. A message is a memory write, so without it none can be sent.
    bus_master: bool,
}

impl Msix {
    /// `vectors` vectors as at power-on: MSI-X disabled, each vector masked.
    pub fn new(vectors: usize) -> Self {
        Self {
            messages: vec![MsiMessage::default(); vectors],
            raised: vec![0; vectors],
            pending: Bits::new(vectors, false),
            masked: Bits::new(vectors, true),
            held: Bits::new(vectors, false),
            enabled: false,
            function_masked: false,
            bus_master: false,
        }
    }

    /// Offset in the BAR of the pending bit array; the table is at offset 0.
    pub fn pending_offset(vectors: usize) -> u64 {
        (vectors as u64 * ENTRY_SIZE).next_multiple_of(PAGE)
    }

    /// Size of the BAR in bytes: a power of two.
    pub fn bar_size(vectors: usize) -> u64 {
        (Self::pending_offset(vectors) + PAGE).next_power_of_two()
    }

    /// Messages sent so far, per vector. No reset takes them back: it is the host that counts.
    pub fn raised(&self) -> Vec<u64> {
        self.raised.clone()
    }

    /// Puts everything into its state at power-on but what is the host's: its holds, and its count
    /// of messages. The host has nothing set aside then.
    pub fn reset(&mut self, sink: &mut impl MsiSink) {
        let new = Self::new(self.messages.len());
        *self = Self {
            raised: std::mem::take(&mut self.raised),
            held: std::mem::replace(&mut self.held, Bits(Vec::new())),
            ..new
        };
        sink.release();
    }

    /// Follows the bits of configuration space that say whether messages may be sent at all.
    pub fn set_control(
        &mut self,
        enabled: bool,
        function_masked: bool,
        bus_master: bool,
        sink: &mut impl MsiSink,
    ) {
        let was_open = self.open();
        self.enabled = enabled;
        self.function_masked = function_masked;
        self.bus_master = bus_master;
        match (was_open, self.open()) {
            (true, false) => sink.release(),
            (false, true) => self.replay_all(sink),
            _ => {}
        }
    }

    /// Keeps the interrupts of `vector` pending, as if it were masked, until called with false. The
    /// guest's mask bit has no part in it.
    pub fn hold(
        &mut self,
        vector: u16,
        held: bool,
        sink: &mut impl MsiSink,
    ) -> Result<(), NoSuchVector> {
        let (index, vectors) = (usize::from(vector), self.messages.len());
        if index >= vectors {
            return Err(NoSuchVector { vector, vectors });
        }
        let was_blocked = self.blocked(index);
        self.held.set(index, held);
        self.follow(index, was_blocked, sink);
        Ok(())
    }

    /// Sends the message of `vector`, or sets its pending bit while something masks it.
    pub fn trigger(&mut self, vector: usize, sink: &mut impl MsiSink) {
        if vector >= self.messages.len() {
            return;
        }
        if self.open() && !self.blocked(vector) {
            self.send(vector, sink);
        } else {
            self.pending.set(vector, true);
        }
    }

    /// Forgets what is pending, as a device does whose reasons to interrupt are gone (§6.8.3.5).
    pub fn clear_pending(&mut self) {
        self.pending = Bits::new(self.messages.len(), false);
    }

    /// Reads from the BAR: an aligned 4- or 8-byte access to table or pending bits, else zeros.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !aligned(offset, data.len()) {
            return;
        }
        for (index, bytes) in data.chunks_exact_mut(4).enumerate() {
            bytes.copy_from_slice(&self.read_dword(offset + index as u64 * 4).to_le_bytes());
        }
    }

    /// Writes to the BAR: an aligned 4- or 8-byte access to the table. Others, and writes to the
    /// read-only pending bits, are ignored.
    pub fn write(&mut self, offset: u64, data: &[u8], sink: &mut impl MsiSink) {
        // An aligned access is to one entry.
        let Some(vector) = self
            .vector_at(offset)
            .filter(|_| aligned(offset, data.len()))
        else {
            return;
        };
        let was_blocked = self.blocked(vector);
        for (index, bytes) in data.chunks_exact(4).enumerate() {
            let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            self.write_dword(vector, offset % ENTRY_SIZE + index as u64 * 4, value);
        }
        self.follow(vector, was_blocked, sink);
    }

    /// Whether the function may send messages.
    fn open(&self) -> bool {
        self.enabled && !self.function_masked && self.bus_master
    }

    /// Whether something that belongs to the vector alone keeps it from being sent.
    fn blocked(&self, vector: usize) -> bool {
        self.masked.get(vector) || self.held.get(vector)
    }

    /// Does what a change to `vector` calls for. No other vector can have become ready by it.
    fn follow(&mut self, vector: usize, was_blocked: bool, sink: &mut impl MsiSink) {
        match (was_blocked, self.blocked(vector)) {
            (false, true) => sink.settle(vector as u16),
            (true, false) if self.open() && self.pending.get(vector) => self.send(vector, sink),
            _ => {}
        }
    }

    /// Sends what waited, each vector once: pending is a bit, not a count (§6.8.2.10).
    fn replay_all(&mut self, sink: &mut impl MsiSink) {
        for word in 0..self.pending.0.len() {
            let mut ready = self.pending.0[word] & !self.masked.0[word] & !self.held.0[word];
            while ready != 0 {
                self.send(word * 64 + ready.trailing_zeros() as usize, sink);
                ready &= ready - 1;
            }
        }
    }

    fn send(&mut self, vector: usize, sink: &mut impl MsiSink) {
        self.pending.set(vector, false);
        self.raised[vector] += 1;
        sink.raise(vector as u16, self.messages[vector]);
    }

    fn vector_at(&self, offset: u64) -> Option<usize> {
        let vector = offset / ENTRY_SIZE;
        (vector < self.messages.len() as u64).then_some(vector as usize)
    }

    fn read_dword(&self, offset: u64) -> u32 {
        if let Some(vector) = self.vector_at(offset) {
            let message = &self.messages[vector];
            return match offset % ENTRY_SIZE {
                0 => message.address as u32,
                4 => (message.address >> 32) as u32,
                8 => message.data,
                _ => u32::from(self.masked.get(vector)) * ENTRY_MASKED,
            };
        }
        offset
            .checked_sub(Self::pending_offset(self.messages.len()))
            .map_or(0, |byte| self.pending.dword(byte / 4))
    }

    fn write_dword(&mut self, vector: usize, field: u64, value: u32) {
        let message = &mut self.messages[vector];
        let address = &mut message.address;
        match field {
            0 => *address = *address >> 32 << 32 | u64::from(value),
            4 => *address = u64::from(value) << 32 | (*address & u64::from(u32::MAX)),
            8 => message.data = value,
            _ => self.masked.set(vector, value & ENTRY_MASKED != 0),
        }
    }
}

/// The accesses that §6.8.2 defines.
fn aligned(offset: u64, width: usize) -> bool {
    (width == 4 || width == 8) && offset.is_multiple_of(width as u64)
}

/// A bit per vector, in 64-bit words as in the pending bit array. Bits beyond the last vector may be
/// set here, but not in `pending`.
struct Bits(Vec<u64>);

impl Bits {
    fn new(vectors: usize, value: bool) -> Self {
        let word = if value { u64::MAX } else { 0 };
        Self(vec![word; vectors.div_ceil(64)])
    }

    fn get(&self, vector: usize) -> bool {
        self.0[vector / 64] >> (vector % 64) & 1 != 0
    }

    fn set(&mut self, vector: usize, value: bool) {
        let bit = 1 << (vector % 64);
        let word = &mut self.0[vector / 64];
        *word = if value { *word | bit } else { *word & !bit };
    }

    /// The 32-bit half number `index`; zero beyond the end.
    fn dword(&self, index: u64) -> u32 {
        let word = usize::try_from(index / 2).ok();
        let word = word.and_then(|word| self.0.get(word)).copied();
        (word.unwrap_or(0) >> (index % 2 * 32)) as u32
    }
}

#[cfg(test)]
#[path = "msix_test.rs"]
mod tests;
