// SPDX-License-Identifier: Apache-2.0 OR MIT

//! evgen, the event-generating PCI device, as a value.
//!
//! [`Evgen`] is plain state driven from outside: whoever hosts it forwards configuration space and
//! BAR accesses, hands in the time, and calls [`Evgen::advance`] when it asked to be called. It
//! reads no clock, has no thread and opens nothing. It wants two things of its host: guest memory
//! ([`vm_memory::GuestMemory`]), lent for the calls that need it, and somebody who sends its
//! interrupts ([`MsiSink`]). The same calls always give the same result, so everything here is
//! tested without a virtual machine.
//!
//! What the device does is written down for driver authors in `SPEC.md`, beside this crate.

#![forbid(unsafe_code)]

pub use lockstorm_abi as abi;

mod config_space;
mod device;
mod fault;
mod journal;
mod msix;
mod ring;
pub mod storm;

pub use config_space::{Bar, ConfigOutcome};
pub use device::{Config, ConfigError, Evgen, Injection, NoSuchRing, Stats};
pub use fault::{Fault, FaultSet, NoSuchFault, Scope};
pub use journal::{Fate, Made};
pub use msix::{MsiMessage, MsiSink, NoSuchVector};
pub use ring::RingStats;
pub use storm::{Storm, StormError, StormStatus};

#[cfg(test)]
mod conformance_test;
