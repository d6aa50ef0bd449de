// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Replies and streamed events for people.

use std::collections::BTreeMap;
use std::fmt;

use super::reply::{About, AboutDevice, EventLine, Plugged, Reply, StormOn};
use super::stats::{
    DeviceStats, ForgottenStats, Latency, Light, MachineStats, SlotStats, StormStatus,
};

/// Vectors that are listed one by one.
const VECTORS_SHOWN: usize = 16;

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = &self.error {
            write!(f, "error: {error}")
        } else if let Some(about) = &self.about {
            about.fmt(f)
        } else if let Some(token) = &self.token {
            write!(f, "again with: {token}")
        } else if let Some(storms) = &self.storms {
            if storms.is_empty() {
                f.write_str("no storm")?;
            }
            for (index, StormOn { device, storm }) in storms.iter().enumerate() {
                let newline = if index == 0 { "" } else { "\n" };
                write!(f, "{newline}device {device}: ")?;
                write_storm(f, Some(storm))?;
            }
            Ok(())
        } else if let Some(Plugged { device, slot }) = self.plugged {
            write!(f, "device {device} is in slot {slot}")
        } else if let Some(stats) = &self.stats {
            stats.fmt(f)
        } else if let Some(metrics) = &self.metrics {
            f.write_str(metrics.trim_end())
        } else {
            f.write_str(if self.ok { "ok" } else { "error" })
        }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol, program, ..
        } = self;
        write!(f, "lockstorm {program}, protocol version {protocol}")?;
        for device in &self.devices {
            let AboutDevice {
                device,
                rings,
                vectors,
            } = device;
            write!(f, "\ndevice {device}: {rings} rings, {vectors} vectors")?;
        }
        write!(f, "\nfaults: {}", self.faults.join(", "))
    }
}

impl fmt::Display for MachineStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paused = if self.paused { ", paused" } else { "" };
        writeln!(f, "time: {:.3} s{paused}", seconds(self.time))?;
        for device in &self.devices {
            let gone = if device.gone { "gone, " } else { "" };
            write!(f, "device {}: {gone}", device.device)?;
            write_storm(f, device.storm.as_ref())?;
            writeln!(f)?;
            write_device(f, device)?;
        }
        let ForgottenStats { devices, rings } = self.forgotten;
        if devices > 0 {
            let (events, delivered) = (rings.generated, rings.delivered);
            writeln!(
                f,
                "{devices} devices before: {events} events, {delivered} delivered"
            )?;
        }
        for slot in &self.slots {
            writeln!(f, "{slot}")?;
        }
        if !self.exits.is_empty() {
            writeln!(f, "exits: {}", listed(&self.exits))?;
        }
        write!(f, "interrupts lost by the host: {}", self.interrupts_lost)
    }
}

fn write_device(f: &mut fmt::Formatter<'_>, device: &DeviceStats) -> fmt::Result {
    const COLUMNS: [&str; 7] = [
        "generated",
        "delivered",
        "dropped",
        "faulted",
        "extra",
        "full",
        "quiet",
    ];
    write!(f, "  ring")?;
    for column in COLUMNS {
        write!(f, " {column:>12}")?;
    }
    for (number, ring) in device.rings.iter().enumerate() {
        write!(f, "\n  {number:<4}")?;
        for count in [
            ring.generated,
            ring.delivered,
            ring.dropped,
            ring.faulted,
            ring.extra,
            ring.full,
            ring.quiet,
        ] {
            write!(f, " {count:>12}")?;
        }
    }
    let vectors = device.raised.iter().take(VECTORS_SHOWN);
    let vectors: BTreeMap<_, _> = vectors.collect();
    write!(f, "\n  interrupts by vector: {}", listed(&vectors))?;
    if device.raised.len() > VECTORS_SHOWN {
        let rest = device.raised.values().skip(VECTORS_SHOWN);
        let count = device.raised.len() - VECTORS_SHOWN;
        write!(f, ", {count} more: {}", rest.sum::<u64>())?;
    }
    writeln!(f)?;
    if !device.faults.is_empty() {
        writeln!(f, "  faults: {}", listed(&device.faults))?;
    }
    if let Some(latency) = &device.latency {
        writeln!(f, "  inject → handler: {latency}")?;
    }
    Ok(())
}

impl fmt::Display for SlotStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}: ", self.slot)?;
        match (self.device, self.used) {
            (Some(device), true) => write!(f, "device {device}, in use")?,
            (Some(device), false) => write!(f, "device {device}, not in use")?,
            (None, _) => f.write_str("empty")?,
        }
        if let Some(power) = self.power {
            write!(f, ", power light {power}")?;
        }
        if let Some(light @ (Light::On | Light::Blinking)) = self.attention {
            write!(f, ", attention light {light}")?;
        }
        if self.leaving {
            f.write_str(", the guest is to let go of it")?;
        }
        if let Some(bus) = self.bus {
            write!(f, ", at {bus:02x}:00.0 in the guest")?;
        }
        Ok(())
    }
}

impl fmt::Display for Light {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Blinking => "blinking",
            Self::Off => "off",
        })
    }
}

fn listed<K: fmt::Display, V: fmt::Display>(counts: &BTreeMap<K, V>) -> String {
    let counts: Vec<_> = counts
        .iter()
        .map(|(name, count)| format!("{name}: {count}"))
        .collect();
    if counts.is_empty() {
        "none".to_owned()
    } else {
        counts.join(", ")
    }
}

