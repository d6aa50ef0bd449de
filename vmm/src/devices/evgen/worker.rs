// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The thread that serves doorbells and storms of all devices.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::error;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::function::EvgenFunction;
use crate::machine::clock::Clock;
use crate::machine::events::{Event, Events};

/// What epoll says of the eventfd that stops the worker; those of a device say its index.
const WAKE: u64 = u64::MAX;
/// What epoll says of the timer.
const TIMER: u64 = u64::MAX - 1;

/// How others reach the worker.
struct Signal {
    wake: EventFd,
    stop: AtomicBool,
}

/// The running worker.
///
/// The lock covers the handle of the thread. Whoever stops the worker takes it and holds it until the
/// thread has ended, so the thread must not; nothing is locked inside it.
pub(super) struct Worker {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// Starts the thread. `events` is told if it cannot go on, as nothing is served then.
    pub(super) fn start(
        functions: Vec<Arc<EvgenFunction>>,
        clock: &Clock,
        events: Events,
    ) -> io::Result<Self> {
        let signal = Arc::new(Signal {
            wake: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
            stop: AtomicBool::new(false),
        });
        let mut service = Service::new(functions, Arc::clone(&signal), clock)?;
        let thread = std::thread::Builder::new()
            .name("evgen".to_owned())
            .spawn(move || service.run(&events))?;
        Ok(Self {
            signal,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Has the worker look at the clock again, which goes on after it stood still.
    pub(super) fn wake(&self) {
        // A full counter is the only error there can be, and that wakes too.
        let _ = self.signal.wake.write(1);
    }

    /// Ends the thread; when this returns it touches nothing any more.
    pub(super) fn stop(&self) {
        self.signal.stop.store(true, Ordering::Release);
        self.wake();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the thread that serves doorbells and storms has panicked");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A device and when it wants to be called.
struct Client {
    function: Arc<EvgenFunction>,
    due: Option<u64>,
}

/// The thread's own.
struct Service {
    clients: Vec<Client>,
    signal: Arc<Signal>,
    epoll: Epoll,
    timer: TimerFd,
    clock: Clock,
}

impl Service {
    fn new(
        functions: Vec<Arc<EvgenFunction>>,
        signal: Arc<Signal>,
        clock: &Clock,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let timer = TimerFd::new()?;
        let watch = |fd, data| {
            let event = EpollEvent::new(EventSet::IN, data);
            epoll.ctl(ControlOperation::Add, fd, event)
        };
        watch(signal.wake.as_raw_fd(), WAKE)?;
        watch(timer.as_raw_fd(), TIMER)?;
        for (index, function) in (0..).zip(&functions) {
            for fd in function.worker_fds() {
                watch(fd, index)?;
            }
        }
        let clients = functions.into_iter();
        Ok(Self {
            clients: clients
                .map(|function| Client {
                    function,
                    due: None,
                })
                .collect(),
            signal,
            epoll,
            timer,
            clock: clock.clone(),
        })
    }

    fn run(&mut self, events: &Events) {
        if let Err(error) = self.serve() {
            events.send(Event::HostFault(format!(
                "doorbells and storms are not served any more: {error}"
            )));
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 32];
        let mut late = false;
        loop {
            let timeout = if late { 0 } else { -1 };
            let count = match self.epoll.wait(timeout, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                result => result?,
            };
            if self.signal.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            let now = self.now();
            for event in &events[..count] {
                self.make_due(event.data(), now)?;
            }
            for client in &mut self.clients {
                if client.due.is_some_and(|due| due <= now) {
                    client.due = client.function.advance();
                }
            }
            late = self.arm()?;
        }
    }

    fn make_due(&mut self, data: u64, now: u64) -> io::Result<()> {
        match data {
            // Those that are due are found by looking at all.
            TIMER => drop(self.timer.wait()?),
            WAKE => drop(self.signal.wake.read()?),
            device => {
                if let Some(client) = self.clients.get_mut(device as usize) {
                    client.due = Some(now);
                }
            }
        }
        Ok(())
    }

    /// Sets the timer to what is due next; true if something is due already. While the clock stands
    /// still nothing becomes due, and whoever starts it wakes the worker.
    fn arm(&mut self) -> io::Result<bool> {
        let due = self.clients.iter().filter_map(|client| client.due).min();
        let Some(due) = due.filter(|_| !self.clock.is_stopped()) else {
            self.timer.clear()?;
            return Ok(false);
        };
        let left = due.saturating_sub(self.now());
        if left > 0 {
            self.timer.reset(Duration::from_nanos(left), None)?;
        }
        Ok(left == 0)
    }

    fn now(&self) -> u64 {
        self.clock.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_cannot_go_on_ends_the_run() {
        let signal = Arc::new(Signal {
            wake: EventFd::new(libc::EFD_NONBLOCK).unwrap(),
            stop: AtomicBool::new(false),
        });
        let clock = Clock::new(std::time::Instant::now());
        let mut service = Service::new(Vec::new(), Arc::clone(&signal), &clock).unwrap();
        // SAFETY: both are open; what `epoll` was goes, and nothing else refers to it.
        let result = unsafe { libc::dup2(signal.wake.as_raw_fd(), service.epoll.as_raw_fd()) };
        assert!(result >= 0);
        let (events, inbox) = Events::channel();
        service.run(&events);
        let event = inbox.try_recv();
        assert!(matches!(event, Ok(Event::HostFault(_))), "{event:?}");
    }
}
