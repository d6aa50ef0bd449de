// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What two looks at the counters say about the time between them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Look;
use crate::control::stats::{DeviceStats, Latency, MachineStats, RingStats, StormStatus};

/// What is to be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Whether the machine is paused.
    pub paused: bool,
    /// The devices' time.
    pub time: Duration,
    /// The devices that are there, and those that went between the looks.
    pub devices: Vec<DeviceSample>,
    /// Whether each event on each ring is accounted for.
    pub verdict: Verdict,
    /// Interrupts that the host could not send, since the start.
    pub interrupts_lost: u64,
}

/// A device in the time between two looks.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSample {
    /// Its number.
    pub device: usize,
    /// Whether it was taken out.
    pub gone: bool,
    /// By ring.
    pub rings: Vec<RingSample>,
    /// Interrupts per second, by vector; only vectors that ever sent one.
    pub vectors: BTreeMap<u16, f64>,
    /// Faults shown, since the start.
    pub faults: BTreeMap<String, u64>,
    /// The storm that runs, or the last one.
    pub storm: Option<StormStatus>,
    /// All latencies since the start.
    pub latency: Option<Latency>,
}

/// A ring in the time between two looks: what happened per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RingSample {
    /// Events made.
    pub events: f64,
    /// Events written to guest memory.
    pub delivered: f64,
    /// Events not written.
    pub dropped: f64,
    /// Of these, the ones for which the driver had no buffer available.
    pub full: f64,
    /// Events that a fault spoiled.
    pub faulted: f64,
    /// Events delivered without an interrupt of their own.
    pub quiet: f64,
    /// Whether each event is accounted for.
    pub adds_up: bool,
}

/// Whether generated = delivered + dropped + faulted on every ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Holds {
        /// Events made since the start.
        events: u64,
    },
    /// It is not, on this ring for one.
    Broken {
        /// Which device.
        device: usize,
        /// Which of its rings.
        ring: usize,
    },
    /// It is not, on devices that are gone for long.
    BrokenBefore,
}

impl Sample {
    /// What happened between the looks `before` and `after`.
    pub fn new(before: &Look, after: &Look) -> Self {
        let interval = after.at.saturating_duration_since(before.at);
        Self::between(&before.stats, &after.stats, interval)
    }

    /// What happened from `before` to `after`, which are `interval` apart.
    pub fn between(before: &MachineStats, after: &MachineStats, interval: Duration) -> Self {
        let nothing = DeviceStats::default();
        let devices = after.devices.iter().filter_map(|device| {
            let mut all = before.devices.iter();
            let before = all.find(|before| before.device == device.device);
            let before = before.unwrap_or(&nothing);
            // One that is gone is seen going, and then no more.
            (!before.gone).then(|| device_sample(before, device, interval))
        });
        Self {
            paused: after.paused,
            time: Duration::from_nanos(after.time),
            devices: devices.collect(),
            verdict: verdict(after),
            interrupts_lost: after.interrupts_lost,
        }
    }
}

fn device_sample(before: &DeviceStats, after: &DeviceStats, interval: Duration) -> DeviceSample {
    let rings = after.rings.iter().enumerate();
    let vectors = after.raised.iter();
    DeviceSample {
        device: after.device,
        gone: after.gone,
        rings: rings
            .map(|(number, ring)| {
                let before = before.rings.get(number).copied().unwrap_or_default();
                let rate = |count: fn(&RingStats) -> u64| {
                    per_second(count(&before), count(ring), interval)
                };
                RingSample {
                    events: rate(|ring| ring.generated),
                    delivered: rate(|ring| ring.delivered),
                    dropped: rate(|ring| ring.dropped),
                    full: rate(|ring| ring.full),
                    faulted: rate(|ring| ring.faulted),
                    quiet: rate(|ring| ring.quiet),
                    adds_up: ring.adds_up(),
                }
            })
            .collect(),
        vectors: vectors
            .map(|(vector, &count)| {
                let before = before.raised.get(vector).copied().unwrap_or(0);
                (*vector, per_second(before, count, interval))
            })
            .collect(),
        faults: after.faults.clone(),
        storm: after.storm.clone(),
        latency: after.latency.clone(),
    }
}

fn per_second(before: u64, after: u64, interval: Duration) -> f64 {
    if interval.is_zero() {
        return 0.0;
    }
    // A reset sets counters back: what is there has come since.
    let count = after.checked_sub(before).unwrap_or(after);
    count as f64 / interval.as_secs_f64()
}

fn verdict(stats: &MachineStats) -> Verdict {
    let mut events = 0_u64;
    for device in &stats.devices {
        for (ring, counts) in device.rings.iter().enumerate() {
            if !counts.adds_up() {
                let device = device.device;
                return Verdict::Broken { device, ring };
            }
            events = events.saturating_add(counts.generated);
        }
    }
    let forgotten = stats.forgotten.rings;
    if !forgotten.adds_up() {
        return Verdict::BrokenBefore;
    }
    Verdict::Holds {
        events: events.saturating_add(forgotten.generated),
    }
}

/// The verdict in words.
impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Holds { events } => write!(f, "law holds: {events} events, 0 unaccounted for"),
            Self::BrokenBefore => f.write_str("law BROKEN on devices that are gone for long"),
            Self::Broken { device, ring } => write!(
                f,
                "law BROKEN on device {device} ring {ring}: \
                 generated is not delivered + dropped + faulted"
            ),
        }
    }
}

