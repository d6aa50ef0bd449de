// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Signals that interrupt what actors do.

use std::io;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::Pause;

/// Sends signals to one actor or, now and then, to the group that the first one leads. How many?
pub fn interrupt(
    actors: &[Pid],
    interval: Duration,
    mut rng: Rng,
    pause: &Pause,
) -> io::Result<u64> {
    let mut count = 0;
    while pause.wait(interval.mul_f64(2.0 * rng.f64())) {
        let signal = if rng.bool() {
            Signal::USR1
        } else {
            Signal::USR2
        };
        let actor = actors[rng.usize(..actors.len())];
        if rng.u8(..8) == 0 {
            kill_process_group(actors[0], signal)?;
        } else {
            // An actor that gave up is still there to be waited for.
            kill_process(actor, signal)?;
        }
        count += 1;
    }
    Ok(count)
}
