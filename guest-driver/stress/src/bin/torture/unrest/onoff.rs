// SPDX-License-Identifier: Apache-2.0 OR MIT

//! CPUs go and come.

use std::io;
use std::time::Duration;

use fastrand::Rng;
use rustix::io::Errno;

use super::{Pause, cpus};
use crate::setting::Setting;

/// Takes some CPU away and brings it back. How often?
pub fn off_and_on(interval: Duration, mut rng: Rng, pause: &Pause) -> io::Result<u64> {
    let switches = cpus::switches();
    let mut count = 0;
    while pause.wait(interval) {
        let switch = Setting::keep(&switches[rng.usize(..switches.len())])?;
        match switch.set("0") {
            // As when an interrupt has no place on the others, or it is the last one.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => continue,
            off => off?,
        }
        pause.wait(interval);
        switch.set("1")?;
        count += 1;
    }
    Ok(count)
}
