// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What an evgen device and its driver agree on, and nothing else.
//!
//! `SPEC.md` is the datasheet in words; these three modules are the same in code. The host builds
//! them as this crate, the kernel module includes the files by path, so each of them uses only
//! `core`, only its own siblings, and only what the kernel's rustc (1.85) knows.

#![no_std]
#![forbid(unsafe_code)]

pub mod event;
pub mod identity;
pub mod registers;
