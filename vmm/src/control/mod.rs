// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The control socket: commands from the host to a running machine.
//!
//! # Protocol
//!
//! Requests and replies are JSON objects, one per line, each line ended by a newline. A request is
//! at most 65,536 bytes long. Each request gets one reply, in order. At most 8 clients are served
//! at a time.
//!
//! | request | what it does |
//! |---|---|
//! | `{"command":"inject","device":0,"ring":0,"count":1,"kind":7}` | makes `count` events (1 to 65,536; 1 if not given) of `kind` (0 if not given) on the ring |
//! | `{"command":"withhold","device":0,"ring":0,"count":1}` | lets the next `count` events of the ring (1 if not given) vanish: counted as delivered, never written |
//! | `{"command":"storm-start","storm":"storm1.…","devices":[0,1]}` | starts the storm with this token on the devices (all if not given) |
//! | `{"command":"storm-stop"}` | ends all storms |
//! | `{"command":"stats"}` | tells what was counted |
//! | `{"command":"quit"}` | ends the run |
//!
//! A reply is `{"ok":true}`; to `stats` it is one like
//!
//! ```json
//! {"ok":true,"stats":{"devices":[{"rings":[{"generated":9,"delivered":8,"dropped":1}],
//!  "raised":[8,1],"storm_remaining":null}],"interrupts_lost":0}}
//! ```
//!
//! on one line: per device its rings, the interrupts sent per MSI-X vector (the last one is device
//! status), and the events that a running storm has still to make.
//!
//! A request that cannot be done changes nothing, and is answered by `{"ok":false,"error":"…"}`;
//! unknown commands and fields are such requests. A line that is too long gets that answer too, and
//! then the connection is closed.
//!
//! # On a port
//!
//! Instead of a socket there may be a character device to serve, such as a virtio port that ends in
//! a socket on another host. It has one client at a time. It cannot be closed, so of a line that is
//! too long the rest is skipped. Clients come and go nearly unseen there: one that goes without
//! reading its replies leaves them to the next, if that comes within a second.

mod client;
mod commands;
mod connection;
mod endpoint;
mod protocol;
mod server;

pub use client::{Client, ClientError};
pub use endpoint::{Endpoint, EndpointError};
pub use protocol::{Inject, Reply, Request, StormStart, Withhold};
pub use server::ControlServer;
