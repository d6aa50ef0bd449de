// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What was counted, in Prometheus' text format (version 0.0.4).

use std::fmt::{Display, Write};

use super::stats::{DeviceStats, Latency, MachineStats, RingStats};

/// A counter that each ring has: its name, what it is, and where to find it.
type RingCounter = (&'static str, &'static str, fn(&RingStats) -> u64);

const RING_COUNTERS: [RingCounter; 7] = [
    ("events_generated_total", "Events made.", |ring| {
        ring.generated
    }),
    (
        "events_delivered_total",
        "Events written to guest memory as they should be.",
        |ring| ring.delivered,
    ),
    (
        "events_dropped_total",
        "Events made and not written.",
        |ring| ring.dropped,
    ),
    (
        "events_faulted_total",
        "Events that a fault spoiled.",
        |ring| ring.faulted,
    ),
    (
        "events_full_total",
        "Events dropped because the driver had no buffer available.",
        |ring| ring.full,
    ),
    (
        "events_quiet_total",
        "Events delivered without an interrupt of their own.",
        |ring| ring.quiet,
    ),
    (
        "buffers_extra_total",
        "Buffers used for a second copy of an event.",
        |ring| ring.extra,
    ),
];

/// All of `stats` as text, a family of metrics after the other.
pub(super) fn text(stats: &MachineStats) -> String {
    let mut text = Text::default();
    text.family("time_seconds", "gauge", "Time of the devices.");
    text.sample("", &[], seconds(stats.time));
    text.family("paused", "gauge", "Whether the machine is paused.");
    text.sample("", &[], u8::from(stats.paused));
    for (name, help, count) in RING_COUNTERS {
        text.family(name, "counter", help);
        for (device, ring, counts) in rings(stats) {
            text.sample("", &[("device", &device), ("ring", &ring)], count(counts));
        }
        if stats.forgotten.devices > 0 {
            let sum = count(&stats.forgotten.rings);
            text.sample("", &[("device", &"forgotten")], sum);
        }
    }
    text.family(
        "devices_forgotten_total",
        "counter",
        "Devices taken out long ago, of which only the sums are kept.",
    );
    text.sample("", &[], stats.forgotten.devices);
    text.family("interrupts_total", "counter", "Interrupts sent.");
    for counts in &stats.devices {
        for (vector, count) in &counts.raised {
            text.sample("", &[("device", &counts.device), ("vector", vector)], count);
        }
    }
    text.family("faults_total", "counter", "Faults shown.");
    for counts in &stats.devices {
        for (fault, count) in &counts.faults {
            text.sample("", &[("device", &counts.device), ("fault", fault)], count);
        }
    }
    write_storms(&mut text, &stats.devices);
    text.family(
        "latency_seconds",
        "histogram",
        "From the delivery of an event to the acknowledgement by its handler.",
    );
    for counts in &stats.devices {
        if let Some(latency) = &counts.latency {
            write_latency(&mut text, counts.device, latency);
        }
    }
    text.family("device_gone", "gauge", "Whether the device was taken out.");
    for counts in &stats.devices {
        text.sample("", &[("device", &counts.device)], u8::from(counts.gone));
    }
    text.family(
        "slot_occupied",
        "gauge",
        "Whether there is a device in the slot.",
    );
    for slot in &stats.slots {
        let occupied = u8::from(slot.device.is_some());
        text.sample("", &[("slot", &slot.slot)], occupied);
    }
    text.family(
        "interrupts_lost_total",
        "counter",
        "Interrupts that the host could not send.",
    );
    text.sample("", &[], stats.interrupts_lost);
    text.family(
        "exits_total",
        "counter",
        "Exits of vCPUs to the VMM, by reason.",
    );
    for (reason, count) in &stats.exits {
        text.sample("", &[("reason", reason)], count);
    }
    text.text
}

fn rings(stats: &MachineStats) -> impl Iterator<Item = (usize, usize, &RingStats)> {
    stats.devices.iter().flat_map(|device| {
        let rings = device.rings.iter().enumerate();
        rings.map(move |(ring, counts)| (device.device, ring, counts))
    })
}

