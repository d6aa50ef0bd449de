// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the sources must keep to and no compiler checks. There is nothing here but tests, which read
//! the sources as text:
//!
//! * `locks`: every lock of the driver and of the VMM says what it covers, who takes it, and its place
//!   in the lock order;
//! * `unsafe_code`: the kernel's build knows none of clippy's rules about `unsafe`;
//! * `course`: the files, functions and checks that the driver's README names for each step of a locking
//!   course are there.

#![forbid(unsafe_code)]

#[cfg(test)]
mod course;
#[cfg(test)]
mod locks;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod unsafe_code;
