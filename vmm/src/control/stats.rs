// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What was counted, as it is on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was counted on all devices.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MachineStats {
    /// The devices' time in nanoseconds: since the start of the VMM, without pauses.
    pub time: u64,
    /// Whether the machine is paused.
    pub paused: bool,
    /// The devices, by their number; also the 32 that were taken out last.
    pub devices: Vec<DeviceStats>,
    /// Those that were taken out before.
    #[serde(default)]
    pub forgotten: ForgottenStats,
    /// The slots, by their number.
    pub slots: Vec<SlotStats>,
    /// Interrupts that the host could not send. Zero on a sound host.
    pub interrupts_lost: u64,
    /// How often vCPUs left the guest for this program, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exits: BTreeMap<String, u64>,
}

/// What was counted on one device.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeviceStats {
    /// Its number, which no other device has had.
    pub device: usize,
    /// Whether it was taken out of its slot: then this is what it had counted until then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gone: bool,
    /// By ring.
    pub rings: Vec<RingStats>,
    /// Interrupts sent, by MSI-X vector; only vectors that have sent one.
    pub raised: BTreeMap<u16, u64>,
    /// Faults shown, by name; only those that were.
    pub faults: BTreeMap<String, u64>,
    /// The storm that runs, or the last one.
    pub storm: Option<StormStatus>,
    /// From the delivery of an event to the acknowledgement by its handler, if there was any.
    pub latency: Option<Latency>,
}

/// Devices that were taken out so long ago that only sums are kept of what they had counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ForgottenStats {
    /// How many.
    pub devices: u64,
    /// The sums over all their rings.
    pub rings: RingStats,
}

/// What is to be seen of a slot.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SlotStats {
    /// Its number, as the guest knows it: `/sys/bus/pci/slots/N`.
    pub slot: u8,
    /// The device in it.
    pub device: Option<usize>,
    /// Whether the guest has taken the device into use, and not let go of it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub used: bool,
    /// Whether the guest was asked to let go of the device, and has not yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leaving: bool,
    /// The power light: on while the guest uses a device, blinking while it is about to begin or to
    /// stop. A guest turns it off a while after the device is gone. Unknown of a slot of QEMU's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Light>,
    /// The attention light: on when the guest could not take a device into use. Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<Light>,
    /// The PCI bus of the device there, of which it is device 0, once the guest has given it a number.
    pub bus: Option<u8>,
}

/// A light.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Light {
    /// On.
    On,
    /// Blinking.
    Blinking,
    /// Off.
    Off,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// What was counted on one ring since the device's last function level reset.
/// `generated` = `delivered` + `dropped` + `faulted`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RingStats {
    /// Events made.
    pub generated: u64,
    /// Of these, the ones written to guest memory as they should be.
    pub delivered: u64,
    /// Of these, the ones not written.
    pub dropped: u64,
    /// Of these, the ones that a fault spoiled.
    pub faulted: u64,
    /// Buffers used for a second copy of an event, which a fault made.
    pub extra: u64,
    /// Of those dropped, the ones for which the driver had no buffer available.
    pub full: u64,
    /// Events delivered without an interrupt of their own.
    pub quiet: u64,
}

impl RingStats {
    /// Whether every event is accounted for.
    pub fn adds_up(&self) -> bool {
        let parts = [self.delivered, self.dropped, self.faulted];
        let sum = parts
            .into_iter()
            .try_fold(0_u64, |sum, part| sum.checked_add(part));
        sum == Some(self.generated)
    }
}

/// How far a storm has got.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StormStatus {
    /// Whether it goes on.
    pub running: bool,
    /// Events made so far.
    pub made: u64,
    /// Events that it makes in all, if that is known beforehand.
    pub total: Option<u64>,
    /// Nanoseconds since it began.
    pub elapsed: u64,
    /// Digest over all events made so far, as 16 hexadecimal digits: the same token makes the same
    /// events.
    pub digest: String,
}

/// A distribution of latencies, in nanoseconds. All but `count`, `sum` and the buckets' counts are
/// right to two significant digits.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Sum of all samples.
    pub sum: u64,
    /// The shortest.
    pub min: u64,
    /// Half of the samples are not longer.
    pub p50: u64,
    /// 90 % of the samples are not longer.
    pub p90: u64,
    /// 99 % of the samples are not longer.
    pub p99: u64,
    /// 99.9 % of the samples are not longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// Samples by length, the shortest first; only those that are not empty.
    pub buckets: Vec<Bucket>,
}

/// Samples of about the same length.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bucket {
    /// The longest that falls into it, in nanoseconds: one less than a power of two. The shortest
    /// is half of that power.
    pub to: u64,
    /// How many there are.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_counts_each_event_once() {
        let ring = |generated, delivered, dropped, faulted| RingStats {
            generated,
            delivered,
            dropped,
            faulted,
            ..RingStats::default()
        };
        for (ring, adds_up) in [
            (ring(0, 0, 0, 0), true),
            (ring(6, 1, 2, 3), true),
            (ring(6, 1, 2, 2), false),
            (ring(5, 1, 2, 3), false),
            (ring(0, u64::MAX, 1, 0), false),
        ] {
            assert_eq!(ring.adds_up(), adds_up, "{ring:?}");
        }
    }
}
