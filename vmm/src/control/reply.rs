// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Replies and the lines of the event stream, as they are on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::request::Id;
use super::stats::{MachineStats, StormStatus};

/// What became of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reply {
    /// Whether it was done. If not, nothing has changed.
    pub ok: bool,
    /// The request's id, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What `version` tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// The token of the storm that `storm-start` started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What `storm-status` tells: of those devices on which there was a storm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storms: Option<Vec<StormOn>>,
    /// What `plug` has put where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugged: Option<Plugged>,
    /// What `stats` tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<MachineStats>,
    /// What `metrics` tells, in Prometheus' text format 0.0.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
}

/// What answers on the control socket.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct About {
    /// Version of the protocol.
    pub protocol: u32,
    /// Version of the program.
    pub program: String,
    /// The devices.
    pub devices: Vec<AboutDevice>,
    /// The faults that a device can show, by name.
    pub faults: Vec<String>,
}

/// What a device has.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AboutDevice {
    /// Its number, which no other device has had. Those that were there from the start have the first.
    pub device: usize,
    /// Rings.
    pub rings: u8,
    /// MSI-X vectors.
    pub vectors: u16,
}

/// A storm and the device that it is on.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StormOn {
    /// The device's number.
    pub device: usize,
    /// The storm that runs, or the last one that did.
    pub storm: StormStatus,
}

/// A device that was put into a slot.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Plugged {
    /// Its number, which no other device has had.
    pub device: usize,
    /// The slot, which the guest knows by the same number.
    pub slot: u8,
}

/// A line of the event stream.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventLine {
    /// An event that was made.
    pub event: StreamedEvent,
    /// Events that were made before it and are left out, because the client did not keep up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An event as it was made.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StreamedEvent {
    /// The device that made it.
    pub device: usize,
    /// The ring that it was made for.
    pub ring: u16,
    /// 1 doorbell, 2 injected, 3 storm.
    pub source: u16,
    /// Kind.
    pub kind: u16,
    /// Number among the events of the same ring and source.
    pub sequence: u64,
    /// Time of the device, in nanoseconds.
    pub timestamp: u64,
    /// Bit 0: the handler is to acknowledge it.
    pub flags: u16,
    /// 32 bytes as 64 hexadecimal digits.
    pub payload: String,
    /// What became of it.
    pub fate: Fate,
    /// Names of the faults that befell it.
    pub faults: Vec<String>,
    /// For an event of a storm, at which nanosecond of the storm it was due.
    pub offset: Option<u64>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Written to guest memory.
    Delivered,
    /// Counted as delivered and not written, as `withhold` asked for.
    Withheld,
    /// Not written, as no buffer was available or the ring or device was off.
    Dropped,
    /// Spoiled by a fault.
    Faulted,
}

impl Reply {
    /// Done.
    pub(super) fn done() -> Self {
        Self {
            ok: true,
            ..Self::default()
        }
    }

    /// Not done.
    pub(super) fn error(error: impl fmt::Display) -> Self {
        Self {
            error: Some(error.to_string()),
            ..Self::default()
        }
    }

    /// The line for the wire, with its newline.
    pub(super) fn to_line(&self) -> Vec<u8> {
        super::to_line(self)
    }
}
