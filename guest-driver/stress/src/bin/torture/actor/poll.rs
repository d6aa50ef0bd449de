// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Pollers: they wait for events without end, so that one who is not woken shows.

use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use evgen_stress::books::Account;
use evgen_stress::device::{Device, Mode, Reading};
use evgen_stress::log::Log;
use evgen_stress::signals::stopped;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::io::Errno;

use super::{AGAIN, Actor, Failure};
use crate::part::By;

impl Actor {
    /// Polls a device, and reads with a buffer of so many bytes.
    pub(super) fn poll(
        &mut self,
        device: usize,
        by: By,
        bytes: usize,
        account: &mut Account,
    ) -> Result<(), Failure> {
        let device = self.open(device, Mode::Nonblocking)?;
        let mut log = Self::log(&device)?;
        let polled = self.poll_until_stopped(&device, by, bytes, &mut log);
        account.logs.push(log);
        polled
    }

    fn poll_until_stopped(
        &mut self,
        device: &Device,
        by: By,
        bytes: usize,
        log: &mut Log,
    ) -> Result<(), Failure> {
        let queue = match by {
            By::Poll => None,
            By::Level => self.watch(device, epoll::EventFlags::IN)?,
            By::Edge => self.watch(device, epoll::EventFlags::IN | epoll::EventFlags::ET)?,
        };
        // Written to, so that no page of it is missing when the driver writes there.
        let mut buffer = vec![1; bytes];
        while !stopped() {
            self.tally.calls += 1;
            match wait(device, queue.as_ref()) {
                Err(Errno::INTR) => {
                    self.tally.interrupted += 1;
                    continue;
                }
                waited => waited.map_err(|error| Failure::own("poll")(error.into()))?,
            }
            // The next edge comes with the next event: until there is none left, it is not waited
            // for.
            loop {
                let reading = self.read_once(device, &mut buffer, log)?;
                if by != By::Edge || reading == Reading::Empty || stopped() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// An epoll queue that watches the device; `None` if told to stop meanwhile.
    fn watch(
        &mut self,
        device: &Device,
        flags: epoll::EventFlags,
    ) -> Result<Option<OwnedFd>, Failure> {
        let failed = |error: Errno| Failure::own("epoll")(io::Error::from(error));
        let queue = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        loop {
            match epoll::add(&queue, device, epoll::EventData::new_u64(0), flags) {
                Ok(()) => return Ok(Some(queue)),
                // What the driver's own calls need may fail to be allocated.
                Err(Errno::NOMEM) => self.tally.refused += 1,
                Err(error) => return Err(failed(error)),
            }
            if stopped() {
                return Ok(None);
            }
            thread::sleep(AGAIN);
        }
    }
}

/// Waits until there is something to read, with `epoll` if there is a queue.
fn wait(device: &Device, queue: Option<&OwnedFd>) -> rustix::io::Result<()> {
    match queue {
        None => poll(&mut [PollFd::new(device, PollFlags::IN)], None).map(drop),
        Some(queue) => {
            let mut events = [epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }];
            epoll::wait(queue, &mut events, None).map(drop)
        }
    }
}
