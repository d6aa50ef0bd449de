// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note

//! `/dev/evgenN`, as programs see it: what `read` gives and which `ioctl`s there are.
//!
//! All of it is in `interface.rs`, which the kernel module includes by path; crate attributes do
//! not survive that, so they are here.

#![no_std]
#![forbid(unsafe_code)]

mod interface;

pub use interface::*;
