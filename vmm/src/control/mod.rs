// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The control socket: commands from the host to a running machine.
//!
//! The protocol is JSON, a line per request and a line per reply. `docs/control.md` describes it,
//! and `docs/control.schema.json` gives every line its form; both are made from the types in
//! [`request`], [`reply`] and [`stats`], so these are the place to change it. A client may also have
//! a line for each event that a device makes.
//!
//! One thread serves all clients and waits for none of them. What it keeps for each is bounded: one
//! request, and so many replies and events until the client reads on.
//!
//! # On a port
//!
//! Instead of a socket there may be a character device to serve, such as a virtio port that ends in
//! a socket on another host. It has one client at a time. It cannot be closed, so of a line that is
//! too long the rest is skipped. Clients come and go nearly unseen there: one that goes without
//! reading its replies leaves them to the next, if that comes within a second. [`Client`] gives each
//! request an id of its own, and takes no reply without it.

mod client;
mod commands;
mod connection;
mod endpoint;
#[cfg(test)]
mod examples;
mod measured;
mod metrics;
pub mod reply;
pub mod request;
#[cfg(test)]
mod schema;
mod server;
pub mod stats;
mod subscription;
mod text;

use serde::Serialize;

pub use client::{Client, ClientError};
pub use commands::Commands;
pub use endpoint::{Endpoint, EndpointError};
pub use reply::{EventLine, Reply};
pub use request::Request;
pub use server::ControlServer;
pub use text::Nanoseconds;

/// `message` as a line, with its newline.
fn to_line(message: &impl Serialize) -> Vec<u8> {
    // Serialising plain structs to memory has no way to fail.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}