fn write_storms(text: &mut Text, devices: &[DeviceStats]) {
    let storms = || {
        let devices = devices.iter();
        devices.filter_map(|counts| Some((counts.device, counts.storm.as_ref()?)))
    };
    text.family("storm_running", "gauge", "Whether a storm goes on.");
    for (device, storm) in storms() {
        text.sample("", &[("device", &device)], u8::from(storm.running));
    }
    text.family(
        "storm_events",
        "gauge",
        "Events that the storm, or the last one, has made.",
    );
    for (device, storm) in storms() {
        text.sample("", &[("device", &device)], storm.made);
    }
    text.family(
        "storm_events_planned",
        "gauge",
        "Events that the storm, or the last one, makes in all.",
    );
    for (device, storm) in storms() {
        if let Some(total) = storm.total {
            text.sample("", &[("device", &device)], total);
        }
    }
    text.family(
        "storm_seconds",
        "gauge",
        "Time that the storm, or the last one, has taken.",
    );
    for (device, storm) in storms() {
        text.sample("", &[("device", &device)], seconds(storm.elapsed));
    }
}

fn write_latency(text: &mut Text, device: usize, latency: &Latency) {
    let mut below = 0;
    for bucket in &latency.buckets {
        below += bucket.count;
        let to = seconds(bucket.to);
        text.sample("_bucket", &[("device", &device), ("le", &to)], below);
    }
    let labels: [(&str, &dyn Display); 2] = [("device", &device), ("le", &"+Inf")];
    text.sample("_bucket", &labels, latency.count);
    text.sample("_sum", &[("device", &device)], seconds(latency.sum));
    text.sample("_count", &[("device", &device)], latency.count);
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[derive(Default)]
struct Text {
    text: String,
    family: &'static str,
}

impl Text {
    /// Begins a family of metrics.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.family = name;
        // Writing to a string has no way to fail.
        let _ = writeln!(self.text, "# HELP lockstorm_{name} {help}");
        let _ = writeln!(self.text, "# TYPE lockstorm_{name} {kind}");
    }

    /// Adds a sample of the family. No value of a label here needs escaping.
    fn sample(&mut self, suffix: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let _ = write!(self.text, "lockstorm_{}{suffix}", self.family);
        for (index, (name, value)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{name}=\"{value}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::control::examples;

    /// The samples by name and labels; panics at what Prometheus would not read.
    fn samples(text: &str) -> BTreeMap<String, f64> {
        let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap().to_owned();
                assert!(families.insert(family.clone()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert!(["counter", "gauge", "histogram"].contains(&kind));
                assert_eq!(kind == "counter", name.ends_with("_total"));
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(name.starts_with(&family), "{line} is not of {family}");
                let old = samples.insert(name.to_owned(), value.parse().unwrap());
                assert!(old.is_none(), "{line} comes twice");
            }
        }
        samples
    }

    #[test]
    fn every_number_of_the_stats_is_there() {
        // Each number in the example is another one.
        let stats = examples::stats();
        let text = text(&stats);
        let values: Vec<f64> = samples(&text).into_values().collect();
        let mut expected = Vec::new();
        collect(&serde_json::to_value(&stats).unwrap(), "", &mut expected);
        assert!(expected.len() >= 40, "{expected:?}");
        for (path, number) in expected {
            // Times are in seconds here; the buckets of a histogram add up.
            let here = |value: f64| (value - number).abs() <= number * 1e-9;
            let found = values.iter().any(|&value| here(value) || here(value * 1e9));
            let elsewhere = path.contains("latency/buckets") || path.contains("latency/p");
            let elsewhere = elsewhere || path.ends_with("/min") || path.ends_with("/max");
            // These name what others are about.
            let names = ["/device", "/slot", "/bus"];
            let elsewhere = elsewhere || names.iter().any(|name| path.ends_with(name));
            assert!(found || elsewhere, "{path}: {number} is not in\n{text}");
        }
    }

    fn collect(value: &serde_json::Value, path: &str, numbers: &mut Vec<(String, f64)>) {
        match value {
            serde_json::Value::Number(number) => {
                numbers.push((path.to_owned(), number.as_f64().unwrap()));
            }
            serde_json::Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    collect(item, &format!("{path}/{index}"), numbers);
                }
            }
            serde_json::Value::Object(members) => {
                for (name, member) in members {
                    collect(member, &format!("{path}/{name}"), numbers);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let samples = samples(&text(&examples::stats()));
        let bucket = |to: &str| {
            samples[&format!("lockstorm_latency_seconds_bucket{{device=\"0\",le=\"{to}\"}}")]
        };
        assert_eq!(bucket("0.000016383"), 900.0);
        assert_eq!(bucket("0.000032767"), 999.0);
        assert_eq!(bucket("0.004194303"), 1000.0);
        assert_eq!(bucket("+Inf"), 1000.0);
        assert_eq!(
            samples["lockstorm_events_full_total{device=\"0\",ring=\"0\"}"],
            100.0
        );
    }
}
