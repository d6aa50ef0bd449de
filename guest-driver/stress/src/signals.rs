// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Signals that end system calls, and signals that ask a program to end.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

/// What becomes of a system call that a signal interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// It fails with `EINTR`.
    Fails,
    /// The kernel makes it again, if it is one of those that can be.
    Restarts,
}

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Whether a signal that [`stop_on`] was called for has come.
pub fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// From now on `signal` makes [`stopped`] true, and the system call under way fails.
pub fn stop_on(signal: Signal) -> io::Result<()> {
    extern "C" fn stop(_signal: libc::c_int) {
        STOPPED.store(true, Ordering::Relaxed);
    }
    handle(signal, stop, Interrupted::Fails)
}

/// From now on `signal` does nothing but interrupt the system call under way.
pub fn interrupt_on(signal: Signal, interrupted: Interrupted) -> io::Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    handle(signal, nothing, interrupted)
}

fn handle(
    signal: Signal,
    handler: extern "C" fn(libc::c_int),
    interrupted: Interrupted,
) -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros are an action: the default handler, no flags, an empty mask.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    if interrupted == Interrupted::Restarts {
        action.sa_flags = libc::SA_RESTART;
    }
    // SAFETY: the action is valid; both handlers above do at most one atomic store, which is allowed
    // at any moment.
    let result = unsafe { libc::sigaction(signal.as_raw(), action, ptr::null_mut()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
