// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Exit statuses, the same in every program of the project.

/// As expected.
pub const OK: u8 = 0;
/// Wrong arguments.
pub const USAGE: u8 = 2;
/// A finding: a lost event, a broken law, a kernel that complained.
pub const FINDING: u8 = 42;
/// The machine lacks something, for instance the device.
pub const UNAVAILABLE: u8 = 69;
/// Something did not end in time.
pub const TIMEOUT: u8 = 124;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;
