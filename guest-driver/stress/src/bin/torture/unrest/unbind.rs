// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Devices go while they are used, and come again. The module cannot go as long as a file is open.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::module;
use evgen_stress::slot::Slot;
use fastrand::Rng;

use super::Pause;

/// How long a device may be refused when it comes again: it may be busy or gone just then, and the
/// driver short of memory.
const LIMIT: Duration = Duration::from_secs(30);

/// Takes some device from the driver and gives it back. How often?
pub fn come_and_go(interval: Duration, mut rng: Rng, pause: &Pause) -> io::Result<u64> {
    let slots = Slot::all().map_err(io::Error::other)?;
    let mut done = 0;
    while pause.wait(interval) {
        let slot = &slots[rng.usize(..slots.len())];
        slot.unbind().map_err(io::Error::other)?;
        // Those who play this have files open.
        if module::unload().map_err(io::Error::other)? {
            return Err(io::Error::other("the module was unloaded with files open"));
        }
        pause.wait(interval.mul_f64(rng.f64()));
        bind(slot)?;
        done += 1;
    }
    Ok(done)
}

fn bind(slot: &Slot) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match slot.bind() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            bound => return bound.map_err(io::Error::other),
        }
    }
}
