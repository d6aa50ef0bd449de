// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Interrupts to a client: by an eventfd of its for each vector, or by message.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::{c_int, c_void, siginfo_t};
use lockstorm_device_model::{MsiMessage, MsiSink};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::warn;
use vmm_sys_util::errno;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::messages::{Messages, Unasked};
use crate::rate_limit::Occurrences;

/// How a device's interrupts go to its client.
#[derive(Clone)]
pub enum Interrupts {
    /// The client knows of MSI-X, keeps the table that the guest sees, and has an eventfd for each
    /// vector.
    Eventfds(Arc<Eventfds>),
    /// The client does not know of MSI-X. The device does all of it, and its messages go by the
    /// connection.
    Messages(Arc<Messages>),
}

impl Interrupts {
    /// Whether the client is not to know of MSI-X.
    pub(super) fn hide_msix(&self) -> bool {
        matches!(self, Self::Messages(_))
    }

    /// The client has answered a message.
    pub(super) fn answered(&self) -> Result<(), Unasked> {
        match self {
            Self::Messages(messages) => messages.answered(),
            Self::Eventfds(_) => Err(Unasked),
        }
    }

    /// See [`Eventfds::give`].
    pub(super) fn give(&self, first: u16, eventfds: Vec<OwnedFd>) {
        if let Self::Eventfds(known) = self {
            known.give(first, eventfds);
        }
    }

    /// See [`Eventfds::keep`].
    pub(super) fn keep(&self, kept: impl Fn(u16) -> bool) {
        if let Self::Eventfds(known) = self {
            known.keep(kept);
        }
    }

    /// See [`Eventfds::signal`].
    pub(super) fn signal(&self, vector: u16) {
        if let Self::Eventfds(known) = self {
            known.signal(vector);
        }
    }
}

/// The vectors of a device that its client has given an eventfd for.
///
/// The lock covers the eventfds. Whoever has the device locked takes it to raise a vector, the
/// client's thread to give and take eventfds; it is a leaf: nothing is locked inside it.
///
/// An eventfd is shared with the client, and so is its flag `O_NONBLOCK`. A client that fills the
/// counter can therefore make a write to it wait, for ever and with the device locked.
/// [`Self::free_writer`] ends such a wait, and that eventfd is not used again.
pub struct Eventfds {
    eventfds: Mutex<BTreeMap<u16, OwnedFd>>,
    lost: Arc<Occurrences>,
    /// The thread that writes to an eventfd just now; 0 if none does.
    writer: AtomicI32,
    /// Interrupts written so far.
    written: AtomicU64,
    /// `written` when somebody was last seen writing.
    seen: AtomicU64,
}

impl Eventfds {
    /// No eventfds yet. Interrupts without one are counted in `lost`.
    pub fn new(lost: Arc<Occurrences>) -> Self {
        Self {
            eventfds: Mutex::default(),
            lost,
            writer: AtomicI32::new(0),
            written: AtomicU64::new(0),
            seen: AtomicU64::new(u64::MAX),
        }
    }

    /// From now on writes to `eventfds` for the vectors from `first` on.
    pub(super) fn give(&self, first: u16, eventfds: Vec<OwnedFd>) {
        // What they replace is closed with nothing locked.
        let mut before = Vec::new();
        for (vector, eventfd) in (first..).zip(eventfds) {
            before.extend(self.lock().insert(vector, eventfd));
        }
    }

    /// Forgets the eventfds of those vectors that are not `kept`.
    pub(super) fn keep(&self, kept: impl Fn(u16) -> bool) {
        let before = std::mem::take(&mut *self.lock());
        let (kept, _gone) = before.into_iter().partition(|(vector, _)| kept(*vector));
        *self.lock() = kept;
    }

