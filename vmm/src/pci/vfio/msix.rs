// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSI-X of an assigned device (PCI Local Bus 3.0, §6.8.2): the guest's table, and the way of an
//! interrupt from the device to the guest.
//!
//! The device's own table belongs to the host's kernel, which has the device's interrupt write to an
//! eventfd. KVM raises the guest's interrupt when that is written to, without us: as long as nothing
//! masks the vector. While something does, KVM leaves the eventfd alone, and it remembers: that it
//! was written to is the vector's pending bit.
//!
//! The host's kernel has fewer vectors than devices do, so it is asked for no more than the guest has
//! unmasked so far: for a power of two of them.

use std::os::fd::{AsRawFd, BorrowedFd};

use lockstorm_device_model::{MsiMessage, MsiSink};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::warn;
use vmm_sys_util::eventfd::EventFd;

use crate::machine::interrupts::KvmMsiSink;
use crate::rate_limit::Occurrences;

/// Bytes of a table entry.
const ENTRY_SIZE: usize = 16;
/// Offset of Vector Control in an entry. Its other bits are reserved and read as zero.
const CONTROL: usize = 12;
const MASKED: u8 = 1;

/// The device's side.
pub(super) trait Source {
    /// Turns MSI-X on, or has more vectors than before: vector *n* writes to the *n*th of `triggers`.
    /// After an error it may be off.
    fn enable(&self, triggers: &[EventFd]) -> Result<(), String>;
    /// Turns it off.
    fn disable(&self) -> Result<(), String>;
}

/// The vectors of an assigned device.
pub(super) struct Msix {
    table: Vec<u8>,
    enabled: bool,
    /// For each vector that the host's kernel gives interrupts of, from the first on.
    triggers: Vec<EventFd>,
    /// Whether KVM takes the vector's interrupts.
    connected: Vec<bool>,
    function_masked: bool,
    sink: KvmMsiSink,
    failures: Occurrences,
}

impl Msix {
    /// `vectors` vectors as at power-on: MSI-X off, each vector masked.
    pub fn new(vectors: u16, sink: KvmMsiSink) -> Self {
        let mut msix = Self {
            table: vec![0; usize::from(vectors) * ENTRY_SIZE],
            enabled: false,
            triggers: Vec::new(),
            connected: vec![false; usize::from(vectors)],
            function_masked: false,
            sink,
            failures: Occurrences::new(),
        };
        msix.mask_all();
        msix
    }

    fn mask_all(&mut self) {
        for entry in self.table.chunks_exact_mut(ENTRY_SIZE) {
            entry.fill(0);
            entry[CONTROL] = MASKED;
        }
    }

    /// Bytes of the table.
    pub fn table_size(&self) -> u64 {
        self.table.len() as u64
    }

    /// Bytes of the pending bits.
    pub fn pending_size(&self) -> u64 {
        self.connected.len().div_ceil(64) as u64 * 8
    }

    /// As at power-on.
    pub fn reset(&mut self, source: &dyn Source) {
        self.set_control(false, false, source);
        self.mask_all();
    }

    /// Follows Message Control.
    pub fn set_control(&mut self, enabled: bool, function_masked: bool, source: &dyn Source) {
        self.function_masked = function_masked;
        if self.enabled && !enabled {
            self.disable(source);
        } else if enabled && !self.enabled {
            // With MSI-X on, a device does not pull its line.
            self.provide(1, source);
        }
        self.enabled = enabled;
        for vector in 0..self.connected.len() {
            self.update(vector, source);
        }
    }

    fn disable(&mut self, source: &dyn Source) {
        // First the device, so that nothing is written to what nobody listens to.
        if let Err(error) = source.disable() {
            self.tell(format_args!("its MSI-X cannot be turned off: {error}"));
        }
        self.sink.release();
        self.connected.fill(false);
        self.triggers.clear();
    }

