// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the programs of `scripts/bench.sh` have in common: how a measurement looks on its way from
//! the place where it was taken to the table.
//!
//! * `bench-init` is the whole of the guest whose boot is measured;
//! * `bench-place` takes measurements where there is a KVM: on this machine, or in the outer machine
//!   of the nested mode;
//! * `bench-report` makes the table and the JSON of them.

pub mod measurement;
pub mod samples;

/// What `bench-init` prints on the console as soon as it runs. Nothing else prints it.
pub const MARKER: &str = "bench-init: here";
