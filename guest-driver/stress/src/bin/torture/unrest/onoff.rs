// SPDX-License-Identifier: Apache-2.0 OR MIT

//! CPUs go and come.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::io::Errno;

use super::{Pause, cpus};

/// How long the kernel may be busy until a CPU can come again.
const LIMIT: Duration = Duration::from_secs(30);

/// Takes some CPU away and brings it back. How often?
pub fn off_and_on(interval: Duration, mut rng: Rng, pause: &Pause) -> io::Result<u64> {
    let switches = cpus::switches();
    let mut count = 0;
    while pause.wait(interval) {
        let switch = &switches[rng.usize(..switches.len())];
        match fs::write(switch, "0") {
            // As when an interrupt has no place on the others, or a driver is bound to a device.
            Err(error) if is_busy(&error) => continue,
            off => off?,
        }
        pause.wait(interval);
        bring_back(switch)?;
        count += 1;
    }
    Ok(count)
}

fn bring_back(switch: &Path) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match fs::write(switch, "1") {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            back => return back,
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::BUSY)
}
