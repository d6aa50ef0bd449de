// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Whether a device that came back does its work.

use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::device::Mode;
use evgen_stress::slot::Slot;
use evgen_uapi::{EVENT_SIZE, SOURCE_DOORBELL};

use crate::trouble::Trouble;

/// How long a device may take: it may be gone again meanwhile, and set up anew.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
/// An event may be lost: one that is made while the device is gone again.
const AGAIN: Duration = Duration::from_secs(1);

/// Checks that the device in `slot` makes an event for a doorbell, and that a file opened now gives
/// it.
pub fn check(slot: &Slot) -> Result<(), Trouble> {
    let start = Instant::now();
    let Some(device) = slot.open(Mode::Nonblocking)? else {
        let what = format!("{} has no file, though its driver is bound", slot.address());
        return Err(Trouble::wrong("open", what));
    };
    let mut buffer = [[0; EVENT_SIZE]; 64];
    let mut rung: Option<Instant> = None;
    while start.elapsed() < LIMIT {
        if rung.is_none_or(|rung| rung.elapsed() > AGAIN) {
            device.inject(0)?;
            rung = Some(Instant::now());
        }
        while let Some(mut events) = device.read(&mut buffer)? {
            if events.any(|event| event.source == SOURCE_DOORBELL) {
                return Ok(());
            }
        }
        thread::sleep(PAUSE);
    }
    Err(Trouble::Late {
        what: "a device that came back gave no event for a doorbell",
        limit: LIMIT,
    })
}
