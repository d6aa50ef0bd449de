// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the threads of the machine tell the one that decides when the run ends.

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use super::bus::Stop;

/// Something the run depends on.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest stopped the machine.
    Stop(Stop),
    /// A vCPU cannot go on in the state that the guest is in.
    GuestFault(String),
    /// The host does not serve the guest any more: KVM does not run a vCPU, whatever its state, or
    /// a thread that works for the devices has ended.
    HostFault(String),
    /// The guest reached a point of its timeline.
    Mark {
        /// What the guest calls it.
        name: String,
        /// When, since the VMM's start, without pauses.
        at: Duration,
    },
    /// The guest kernel's line that reports a panic.
    Panic(String),
    /// Where a vCPU was when the run ended. Comes last.
    Left(String),
    /// The host sent this signal.
    Signal(i32),
    /// The user asked for the end, on the keyboard or by the control socket.
    Quit(&'static str),
}

/// Where events are sent. Sending never blocks; how many the guest can cause is for each sender to
/// bound.
#[derive(Clone, Debug)]
pub struct Events(Sender<Event>);

impl Events {
    /// A sender and where its events arrive.
    pub fn channel() -> (Self, Receiver<Event>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    /// Sends `event`.
    pub fn send(&self, event: Event) {
        // There is no receiver only after the run's end, when nothing matters any more.
        let _ = self.0.send(event);
    }
}
