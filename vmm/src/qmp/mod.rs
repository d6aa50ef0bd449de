// SPDX-License-Identifier: Apache-2.0 OR MIT

//! QEMU's monitor, by which devices come and go while QEMU runs a guest (QMP, `docs/interop/qmp-spec.rst`
//! of QEMU).
//!
//! We listen and QEMU connects, with `-qmp unix:PATH`: so it does not matter who is there first. The
//! protocol is JSON, a line per message: QEMU greets, we ask, it answers and tells of events.
//!
//! QEMU may have been taken over by its guest, and another may connect in its place. It can make us keep
//! one line of bounded length and a few answers; each answer is waited for a bounded time; what it says
//! has no effect but on the devices in its own slots.

mod message;
mod monitor;
mod slots;

pub use monitor::{Monitor, QmpError};
pub use slots::{PortsOfQemu, QemuSlots};
