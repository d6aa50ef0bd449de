// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The thread that serves doorbells and storms of all devices.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::error;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::function::EvgenFunction;
use crate::machine::clock::Clock;
use crate::machine::events::{Event, Events};

/// What epoll says of the eventfd that wakes the worker; those of a device say its number.
const WAKE: u64 = u64::MAX;
/// What epoll says of the timer.
const TIMER: u64 = u64::MAX - 1;

/// How others reach the worker.
///
/// `arrivals` covers the devices that it does not know yet. Whoever adds one takes it, and the worker
/// when it is woken; nothing is locked inside it.
struct Signal {
    wake: Arc<EventFd>,
    stop: AtomicBool,
    epoll: Epoll,
    arrivals: Mutex<Vec<Arc<EvgenFunction>>>,
}

impl Signal {
    fn new(wake: Arc<EventFd>) -> io::Result<Self> {
        let signal = Self {
            wake,
            stop: AtomicBool::new(false),
            epoll: Epoll::new()?,
            arrivals: Mutex::default(),
        };
        signal.watch(signal.wake.as_raw_fd(), WAKE)?;
        Ok(signal)
    }

    /// Has the worker be woken by `fd`, until that is closed.
    fn watch(&self, fd: RawFd, data: u64) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN, data);
        self.epoll.ctl(ControlOperation::Add, fd, event)
    }

    fn arrivals(&self) -> MutexGuard<'_, Vec<Arc<EvgenFunction>>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// Starts the thread, which has no device to serve yet and is woken by `wake`. `events` is told
    /// if it cannot go on, as nothing is served then.
    pub(super) fn start(wake: Arc<EventFd>, clock: &Clock, events: Events) -> io::Result<Self> {
        let signal = Arc::new(Signal::new(wake)?);
        let mut service = Service::new(Arc::clone(&signal), clock)?;
        let thread = std::thread::Builder::new()
            .name("evgen".to_owned())
            .spawn(move || service.run(&events))?;
        Ok(Self {
            signal,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Has the worker serve `function`, until that is gone.
    pub(super) fn serve(&self, function: Arc<EvgenFunction>) -> io::Result<()> {
        for fd in function.worker_fds() {
            self.signal.watch(fd, function.number() as u64)?;
        }
        self.signal.arrivals().push(function);
        self.wake();
        Ok(())
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
    /// By number.
    clients: BTreeMap<u64, Client>,
    signal: Arc<Signal>,
    timer: TimerFd,
    clock: Clock,
}

impl Service {
    fn new(signal: Arc<Signal>, clock: &Clock) -> io::Result<Self> {
        let timer = TimerFd::new()?;
        signal.watch(timer.as_raw_fd(), TIMER)?;
        Ok(Self {
            clients: BTreeMap::new(),
            signal,
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
            let count = match self.signal.epoll.wait(timeout, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                result => result?,
            };
            let now = self.now();
            for event in &events[..count] {
                self.make_due(event.data(), now)?;
            }
            // Not before what woke the worker was read: that may have been an earlier word, and the one
            // that comes with this is then read along with it.
            if self.signal.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            self.clients.retain(|_, client| {
                if client.due.is_none_or(|due| due > now) {
                    return true;
                }
                let next = client.function.advance();
                client.due = next.unwrap_or(None);
                next.is_ok()
            });
            late = self.arm()?;
        }
    }

    fn make_due(&mut self, data: u64, now: u64) -> io::Result<()> {
        match data {
            // Those that are due are found by looking at all.
            TIMER => drop(self.timer.wait()?),
            WAKE => {
                // First, so that whoever wakes the worker from here on does it again.
                self.signal.wake.read()?;
                for function in self.signal.arrivals().drain(..) {
                    let number = function.number() as u64;
                    let due = Some(now);
                    self.clients.insert(number, Client { function, due });
                }
                for client in self.clients.values_mut() {
                    if client.function.take_nudge() {
                        client.due = Some(now);
                    }
                }
            }
            device => {
                if let Some(client) = self.clients.get_mut(&device) {
                    client.due = Some(now);
                }
            }
        }
        Ok(())
    }

    /// Sets the timer to what is due next; true if something is due already. While the clock stands
    /// still nothing becomes due, and whoever starts it wakes the worker.
    fn arm(&mut self) -> io::Result<bool> {
        let due = self.clients.values().filter_map(|client| client.due);
        let due = due.min();
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
        let wake = Arc::new(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        let signal = Arc::new(Signal::new(wake).unwrap());
        let clock = Clock::new(std::time::Instant::now());
        let mut service = Service::new(Arc::clone(&signal), &clock).unwrap();
        // SAFETY: both are open; what `epoll` was goes, and nothing else refers to it.
        let result = unsafe { libc::dup2(signal.wake.as_raw_fd(), signal.epoll.as_raw_fd()) };
        assert!(result >= 0);
        let (events, inbox) = Events::channel();
        service.run(&events);
        let event = inbox.try_recv();
        assert!(matches!(event, Ok(Event::HostFault(_))), "{event:?}");
    }
}