fn write_storm(f: &mut fmt::Formatter<'_>, storm: Option<&StormStatus>) -> fmt::Result {
    let Some(storm) = storm else {
        return f.write_str("no storm");
    };
    let state = if storm.running { "runs" } else { "is over" };
    write!(f, "storm {state}, {} ", storm.made)?;
    if let Some(total) = storm.total {
        write!(f, "of {total} ")?;
    }
    write!(
        f,
        "events in {:.3} s, digest {}",
        seconds(storm.elapsed),
        storm.digest
    )
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} samples, min {}, p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            self.count,
            Nanoseconds(self.min),
            Nanoseconds(self.p50),
            Nanoseconds(self.p90),
            Nanoseconds(self.p99),
            Nanoseconds(self.p999),
            Nanoseconds(self.max),
        )
    }
}

impl fmt::Display for EventLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lost > 0 {
            writeln!(f, "… {} events left out", self.lost)?;
        }
        let event = &self.event;
        write!(
            f,
            "{:>14.6} device {} ring {} {} {} kind {} {}",
            seconds(event.timestamp),
            event.device,
            event.ring,
            match event.source {
                1 => "doorbell",
                2 => "injected",
                3 => "storm",
                _ => "unknown",
            },
            event.sequence,
            event.kind,
            // As on the wire.
            serde_json::to_value(event.fate)
                .ok()
                .as_ref()
                .and_then(|fate| fate.as_str())
                .unwrap_or_default(),
        )?;
        for fault in &event.faults {
            write!(f, " {fault}")?;
        }
        Ok(())
    }
}

/// A time as people say it, in three digits.
pub struct Nanoseconds(pub u64);

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            0..1_000 => return f.pad(&format!("{} ns", self.0)),
            1_000..1_000_000 => (self.0 as f64 / 1e3, "µs"),
            1_000_000..1_000_000_000 => (self.0 as f64 / 1e6, "ms"),
            _ => (self.0 as f64 / 1e9, "s"),
        };
        let digits = match value {
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        f.pad(&format!("{value:.digits$} {unit}"))
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::stats::RingStats;

    #[test]
    fn stats_are_a_table() {
        let stats = MachineStats {
            time: 1_500_000_000,
            paused: true,
            devices: vec![
                DeviceStats {
                    device: 0,
                    gone: false,
                    rings: vec![RingStats {
                        generated: 9,
                        delivered: 6,
                        dropped: 2,
                        faulted: 1,
                        extra: 3,
                        full: 2,
                        quiet: 4,
                    }],
                    raised: (0..18).map(|vector| (vector * 2, 5)).collect(),
                    faults: [("hang".to_owned(), 1)].into(),
                    storm: Some(StormStatus {
                        running: true,
                        made: 3,
                        total: Some(10),
                        elapsed: 2_000_000,
                        digest: "00".into(),
                    }),
                    latency: Some(Latency {
                        count: 2,
                        p50: 9_990,
                        max: 12_345_678,
                        ..Latency::default()
                    }),
                },
                DeviceStats {
                    device: 7,
                    gone: true,
                    ..DeviceStats::default()
                },
            ],
            slots: vec![
                SlotStats {
                    slot: 1,
                    device: Some(0),
                    used: true,
                    leaving: true,
                    power: Some(Light::Blinking),
                    attention: Some(Light::Off),
                    bus: Some(0x1f),
                },
                SlotStats {
                    slot: 2,
                    device: None,
                    used: false,
                    leaving: false,
                    power: Some(Light::Off),
                    attention: Some(Light::On),
                    bus: None,
                },
            ],
            forgotten: ForgottenStats {
                devices: 2,
                rings: RingStats {
                    generated: 5,
                    delivered: 4,
                    dropped: 1,
                    ..RingStats::default()
                },
            },
            interrupts_lost: 0,
            exits: [("io".to_owned(), 8)].into(),
        };
        let expected = "\
time: 1.500 s, paused
device 0: storm runs, 3 of 10 events in 0.002 s, digest 00
  ring    generated    delivered      dropped      faulted        extra         full        quiet
  0               9            6            2            1            3            2            4
  interrupts by vector: 0: 5, 2: 5, 4: 5, 6: 5, 8: 5, 10: 5, 12: 5, 14: 5, 16: 5, 18: 5, 20: 5, \
22: 5, 24: 5, 26: 5, 28: 5, 30: 5, 2 more: 10
  faults: hang: 1
  inject → handler: 2 samples, min 0 ns, p50 9.99 µs, p90 0 ns, p99 0 ns, p99.9 0 ns, max 12.3 ms
device 7: gone, no storm
  ring    generated    delivered      dropped      faulted        extra         full        quiet
  interrupts by vector: none
2 devices before: 5 events, 4 delivered
slot 1: device 0, in use, power light blinking, the guest is to let go of it, at 1f:00.0 in the guest
slot 2: empty, power light off, attention light on
exits: io: 8
interrupts lost by the host: 0";
        assert_eq!(stats.to_string(), expected);
    }

    #[test]
    fn times_have_three_digits() {
        for (nanoseconds, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (12_340, "12.3 µs"),
            (123_400, "123 µs"),
            (1_234_000, "1.23 ms"),
            (60_000_000_000, "60.0 s"),
        ] {
            assert_eq!(Nanoseconds(nanoseconds).to_string(), text);
        }
    }
}
