// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Requests and replies, as they are on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest request in bytes, without the newline.
pub(super) const MAX_REQUEST: usize = 64 * 1024;

/// A command.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Make events.
    Inject(Inject),
    /// Let events vanish.
    Withhold(Withhold),
    /// Start a storm.
    StormStart(StormStart),
    /// End all storms.
    // Braces, because serde lets a variant without them have any fields.
    StormStop {},
    /// Tell what was counted.
    Stats {},
    /// End the run.
    Quit {},
}

/// Which events to make.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Inject {
    /// Device, counted from 0.
    pub device: usize,
    /// Ring, counted from 0.
    pub ring: usize,
    /// How many: 1 to 65,536.
    #[serde(default = "one")]
    pub count: u32,
    /// What they carry as their kind.
    #[serde(default)]
    pub kind: u16,
}

/// Which events to let vanish.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Withhold {
    /// Device, counted from 0.
    pub device: usize,
    /// Ring, counted from 0.
    pub ring: usize,
    /// How many of the next ones.
    #[serde(default = "one")]
    pub count: u32,
}

/// Which storm to start.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StormStart {
    /// The storm, as a token.
    pub storm: String,
    /// Devices; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<usize>>,
}

fn one() -> u32 {
    1
}

/// What became of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// Whether it was done.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was counted, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<MachineStats>,
}

/// What was counted on all devices.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct MachineStats {
    /// By device.
    pub devices: Vec<DeviceStats>,
    /// Interrupts that the host could not send.
    pub interrupts_lost: u64,
}

/// What was counted on one device.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct DeviceStats {
    /// By ring.
    pub rings: Vec<RingStats>,
    /// Interrupts sent, by MSI-X vector; the last one is that of device status.
    pub raised: Vec<u64>,
    /// Events that the running storm has still to make.
    pub storm_remaining: Option<u64>,
}

/// What was counted on one ring since the driver last reset the device.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct RingStats {
    /// Events made.
    pub generated: u64,
    /// Events written to guest memory.
    pub delivered: u64,
    /// Events made but not written.
    pub dropped: u64,
}

impl Request {
    /// Reads a line.
    pub(super) fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
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
        // Serialising plain structs to memory has no way to fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// For people.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.error, &self.stats) {
            (Some(error), _) => write!(f, "error: {error}"),
            (None, Some(stats)) => stats.fmt(f),
            (None, None) => f.write_str(if self.ok { "ok" } else { "error" }),
        }
    }
}