    /// Raises a vector. Other than [`MsiSink::raise`] it may be called for any.
    pub(super) fn signal(&self, vector: u16) {
        let mut eventfds = self.lock();
        match eventfds.get(&vector).map(|eventfd| self.write(eventfd)) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                eventfds.remove(&vector);
                self.lose(
                    vector,
                    &format!("its eventfd is not usable any more: {error}"),
                );
            }
            None => self.lose(vector, "the client has given no eventfd for it"),
        }
    }

    /// Has a thread that has been writing since the last call give up. To be called now and then.
    pub(super) fn free_writer(&self) {
        let thread = self.writer.load(Ordering::Acquire);
        let written = self.written.load(Ordering::Acquire);
        if thread == 0 {
            self.seen.store(u64::MAX, Ordering::Relaxed);
        } else if self.seen.swap(written, Ordering::Relaxed) == written {
            // SAFETY: the call takes no memory. If the thread has just gone on, or ended, the
            // signal ends some other call that can be interrupted, or is for nobody.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, SIGRTMIN()) };
        }
    }

    fn write(&self, eventfd: &OwnedFd) -> Result<(), Errno> {
        let mut ready = [PollFd::new(eventfd, PollFlags::OUT)];
        let at_once = Timespec::default();
        // One that is full has been raised often enough.
        if poll(&mut ready, Some(&at_once)) == Ok(0) {
            return Ok(());
        }
        self.write_at_last(eventfd)
    }

    /// Waits if the client has filled the counter in the meantime, and has made the eventfd wait.
    fn write_at_last(&self, eventfd: &OwnedFd) -> Result<(), Errno> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.writer.store(thread, Ordering::Release);
        let result = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
        self.writer.store(0, Ordering::Release);
        self.written.fetch_add(1, Ordering::Release);
        match result {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn lose(&self, vector: u16, why: &str) {
        if let Some(so_far) = self.lost.add() {
            warn!("interrupt of MSI-X vector {vector} lost, {so_far} so far: {why}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, OwnedFd>> {
        self.eventfds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets [`Eventfds::free_writer`] work, in the whole program.
pub(super) fn let_writers_be_freed() -> Result<(), errno::Error> {
    extern "C" fn interrupt(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}
    register_signal_handler(SIGRTMIN(), interrupt)
}

/// Whether a file is an eventfd: writing to anything else might do anything.
pub(super) fn is_eventfd(file: &OwnedFd) -> bool {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .is_ok_and(|name| name.as_os_str() == "anon_inode:[eventfd]")
}

/// Sends a device's interrupts by eventfd. Which message the guest has put into the vector's table
/// entry is the client's business.
pub struct EventfdSink(pub Arc<Eventfds>);

impl MsiSink for EventfdSink {
    fn raise(&mut self, vector: u16, _message: MsiMessage) {
        self.0.signal(vector);
    }

    /// The eventfds stay: the client takes them back when it wants to.
    fn release(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn a_full_eventfd_is_raised_already() {
        let lost = Arc::<Occurrences>::default();
        let eventfds = Eventfds::new(Arc::clone(&lost));
        for flags in [EventfdFlags::NONBLOCK, EventfdFlags::empty()] {
            let full = eventfd(0, flags).unwrap();
            rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
            eventfds.give(3, vec![full]);
            eventfds.signal(3);
        }
        assert_eq!(lost.count(), 0);
        eventfds.signal(4);
        assert_eq!(lost.count(), 1);
    }

    #[test]
    fn a_client_can_hold_up_a_writer_for_a_while_only() {
        let_writers_be_freed().unwrap();
        let eventfds = Eventfds::new(Arc::default());
        let full = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        thread::scope(|scope| {
            let writer = scope.spawn(|| eventfds.write_at_last(&full));
            while !writer.is_finished() {
                eventfds.free_writer();
                thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(writer.join().unwrap(), Err(Errno::INTR));
        });
        // Nobody is freed who gets on.
        let ready = eventfd(0, EventfdFlags::empty()).unwrap();
        for _ in 0..3 {
            assert_eq!(eventfds.write_at_last(&ready), Ok(()));
            eventfds.free_writer();
        }
    }

    #[test]
    fn eventfds_are_known_from_other_files() {
        assert!(is_eventfd(&eventfd(0, EventfdFlags::empty()).unwrap()));
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!is_eventfd(&reader.into()) && !is_eventfd(&writer.into()));
    }
}
