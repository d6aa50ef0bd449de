// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Stutter: all actors pause at once, wherever they are, and go on at once.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::Pause;

/// Stops the group for `pause` after each `go`. How often?
pub fn stutter(group: Pid, go: Duration, pause: Duration, until: &Pause) -> io::Result<u64> {
    let mut count = 0;
    while until.wait(go) {
        kill_process_group(group, Signal::STOP)?;
        count += 1;
        until.wait(pause);
        kill_process_group(group, Signal::CONT)?;
    }
    Ok(count)
}