/// How much of a storm is done, in words.
pub fn storm(storm: Option<&StormStatus>) -> String {
    let Some(storm) = storm else {
        return "no storm".to_owned();
    };
    let state = if storm.running { "storm" } else { "storm over" };
    let share = match storm.total {
        Some(total @ 1..) => format!(" {:.0} %", storm.made as f64 * 100.0 / total as f64),
        _ => String::new(),
    };
    let seconds = storm.elapsed as f64 / 1e9;
    format!("{state}{share}, {} events in {seconds:.1} s", storm.made)
}

/// A rate in few digits.
pub fn rate(rate: f64) -> String {
    // The sum of no numbers at all is -0.
    match rate + 0.0 {
        rate @ ..10_000.0 => format!("{rate:.0}"),
        ..10_000_000.0 => format!("{:.0}k", rate / 1e3),
        _ => format!("{:.0}M", rate / 1e6),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::control::stats::ForgottenStats;

    /// A machine of two devices, the first of which storms.
    pub fn stats(scale: u64) -> MachineStats {
        let ring = RingStats {
            generated: 60 * scale,
            delivered: 30 * scale,
            dropped: 20 * scale,
            faulted: 10 * scale,
            extra: 0,
            full: 5 * scale,
            quiet: 15 * scale,
        };
        MachineStats {
            time: 2_000_000_000 * scale,
            paused: false,
            devices: vec![
                DeviceStats {
                    device: 0,
                    gone: false,
                    rings: vec![ring, RingStats::default()],
                    raised: [(0, 15 * scale), (2, scale)].into(),
                    faults: [("hang".to_owned(), 1)].into(),
                    storm: Some(StormStatus {
                        running: true,
                        made: 60 * scale,
                        total: Some(240),
                        elapsed: 1_500_000_000,
                        digest: "0".repeat(16),
                    }),
                    latency: Some(Latency {
                        count: 9,
                        p50: 8_200,
                        p99: 120_000,
                        max: 3_400_000,
                        ..Latency::default()
                    }),
                },
                DeviceStats {
                    device: 1,
                    rings: vec![RingStats::default()],
                    ..DeviceStats::default()
                },
            ],
            forgotten: ForgottenStats::default(),
            slots: Vec::new(),
            interrupts_lost: 0,
            exits: BTreeMap::new(),
        }
    }

    #[test]
    fn rates_are_differences_over_the_interval() {
        let sample = Sample::between(&stats(1), &stats(2), Duration::from_millis(500));
        let ring = sample.devices[0].rings[0];
        assert_eq!(
            (ring.events, ring.delivered, ring.dropped, ring.faulted),
            (120.0, 60.0, 40.0, 20.0)
        );
        assert_eq!((ring.full, ring.quiet), (10.0, 30.0));
        assert_eq!(sample.devices[0].vectors, [(0, 30.0), (2, 2.0)].into());
        assert_eq!(sample.verdict, Verdict::Holds { events: 120 });
    }

    #[test]
    fn a_first_look_a_reset_and_a_new_device_are_no_trouble() {
        let nothing = MachineStats::default();
        let second = Duration::from_secs(1);
        let first = Sample::between(&nothing, &stats(1), second);
        assert_eq!(first.devices[0].rings[0].events, 60.0);
        let reset = Sample::between(&stats(3), &stats(1), second);
        assert_eq!(reset.devices[0].rings[0].events, 60.0);
        let same = Sample::between(&stats(1), &stats(1), Duration::ZERO);
        assert_eq!(same.devices[0].rings[0].events, 0.0);
        assert!(
            Sample::between(&stats(1), &nothing, second)
                .devices
                .is_empty()
        );
    }

    #[test]
    fn a_device_that_went_is_seen_once_and_its_events_count_on() {
        let second = Duration::from_secs(1);
        let mut gone = stats(2);
        gone.devices[0].gone = true;
        gone.devices.remove(1);
        let going = Sample::between(&stats(1), &gone, second);
        let [device] = &going.devices[..] else {
            panic!("{going:?}");
        };
        assert!(device.gone && device.rings[0].events == 60.0);
        let mut later = stats(3);
        later.devices[0] = gone.devices[0].clone();
        later.devices[1].device = 5;
        let after = Sample::between(&gone, &later, second);
        let devices: Vec<_> = after.devices.iter().map(|device| device.device).collect();
        assert_eq!(devices, [5]);
        assert_eq!(after.verdict, Verdict::Holds { events: 120 });
    }

    #[test]
    fn one_event_too_few_breaks_the_law() {
        let mut stats = stats(1);
        stats.devices[1].rings[0].generated = 1;
        let sample = Sample::between(&stats, &stats, Duration::from_secs(1));
        assert_eq!(sample.verdict, Verdict::Broken { device: 1, ring: 0 });
        assert!(!sample.devices[1].rings[0].adds_up);
        assert!(
            sample
                .verdict
                .to_string()
                .contains("BROKEN on device 1 ring 0")
        );
    }

    #[test]
    fn devices_that_are_gone_for_long_are_under_the_law_too() {
        let mut stats = stats(1);
        let ring = stats.devices[0].rings[0];
        stats.forgotten.rings = ring;
        assert_eq!(verdict(&stats), Verdict::Holds { events: 120 });
        stats.forgotten.rings.dropped += 1;
        assert_eq!(verdict(&stats), Verdict::BrokenBefore);
    }

    #[test]
    fn rates_have_few_digits() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (9_999.4, "9999"),
            (12_345.0, "12k"),
            (9_999_000.0, "9999k"),
            (12_345_678.0, "12M"),
        ] {
            assert_eq!(rate(number), text);
        }
    }
}
