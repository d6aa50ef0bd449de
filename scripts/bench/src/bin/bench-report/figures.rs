// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Which figures there are, what each is compared with, and what is aimed at.

use std::fs;
use std::path::Path;

use lockstorm_bench::measurement::Measurement;
use lockstorm_bench::samples::slope;
use serde_json::Value as Json;

use crate::figure::{Aim, Figure, Value};

/// Everything that was measured.
pub struct Measurements(pub Vec<Measurement>);

impl Measurements {
    fn value(&self, quantity: &str, subject: &str) -> Result<Value, String> {
        let mut all = self.0.iter();
        Value::of(
            all.find(|measurement| measurement.is(quantity, subject)),
            subject,
        )
    }
}

/// The device core, from Criterion's results in `folder`.
pub fn core(folder: &Path) -> Vec<Figure> {
    let event = || criterion(folder, "deliver", "event written to a ring");
    vec![
        Figure::compared(
            "core",
            "event written to a ring",
            event(),
            criterion(folder, "copy", "its 64 bytes copied"),
            Some(Aim::RatioAtMost(3.0)),
        ),
        Figure::compared(
            "core",
            "event written to a ring",
            event(),
            criterion(folder, "traffic", "all bytes a delivery moves, copied"),
            None,
        ),
    ]
}

/// Nanoseconds per element that Criterion measured for `event/NAME`.
fn criterion(folder: &Path, name: &str, subject: &str) -> Result<Value, String> {
    let folder = folder.join("event").join(name).join("new");
    let read = |file: &str| -> Result<Json, String> {
        let path = folder.join(file);
        let text = fs::read_to_string(&path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (estimates, benchmark) = (read("estimates.json")?, read("benchmark.json")?);
    let number = |json: &Json, pointer: &str| {
        let number = json.pointer(pointer).and_then(Json::as_f64);
        number.ok_or_else(|| format!("{}: no number at {pointer}", folder.display()))
    };
    let elements = number(&benchmark, "/throughput/Elements")?;
    let bound = |end: &str| number(&estimates, &format!("/median/confidence_interval/{end}"));
    Ok(Value {
        range: Some((
            bound("lower_bound")? / elements,
            bound("upper_bound")? / elements,
        )),
        ..Value::new(
            subject,
            number(&estimates, "/median/point_estimate")? / elements,
            "ns",
        )
    })
}

/// Exits per event that are none: one in a thousand may be the driver's watchdog coming once more than
/// it did in the idle time that is taken off.
const NO_EXITS: f64 = 0.001;

/// Events on their way to the driver's handler.
pub fn interrupts(measurements: &Measurements) -> Vec<Figure> {
    let compared = [
        ("latency p50", "inject → handler, median"),
        ("latency p99", "inject → handler, 99 %"),
        ("handled", "events injected and handled"),
        ("events", "events end to end in a storm without mercy"),
    ];
    let compared = compared.into_iter().map(|(quantity, name)| {
        let baseline = measurements.value(quantity, "signal");
        Figure::compared(
            "interrupts",
            name,
            measurements.value(quantity, "irqfd"),
            baseline.map(|value| Value {
                subject: "KVM_SIGNAL_MSI".into(),
                ..value
            }),
            None,
        )
    });
    let alone = [
        (
            "exits per event",
            "exits to lockstorm per event delivered, beyond those of an idle guest",
        ),
        (
            "exits per doorbell",
            "exits to lockstorm per doorbell, beyond those of an idle guest",
        ),
    ];
    let alone = alone.into_iter().map(|(quantity, name)| {
        let value = measurements.value(quantity, "irqfd");
        Figure::alone("interrupts", name, value, Some(Aim::AtMost(NO_EXITS)))
    });
    compared.chain(alone).collect()
}

/// VMM start → guest init.
pub fn boot(measurements: &Measurements) -> Vec<Figure> {
    [
        ("qemu-q35", "QEMU q35", Aim::RatioAtMost(0.5)),
        ("qemu-microvm", "QEMU microvm", Aim::RatioBelow(1.0)),
        ("alioth", "alioth", Aim::RatioBelow(1.0)),
    ]
    .into_iter()
    .map(|(subject, name, aim)| {
        let baseline = measurements.value("boot", subject);
        Figure::compared(
            "boot",
            "VMM start → guest init",
            measurements.value("boot", "lockstorm"),
            baseline.map(|value| Value {
                subject: name.into(),
                ..value
            }),
            Some(aim),
        )
    })
    .collect()
}

/// Memory beyond the guest's.
pub fn memory(measurements: &Measurements) -> Vec<Figure> {
    ["no driver", "driver"]
        .into_iter()
        .flat_map(|kind| {
            let (first, further) = match kind {
                "driver" => (
                    "memory beyond the guest's, one device set up by its driver",
                    "each further device, set up by its driver and idle",
                ),
                _ => (
                    "memory beyond the guest's, one device",
                    "each further idle device",
                ),
            };
            let subject = format!("1 devices, {kind}");
            let one = measurements.value("memory", &subject);
            let anonymous = measurements.value("anonymous memory", &subject);
            [
                Figure::alone("memory", first, one, Some(Aim::AtMost(2048.0))),
                Figure::alone(
                    "memory",
                    "of that, not pages of the program's file",
                    anonymous,
                    None,
                ),
                Figure::alone(
                    "memory",
                    further,
                    per_device(measurements, kind),
                    Some(Aim::AtMost(16.0)),
                ),
            ]
        })
        .collect()
}

/// KiB that each device adds, by all numbers of them that were measured.
fn per_device(measurements: &Measurements, kind: &str) -> Result<Value, String> {
    let mut points = Vec::new();
    for measurement in &measurements.0 {
        let devices = measurement
            .subject
            .split_once(" devices, ")
            .filter(|(_, of)| measurement.quantity == "memory" && *of == kind)
            .and_then(|(count, _)| count.parse::<f64>().ok());
        if let Some(devices) = devices {
            points.push((
                devices,
                Value::of(Some(measurement), &measurement.subject)?.value,
            ));
        }
    }
    let slope = slope(&points).ok_or("too few numbers of devices were measured")?;
    Ok(Value::new("each further device", slope, "KiB"))
}
