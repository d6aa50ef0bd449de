// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A call of the driver that is to sleep, in a thread of its own.

use std::fs;
use std::io::{self, ErrorKind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use evgen_stress::ktap::Wrong;
use evgen_stress::signals::{self, Interrupted};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::{Pid, gettid};

use crate::bench::{Failure, PATIENCE, cannot, wait_until};
use crate::calls;

/// The system calls in which a driver can let a program sleep.
const CALLS: [i64; 6] = [
    libc::SYS_read,
    libc::SYS_ioctl,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
];

/// Sets up the handlers of the signals that a [`Sleeper`] can be sent.
pub fn handle_signals() -> io::Result<()> {
    for interrupted in [Interrupted::Restarts, Interrupted::Fails] {
        signals::interrupt_on(signal(interrupted), interrupted)?;
    }
    Ok(())
}

fn signal(interrupted: Interrupted) -> Signal {
    match interrupted {
        Interrupted::Restarts => Signal::USR1,
        Interrupted::Fails => Signal::USR2,
    }
}

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
        let text = self.look("syscall")?;
        let number = text.split(' ').next().unwrap_or_default();
        Ok(number.parse().is_ok_and(|number| CALLS.contains(&number)))
    }

    /// What the kernel says of its thread; nothing if that has ended.
    fn look(&self, file: &str) -> Result<String, Failure> {
        let path = format!("/proc/self/task/{}/{file}", self.thread);
        fs::read_to_string(path).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(String::new()),
            _ if error.raw_os_error() == Some(libc::ESRCH) => Ok(String::new()),
            _ => Err(cannot("see what a thread does")(error)),
        })
    }

    /// Sends it a signal, and waits until that is handled.
    pub fn interrupt(&self, interrupted: Interrupted) -> Result<(), Failure> {
        self.send(interrupted)?;
        wait_until(&format!("{} takes a signal", self.what), || {
            let status = self.look("status")?;
            let mut lines = status.lines();
            let pending = lines.find_map(|line| line.strip_prefix("SigPnd:\t"));
            Ok(pending.is_none_or(|mask| mask.bytes().all(|digit| digit == b'0')))
        })
    }

    /// Sends it a signal, if it has not ended yet.
    pub fn send(&self, interrupted: Interrupted) -> Result<(), Failure> {
        match calls::send(signal(interrupted), self.thread) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(cannot("send a signal")(error)),
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
