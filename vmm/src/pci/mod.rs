// SPDX-License-Identifier: Apache-2.0 OR MIT

//! PCI: one segment with its root bus and a bus behind each root port, how the guest reaches
//! configuration space, and where BARs answer.
//!
//! The guest reaches [`Segment`] through [`Ecam`] or [`ConfigPorts`]. A function on a bus is a
//! [`PciFunction`]; on the root bus there may also be a [`RootPort`], with at most one function
//! behind it. After a write that moved a BAR or switched its decoding, or a window that it lies in,
//! the segment brings the machine's memory bus in line with what all functions and ports say.

mod access;
mod header;
mod host_bridge;
mod root_port;
mod segment;
pub mod vfio;
mod windows;

use lockstorm_device_model::ConfigOutcome;

use crate::machine::bus::Outcome;

pub use access::{ConfigPorts, Ecam};
pub use root_port::{AskError, Light, RootPort, SlotView};
pub use segment::{Segment, SegmentError};
pub use windows::{WindowError, Windows};

/// How far a BAR's address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressWidth {
    /// Anywhere below 4 GiB.
    Bits32,
    /// Anywhere.
    Bits64,
}

/// A memory BAR as the guest has set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBar {
    /// Which BAR: the lower one of a 64-bit pair.
    pub index: u8,
    /// Guest physical address of its first byte.
    pub address: u64,
    /// Size in bytes, a power of two.
    pub size: u64,
    /// Which addresses it can have.
    pub width: AddressWidth,
    /// Whether the function answers there (Command, bit 1).
    pub enabled: bool,
}

/// A function on the bus. One without BARs leaves out everything that has to do with them.
///
/// The guest chooses registers, offsets and values; none may make these functions panic. They are
/// called on the vCPU's thread. Locks of the segment and of a root port may be held, so they must not
/// reach back into either.
pub trait PciFunction: Send + Sync {
    /// Reads configuration space: 1, 2 or 4 bytes, naturally aligned, `register` below 4096.
    fn config_read(&self, register: u16, data: &mut [u8]);

    /// Writes configuration space, likewise.
    fn config_write(&self, register: u16, data: &[u8]) -> ConfigOutcome;

    /// All its BARs.
    fn bars(&self) -> Vec<MemoryBar> {
        Vec::new()
    }

    /// Places a BAR, as firmware does before the guest starts.
    fn place_bar(&self, _index: u8, _address: u64) {}

    /// The BAR answers at `address` from now on, or nowhere any more. The second is told before
    /// anything else can take the place.
    fn decoding(&self, _index: u8, _address: Option<u64>) {}

    /// Puts everything into its state at power-on: the link to the function went down.
    fn reset(&self) {}

    /// The function is taken out of its slot. When this returns, it is as if it had never been: it
    /// reads as ones, and neither writes memory nor interrupts any more.
    fn take_out(&self) {}

    /// Reads from a BAR that answers: any offset in it, any width.
    fn bar_read(&self, _index: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    /// Writes to a BAR that answers, likewise.
    fn bar_write(&self, _index: u8, _offset: u64, _data: &[u8]) -> Outcome {
        Outcome::Done
    }
}
