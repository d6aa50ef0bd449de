// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Turns the signals that end a program into events, so that every run ends in the same way.

use std::io;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use vmm_sys_util::signal::create_sigset;

use crate::console::restore_terminal;
use crate::machine::events::{Event, Events};

const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
/// Signals that come this soon after the first are the same one: `timeout`, for one, sends its
/// signal to the program and to its process group.
const REPEATED: Duration = Duration::from_millis(500);

/// Sends the signals to `events` from now on, see [`on_signal`]. A signal while the run is ending
/// because of an earlier one ends the program at once, so that nothing that is stuck can hold it.
pub fn watch(events: Events) -> io::Result<()> {
    let mut first: Option<Instant> = None;
    on_signal(move |signal| {
        if first.is_some_and(|first| first.elapsed() > REPEATED) {
            restore_terminal();
            process::exit(128 + signal);
        }
        first.get_or_insert_with(Instant::now);
        events.send(Event::Signal(signal));
    })
}

/// Calls `action` at each of the signals that end a program, instead of ending it. To be called
/// before there are other threads: they inherit that the signals are blocked.
pub fn on_signal(mut action: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
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
                    action(signal);
                }
            }
        })?;
    Ok(())
}
