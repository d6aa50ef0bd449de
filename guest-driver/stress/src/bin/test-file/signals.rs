// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Signals for single threads, with handlers.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::getpid;
use rustix::thread::Pid;

/// How many signals were handled.
static HANDLED: AtomicUsize = AtomicUsize::new(0);

/// A signal that has a handler.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// After its handler (`SA_RESTART`) a call that can be made again is.
    Restarts,
    /// After its handler a call ends with `EINTR`.
    Ends,
}

impl Signal {
    fn number(self) -> i32 {
        match self {
            Self::Restarts => libc::SIGUSR1,
            Self::Ends => libc::SIGUSR2,
        }
    }

    fn flags(self) -> i32 {
        match self {
            Self::Restarts => libc::SA_RESTART,
            Self::Ends => 0,
        }
    }

    /// Sends this to a thread of this program.
    pub fn send(self, thread: Pid) -> io::Result<()> {
        let (process, thread) = (getpid().as_raw_pid(), thread.as_raw_pid());
        // SAFETY: the arguments are integers, and the signals have handlers.
        match unsafe { libc::syscall(libc::SYS_tgkill, process, thread, self.number()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// How many signals this program has handled.
pub fn handled() -> usize {
    HANDLED.load(Ordering::SeqCst)
}

/// Sets up the handlers.
pub fn handle() -> io::Result<()> {
    for signal in [Signal::Restarts, Signal::Ends] {
        // SAFETY: all zero, it is an action with an empty mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = count as extern "C" fn(i32) as usize;
        action.sa_flags = signal.flags();
        // SAFETY: the action is valid, and its handler does nothing that a handler must not.
        if unsafe { libc::sigaction(signal.number(), &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn count(_signal: i32) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}
