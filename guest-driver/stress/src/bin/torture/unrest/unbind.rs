// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Devices go while they are used, and come again. The module cannot go as long as a file is open.

use std::io;
use std::time::{Duration, Instant};

use evgen_stress::function::{Function, Unbound};
use fastrand::Rng;
use rustix::io::Errno;
use rustix::system::delete_module;

use super::Pause;

/// How long a device may be refused when it comes again: its driver may be short of memory.
const LIMIT: Duration = Duration::from_secs(30);

/// Takes some device from the driver and gives it back. How often?
pub fn come_and_go(interval: Duration, mut rng: Rng, pause: &Pause) -> io::Result<u64> {
    let count = Function::count().map_err(io::Error::other)?;
    let mut done = 0;
    while pause.wait(interval) {
        let function = Function::find(rng.usize(..count)).map_err(io::Error::other)?;
        let unbound = function.unbind().map_err(io::Error::other)?;
        try_to_unload()?;
        pause.wait(interval.mul_f64(rng.f64()));
        bind(&unbound)?;
        done += 1;
    }
    Ok(done)
}

fn bind(unbound: &Unbound<'_>) -> io::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match unbound.bind() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            bound => return bound.map_err(io::Error::other),
        }
    }
}

/// The module is in use by whoever plays this.
fn try_to_unload() -> io::Result<()> {
    match delete_module(c"evgen", libc::O_NONBLOCK) {
        Err(Errno::AGAIN | Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Err(io::Error::other("the module was unloaded with a file open")),
    }
}
