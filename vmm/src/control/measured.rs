// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Turns what devices have counted and made into what is on the wire.

use std::fmt::Write;

use hdrhistogram::Histogram;
use lockstorm_device_model::{self as model, Fault, FaultSet};

use super::reply::{AboutDevice, EventLine, Fate, StreamedEvent};
use super::stats::{
    Bucket, DeviceStats, ForgottenStats, Latency, Light, RingStats, SlotStats, StormStatus,
};
use crate::devices::evgen::{Figures, Forgotten, Latencies, Observed};
use crate::devices::hot_plug::Slot;
use crate::pci;

/// What a device has.
pub(super) fn about(figures: &Figures) -> AboutDevice {
    AboutDevice {
        device: figures.device,
        // At most 8, and at most 2048.
        rings: figures.stats.rings.len() as u8,
        vectors: figures.stats.raised.len() as u16,
    }
}

/// What a device has counted.
pub(super) fn device(figures: Figures) -> DeviceStats {
    let Figures {
        device,
        gone,
        stats,
        latencies,
    } = figures;
    let (raised, faults) = (stats.raised.into_iter(), Fault::ALL.iter());
    DeviceStats {
        device,
        gone,
        rings: stats.rings.into_iter().map(ring).collect(),
        raised: (0..).zip(raised).filter(|&(_, count)| count > 0).collect(),
        faults: faults
            .map(|fault| fault.to_string())
            .zip(stats.faults)
            .filter(|&(_, count)| count > 0)
            .collect(),
        storm: stats.storm.map(storm),
        latency: latencies.as_ref().map(latency),
    }
}

/// What is left of devices that have been gone for long.
pub(super) fn forgotten(Forgotten { devices, rings }: Forgotten) -> ForgottenStats {
    ForgottenStats {
        devices,
        rings: ring(rings),
    }
}

/// What is to be seen of a slot.
pub(super) fn slot(slot: Slot) -> SlotStats {
    let Slot {
        number,
        device,
        view,
    } = slot;
    SlotStats {
        slot: number,
        device,
        used: view.used,
        leaving: view.leaving,
        power: view.power.map(light),
        attention: view.attention.map(light),
        bus: view.bus,
    }
}

fn light(light: pci::Light) -> Light {
    match light {
        pci::Light::On => Light::On,
        pci::Light::Blinking => Light::Blinking,
        pci::Light::Off => Light::Off,
    }
}

fn ring(stats: model::RingStats) -> RingStats {
    let model::RingStats {
        generated,
        delivered,
        dropped,
        faulted,
        extra,
        full,
        quiet,
    } = stats;
    RingStats {
        generated,
        delivered,
        dropped,
        faulted,
        extra,
        full,
        quiet,
    }
}

/// How far a storm has got.
pub(super) fn storm(status: model::StormStatus) -> StormStatus {
    let model::StormStatus {
        running,
        made,
        total,
        elapsed,
        digest,
    } = status;
    StormStatus {
        running,
        made,
        total,
        elapsed,
        digest: format!("{digest:016x}"),
    }
}

fn latency(latencies: &Latencies) -> Latency {
    let histogram = latencies.histogram();
    let quantile = |quantile| histogram.value_at_quantile(quantile);
    Latency {
        count: histogram.len(),
        sum: latencies.sum(),
        min: histogram.min(),
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p999: quantile(0.999),
        max: histogram.max(),
        buckets: buckets(histogram),
    }
}

/// The samples by the power of two above them. The histogram's own steps are finer and never cross
/// one, so the counts are exact.
fn buckets(histogram: &Histogram<u64>) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    for step in histogram.iter_recorded() {
        // The longest sample that this step stands for.
        let longest = step.value_iterated_to();
        let power = longest
            .checked_add(1)
            .and_then(u64::checked_next_power_of_two);
        let to = power.map_or(u64::MAX, |power| power - 1);
        let count = step.count_since_last_iteration();
        match buckets.last_mut() {
            Some(last) if last.to == to => last.count += count,
            _ => buckets.push(Bucket { to, count }),
        }
    }
    buckets
}

/// An event that was made.
pub(super) fn event_line(observed: Observed) -> EventLine {
    let Observed { device, made, lost } = observed;
    let event = made.event;
    let payload = event.payload.iter();
    EventLine {
        event: StreamedEvent {
            device,
            ring: event.ring,
            source: event.source,
            kind: event.kind,
            sequence: event.sequence,
            timestamp: event.timestamp,
            flags: event.flags,
            payload: payload.fold(String::new(), |mut text, byte| {
                // Writing to a string has no way to fail.
                let _ = write!(text, "{byte:02x}");
                text
            }),
            fate: match made.fate {
                model::Fate::Delivered => Fate::Delivered,
                model::Fate::Withheld => Fate::Withheld,
                model::Fate::Dropped => Fate::Dropped,
                model::Fate::Faulted => Fate::Faulted,
            },
            faults: names(made.faults),
            offset: made.storm_offset,
        },
        lost,
    }
}

fn names(faults: FaultSet) -> Vec<String> {
    let all = Fault::ALL.iter();
    all.filter(|&&fault| faults.contains(fault))
        .map(|fault| fault.to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_at_powers_of_two_and_lose_nothing() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 1 << 40, 2).unwrap();
        let samples = [
            0,
            1,
            2,
            3,
            4,
            1000,
            1023,
            1024,
            1025,
            2047,
            1 << 35,
            (1 << 36) - 1,
        ];
        for sample in samples {
            histogram.record(sample).unwrap();
        }
        let found: Vec<_> = buckets(&histogram)
            .iter()
            .map(|bucket| (bucket.to, bucket.count))
            .collect();
        let mut expected: Vec<(u64, u64)> = Vec::new();
        for sample in samples {
            let to = (sample + 1).next_power_of_two() - 1;
            match expected.last_mut() {
                Some((last, count)) if *last == to => *count += 1,
                _ => expected.push((to, 1)),
            }
        }
        assert_eq!(found, expected);
    }
}
