// SPDX-License-Identifier: Apache-2.0 OR MIT

//! evgen devices for other VMMs, served over vfio-user (`docs/interop/vfio-user.rst` of QEMU,
//! version 0.0): a Unix socket for each device, on which a client such as QEMU asks for accesses to
//! the device, lends it guest memory, and gives it eventfds for its interrupts.
//!
//! A client has a device to itself. `server` lets it in and gives it a thread; `stream` takes
//! its messages apart, `session` carries them out on the device, with `dma` for the memory and
//! `interrupts` for the eventfds.
//!
//! # What a hostile client cannot do
//!
//! * Make the server keep or do much: a message has at most 4128 bytes and 16 files, a client lends
//!   at most 1024 regions, and has one eventfd for each vector.
//! * Get out of step: a message is read as a whole before it is looked at, so one that is refused
//!   leaves nothing behind, neither bytes nor open files.
//! * Make the device access what it has not lent: regions do not overlap, and when it is told that
//!   one is taken back no access goes on there. Guest addresses are looked up at each access, since
//!   firmware moves memory about.
//! * End the program by truncating what it has lent: [`crate::machine::lent_memory`] tells how that
//!   is survived. Memory has to be a memfd or lie on tmpfs, as other files can make an access wait.
//! * Hold the device up by an eventfd that is no eventfd, or is full: see [`Eventfds`].
//! * Keep others from being served: each has a thread of its own, and a second client of a device is
//!   told at once that it is busy.
//!
//! # Interrupts
//!
//! Clients keep the MSI-X table that the guest sees to themselves. So a vector counts as masked in
//! the device as long as it has no eventfd, or the client masks it by SET_IRQS, which QEMU 11.1 does
//! not: what the guest masks there pends in QEMU, and the guest sees none of it in the pending bits.
//!
//! A device that is to be unplugged from QEMU does all of that itself, and its client does not know
//! that it has MSI-X: `messages` tells why and how.
//!
//! # Why not the crate `vfio_user`
//!
//! Its server (0.1.7) trusts the client. A VERSION message that is too short, or whose text holds a
//! zero byte, makes it panic; a read of 4 GiB makes it allocate them; of a command that it refuses it
//! reads no more than the header, and takes what follows for the next one. The client is told
//! errno 0 for whatever a device refuses, its file descriptors are taken for what it says they are,
//! and there is no way to stop the server or to turn a second client away. The protocol is small: what
//! is needed of it takes fewer lines than to guard all that.

mod dma;
mod interrupts;
mod message;
mod messages;
mod server;
mod session;
mod stream;

pub use interrupts::{EventfdSink, Eventfds, Interrupts};
pub use message::{HEADER_SIZE, Header, MAX_MESSAGE};
pub use messages::{MessageSink, Messages};
pub use server::{Served, VfioUserServer};
pub use session::{Broken, Session};
