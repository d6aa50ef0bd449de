// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A call of the driver that is to sleep, in a thread of its own.

use std::fs;
use std::io::ErrorKind;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use evgen_stress::ktap::Wrong;
use rustix::thread::{Pid, gettid};

use crate::bench::{Failure, PATIENCE, cannot, wait_until};
use crate::signals::{Signal, handled};

/// The system calls in which a driver can let a program sleep.
const CALLS: [i64; 6] = [
    libc::SYS_read,
    libc::SYS_ioctl,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
];

/// A thread that makes a call.
pub struct Sleeper<T> {
    what: &'static str,
    thread: Pid,
    answer: Receiver<T>,
}

impl<T: Send + 'static> Sleeper<T> {
    /// Starts a thread that makes `call`.
    pub fn start(
        what: &'static str,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self, Failure> {
        let (tell_thread, thread) = mpsc::channel();
        let (tell_answer, answer) = mpsc::channel();
        thread::Builder::new()
            .spawn(move || {
                // If nobody listens any more, the check has failed already.
                let _ = tell_thread.send(gettid());
                let _ = tell_answer.send(call());
            })
            .map_err(cannot("start a thread"))?;
        let thread = thread
            .recv()
            .map_err(|_| Wrong(format!("{what}: its thread ended")))?;
        Ok(Self {
            what,
            thread,
            answer,
        })
    }

    /// Starts a thread that makes `call`, and waits until it sleeps there.
    pub fn asleep(
        what: &'static str,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Self, Failure> {
        let sleeper = Self::start(what, call)?;
        sleeper.wait_until_asleep()?;
        Ok(sleeper)
    }

    /// Waits until it sleeps in its call.
    pub fn wait_until_asleep(&self) -> Result<(), Failure> {
        wait_until(&format!("{} sleeps", self.what), || self.sleeps())
    }

    /// Whether it sleeps in its call.
    pub fn sleeps(&self) -> Result<bool, Failure> {
        let path = format!("/proc/self/task/{}/syscall", self.thread);
        match fs::read_to_string(path) {
            Ok(text) => {
                let number = text.split(' ').next().unwrap_or_default();
                Ok(number.parse().is_ok_and(|number| CALLS.contains(&number)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(cannot("see where a thread is")(error)),
        }
    }

    /// Sends it a signal, and waits until that is handled.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let before = handled();
        signal.send(self.thread).map_err(cannot("send a signal"))?;
        wait_until(&format!("{} takes a signal", self.what), || {
            Ok(handled() > before)
        })
    }

    /// Sends it a signal, if it has not ended yet.
    pub fn send(&self, signal: Signal) -> Result<(), Failure> {
        match signal.send(self.thread) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            sent => sent.map_err(cannot("send a signal")),
        }
    }

    /// What its call gave, for which this waits.
    pub fn answer(&self) -> Result<T, Failure> {
        self.answer.recv_timeout(PATIENCE).map_err(|error| {
            let how = match error {
                RecvTimeoutError::Timeout => "does not come back",
                RecvTimeoutError::Disconnected => "died",
            };
            Wrong(format!("{} {how}", self.what)).into()
        })
    }
}
