// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Whether the driver still works when all is over: what goes in comes out, on every ring, and its
//! counters are those of the calls that were made.

use std::time::{Duration, Instant};

use evgen_stress::device::{Device, DeviceError};
use evgen_stress::poll::wait_readable;
use evgen_uapi::{Counters, EVENT_SIZE, Record, SOURCE_DOORBELL, SOURCE_DRIVER};

use crate::counters::imbalance;
use crate::fuzzer::Done;
use crate::rules::Call;

/// How long an event may take to come.
const LIMIT: Duration = Duration::from_secs(10);
/// After this time a doorbell is rung again: a reset may be under way, and the device deaf.
const AGAIN: Duration = Duration::from_millis(200);

/// Says what does not work, or is not counted as it was done since `before`.
pub fn examine(
    device: &Device,
    before: &Counters,
    done: &Done,
) -> Result<Vec<String>, DeviceError> {
    let mut wrong = Vec::new();
    let mut read = 0;
    let rings = (0..).take(before.rings as usize);
    for ring in rings.clone() {
        device.set_coalescing(ring.into(), 0, 0)?;
    }
    for ring in rings {
        let is_answer = |event: &Record| event.source == SOURCE_DOORBELL && event.ring == ring;
        if !comes(device, &mut read, || device.inject(ring.into()), is_answer)? {
            let limit = LIMIT.as_secs();
            wrong.push(format!(
                "ring {ring}: no event comes within {limit} s of a doorbell"
            ));
        }
    }
    let mut added = 0;
    let add = || {
        added += u64::from(device.add(added)?);
        Ok(())
    };
    if !comes(device, &mut read, add, |event| {
        event.source == SOURCE_DRIVER
    })? {
        wrong.push("an added event does not come out".to_owned());
    }

    let after = device.counters()?;
    wrong.extend(imbalance(&after));
    for (what, counted, made) in [
        ("read", after.read - before.read, done.events + read),
        (
            "added",
            after.added - before.added,
            done.tally.successes(Call::Add) + added,
        ),
        (
            "deferred",
            after.deferred - before.deferred,
            done.tally.successes(Call::InjectDeferred),
        ),
    ] {
        if counted != made {
            wrong.push(format!(
                "{what}: the driver counted {counted}, but it was {made} times"
            ));
        }
    }
    Ok(wrong)
}

/// Has an event made and reads until it comes; false if it does not. Counts what it reads.
fn comes(
    device: &Device,
    read: &mut u64,
    mut make: impl FnMut() -> Result<(), DeviceError>,
    is_it: impl Fn(&Record) -> bool,
) -> Result<bool, DeviceError> {
    let start = Instant::now();
    let mut buffer = [[0; EVENT_SIZE]; 64];
    // What waits already is no answer.
    while let Some(events) = device.read(&mut buffer)? {
        *read += events.count() as u64;
        if start.elapsed() > LIMIT {
            return Ok(false);
        }
    }
    while start.elapsed() < LIMIT {
        make()?;
        let asked = Instant::now();
        while asked.elapsed() < AGAIN {
            // If this fails, reading does too.
            let _ = wait_readable(&[device], Some(AGAIN));
            let Some(events) = device.read(&mut buffer)? else {
                continue;
            };
            let events: Vec<_> = events.collect();
            *read += events.len() as u64;
            if events.iter().any(|event| event.intact && is_it(event)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
