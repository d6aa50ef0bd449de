// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The signals that interrupt calls.

use std::io;
use std::mem::MaybeUninit;

/// Ends a call that waits, with `EINTR`.
pub const ENDING: i32 = libc::SIGUSR1;
/// Has a call that waits made again, if it is one that can be.
pub const RESTARTING: i32 = libc::SIGUSR2;

/// Gives both signals a handler that does nothing.
pub fn handle() -> io::Result<()> {
    extern "C" fn nothing(_: i32) {}
    for (signal, flags) in [(ENDING, 0), (RESTARTING, libc::SA_RESTART)] {
        // SAFETY: a struct of integers, and of pointers that may be null.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = nothing as extern "C" fn(i32) as libc::sighandler_t;
        action.sa_flags = flags;
        // SAFETY: the action is valid, and its handler may run at any time, as it does nothing.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
