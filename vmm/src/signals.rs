// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Turns the signals that end a program into events, so that every run ends in the same way.

use std::io;
use std::thread;

use vmm_sys_util::signal::create_sigset;

use crate::machine::events::{Event, Events};

const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Sends the signals to `events` from now on. To be called before there are other threads: they
/// inherit that the signals are blocked.
pub fn watch(events: Events) -> io::Result<()> {
    let set = create_sigset(&ENDING).map_err(io::Error::from)?;
    // SAFETY: `set` is a valid signal set; the old one is not asked for.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            loop {
                let mut signal = 0;
                // SAFETY: both pointers are good for the whole call.
                if unsafe { libc::sigwait(&set, &mut signal) } == 0 {
                    events.send(Event::Signal(signal));
                }
            }
        })?;
    Ok(())
}