    /// Has the device interrupt by the first `count` vectors.
    fn provide(&mut self, count: usize, source: &dyn Source) {
        let before = self.triggers.len();
        let new = (before..count).map(|_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC));
        let result = new
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())
            .and_then(|new| {
                self.triggers.extend(new);
                source.enable(&self.triggers)
            });
        if let Err(error) = result {
            self.tell(format_args!(
                "it cannot interrupt by {count} MSI-X vectors: {error}"
            ));
            self.triggers.truncate(before);
            if before > 0
                && let Err(error) = source.enable(&self.triggers)
            {
                self.tell(format_args!("it has lost {before} MSI-X vectors: {error}"));
            }
        }
    }

    /// Has KVM take the interrupts of `vector`, with the message that the table has now, or leave
    /// them pending.
    fn update(&mut self, vector: usize, source: &dyn Source) {
        let entry = &self.table[vector * ENTRY_SIZE..][..ENTRY_SIZE];
        let (message, masked) = (message(entry), entry[CONTROL] & MASKED != 0);
        if !self.enabled || self.function_masked || masked {
            if std::mem::take(&mut self.connected[vector]) {
                self.sink.settle(vector as u16);
            }
            return;
        }
        if vector >= self.triggers.len() {
            let count = (vector + 1).next_power_of_two();
            self.provide(count.min(self.connected.len()), source);
        }
        let Some(trigger) = self.triggers.get(vector) else {
            return;
        };
        // KVM looks whether something is pending, but leaves it in there, and would raise it again
        // when the vector is masked and unmasked next.
        let pending = !self.connected[vector] && trigger.read().is_ok();
        let connected = self.sink.connect(vector as u16, message, trigger);
        self.connected[vector] = connected.is_ok();
        if pending {
            // The counter cannot be full.
            let _ = trigger.write(1);
        }
        if let Err(error) = connected {
            self.tell(format_args!(
                "the interrupts of MSI-X vector {vector} stay pending: {error}"
            ));
        }
    }

    /// Reads from the table; `offset` and the length are inside.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        let bytes = self.table.get(offset as usize..).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    /// Writes to the table, likewise. What that changes takes effect at once.
    pub fn write_table(&mut self, offset: u64, data: &[u8], source: &dyn Source) {
        let start = offset as usize;
        for (at, &byte) in (start..self.table.len()).zip(data) {
            self.table[at] = match at % ENTRY_SIZE {
                0 => byte & !0b11,
                1..CONTROL => byte,
                CONTROL => byte & MASKED,
                _ => 0,
            };
        }
        let end = (start + data.len()).div_ceil(ENTRY_SIZE);
        for vector in start / ENTRY_SIZE..end.min(self.connected.len()) {
            self.update(vector, source);
        }
    }

    /// Reads from the pending bits, likewise.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (byte, bits) in (offset as usize..).zip(data) {
            let vectors = (byte * 8..byte * 8 + 8).map(|vector| u8::from(self.is_pending(vector)));
            *bits = (0..).zip(vectors).map(|(bit, set)| set << bit).sum();
        }
    }

    fn is_pending(&self, vector: usize) -> bool {
        let Some(trigger) = self.triggers.get(vector) else {
            return false;
        };
        // SAFETY: the descriptor is that of `trigger`, which is borrowed for longer.
        let trigger = unsafe { BorrowedFd::borrow_raw(trigger.as_raw_fd()) };
        let mut fds = [PollFd::from_borrowed_fd(trigger, PollFlags::IN)];
        let now = Timespec::default();
        !self.connected[vector] && poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    fn tell(&self, what: std::fmt::Arguments<'_>) {
        if let Some(so_far) = self.failures.add() {
            warn!("assigned device: {what} ({so_far} such failures so far)");
        }
    }
}

fn message(entry: &[u8]) -> MsiMessage {
    let word = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&entry[at..at + 4]);
        u32::from_le_bytes(bytes)
    };
    MsiMessage {
        address: u64::from(word(0)) | u64::from(word(4)) << 32,
        data: word(8),
    }
}

#[cfg(test)]
#[path = "msix_test.rs"]
mod tests;