impl fmt::Display for MachineStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const COLUMNS: [&str; 5] = ["ring", "generated", "delivered", "dropped", "interrupts"];
        for (number, device) in self.devices.iter().enumerate() {
            write!(f, "device {number}: ")?;
            match device.storm_remaining {
                Some(remaining) => writeln!(f, "storm, {remaining} events to come")?,
                None => writeln!(f, "no storm")?,
            }
            let [ring, generated, delivered, dropped, interrupts] = COLUMNS;
            writeln!(
                f,
                "  {ring:<6} {generated:>12} {delivered:>12} {dropped:>12} {interrupts:>12}"
            )?;
            for (number, (ring, raised)) in device.rings.iter().zip(&device.raised).enumerate() {
                let RingStats {
                    generated,
                    delivered,
                    dropped,
                } = ring;
                writeln!(
                    f,
                    "  {number:<6} {generated:>12} {delivered:>12} {dropped:>12} {raised:>12}"
                )?;
            }
            if let Some(raised) = device.raised.last() {
                writeln!(f, "  status {raised:>51}")?;
            }
        }
        write!(f, "interrupts lost by the host: {}", self.interrupts_lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_requests_are_understood() {
        for (line, expected) in [
            (
                r#"{"command":"inject","device":0,"ring":1,"count":2,"kind":7}"#,
                Request::Inject(Inject {
                    device: 0,
                    ring: 1,
                    count: 2,
                    kind: 7,
                }),
            ),
            (
                r#" { "ring": 3, "device": 1, "command": "withhold" } "#,
                Request::Withhold(Withhold {
                    device: 1,
                    ring: 3,
                    count: 1,
                }),
            ),
            (
                r#"{"command":"storm-start","storm":"storm1.x","devices":[0,1]}"#,
                Request::StormStart(StormStart {
                    storm: "storm1.x".to_owned(),
                    devices: Some(vec![0, 1]),
                }),
            ),
            (
                r#"{"command":"storm-start","storm":""}"#,
                Request::StormStart(StormStart {
                    storm: String::new(),
                    devices: None,
                }),
            ),
            (r#"{"command":"storm-stop"}"#, Request::StormStop {}),
            (r#"{"command":"stats"}"#, Request::Stats {}),
            (r#"{"command":"quit"}"#, Request::Quit {}),
        ] {
            let request = Request::parse(line.as_bytes()).unwrap();
            assert_eq!(request, expected, "{line}");
            let again = serde_json::to_vec(&request).unwrap();
            assert_eq!(Request::parse(&again).unwrap(), request, "{line}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            "",
            " ",
            "stats",
            "null",
            "[]",
            "{}",
            r#""stats""#,
            r#"{"command":"stats""#,
            r#"{"command":"stats"}}"#,
            r#"{"command":"stats"}{"command":"quit"}"#,
            r#"{"command":"Stats"}"#,
            r#"{"command":"explode"}"#,
            r#"{"command":["stats"]}"#,
            r#"{"command":"stats","extra":1}"#,
            r#"{"command":"quit","command":"stats"}"#,
            r#"{"command":"quit","device":0}"#,
            r#"{"command":"storm-stop","rate":1}"#,
            r#"{"command":"inject","device":0}"#,
            r#"{"command":"inject","device":0,"ring":0,"extra":1}"#,
            r#"{"command":"inject","device":-1,"ring":0}"#,
            r#"{"command":"inject","device":0,"ring":0,"kind":65536}"#,
            r#"{"command":"inject","device":0,"ring":0,"count":1.5}"#,
            r#"{"command":"inject","device":0,"device":0,"ring":0}"#,
            r#"{"command":"inject","device":"0","ring":0}"#,
            r#"{"command":"storm-start"}"#,
            r#"{"command":"storm-start","storm":1}"#,
            r#"{"command":"storm-start","storm":"","rate":1}"#,
            r#"{"command":"storm-start","storm":"","devices":0}"#,
        ] {
            assert!(Request::parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(Request::parse(b"\xff\xfe").is_err());
        let deep = "[".repeat(MAX_REQUEST);
        assert!(Request::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn replies_are_as_documented() {
        let stats = MachineStats {
            devices: vec![DeviceStats {
                rings: vec![RingStats {
                    generated: 9,
                    delivered: 8,
                    dropped: 1,
                }],
                raised: vec![8, 1],
                storm_remaining: None,
            }],
            interrupts_lost: 0,
        };
        let with_stats = Reply {
            stats: Some(stats),
            ..Reply::done()
        };
        for (reply, expected) in [
            (Reply::done(), r#"{"ok":true}"#),
            (Reply::error("a\nb"), r#"{"ok":false,"error":"a\nb"}"#),
            (
                with_stats.clone(),
                concat!(
                    r#"{"ok":true,"stats":{"devices":[{"rings":[{"generated":9,"delivered":8,"dropped":1}],"#,
                    r#""raised":[8,1],"storm_remaining":null}],"interrupts_lost":0}}"#
                ),
            ),
        ] {
            assert_eq!(reply.to_line(), format!("{expected}\n").as_bytes());
        }
        assert_eq!(
            with_stats.to_string(),
            "device 0: no storm\n  \
               ring      generated    delivered      dropped   interrupts\n  \
               0                 9            8            1            8\n  \
               status                                                   1\n\
             interrupts lost by the host: 0"
        );
    }
}
