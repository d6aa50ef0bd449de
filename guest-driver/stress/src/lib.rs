// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the programs inside the guest share: access to `/dev/evgenN` and to the exit device, and
//! the conservation law that `stress` and `torture` check.
//!
//! All `unsafe` of the guest's programs is in [`device`] (`ioctl`), [`exit_device`] (port access),
//! [`fork`], [`signals`] (handlers), `test-msix` (a mapped BAR), `test-file` (memory that is not there,
//! bad arguments) and `fuzz-ioctl` (calls as bad as can be); [`pattern`], [`log`], [`law`], [`faults`],
//! [`verdict`] and [`report`] do no input or output at all.

pub mod books;
mod call_law;
pub mod check;
pub mod device;
pub mod devices;
#[cfg(test)]
mod example;
pub mod exit_device;
mod fault_law;
pub mod faults;
pub mod fork;
pub mod function;
pub mod injected;
pub mod kernel_arguments;
pub mod kmemleak;
pub mod ktap;
pub mod law;
pub mod leaks;
pub mod log;
pub mod module;
pub mod pattern;
pub mod poll;
pub mod quiet;
pub mod report;
pub mod signals;
pub mod slot;
pub mod status;
pub mod thousands;
pub mod verdict;
