// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The ways to wait for several devices.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use evgen_stress::device::Device;
use evgen_stress::poll::{wait, wait_readable};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFlags, epoll};

use crate::How;

/// Waits for devices.
pub struct Waiter<'devices> {
    devices: &'devices [Device],
    /// `None` for poll, which keeps nothing from one call to the next.
    epoll: Option<OwnedFd>,
}

impl<'devices> Waiter<'devices> {
    pub fn new(how: How, devices: &'devices [Device]) -> io::Result<Self> {
        let flags = match how {
            How::Poll => {
                let epoll = None;
                return Ok(Self { devices, epoll });
            }
            How::Epoll => epoll::EventFlags::IN,
            How::EpollEdge => epoll::EventFlags::IN | epoll::EventFlags::ET,
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (place, device) in (0..).zip(devices) {
            epoll::add(&epoll, device, epoll::EventData::new_u64(place), flags)?;
        }
        let epoll = Some(epoll);
        Ok(Self { devices, epoll })
    }

    /// Waits until there is something to tell of a device, and tells it; nothing if `timeout` passes
    /// first.
    pub fn wait(
        &self,
        timeout: Option<Duration>,
    ) -> io::Result<Vec<(&'devices Device, PollFlags)>> {
        let flags = match &self.epoll {
            None => wait_readable(self.devices, timeout)?,
            Some(epoll) => self.wait_with(epoll, timeout)?,
        };
        let seen = self.devices.iter().zip(flags);
        Ok(seen.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn wait_with(&self, epoll: &OwnedFd, timeout: Option<Duration>) -> io::Result<Vec<PollFlags>> {
        let mut events = Vec::with_capacity(self.devices.len());
        wait(timeout, |timeout| {
            epoll::wait(epoll, spare_capacity(&mut events), timeout)
        })?;
        let mut flags = vec![PollFlags::empty(); self.devices.len()];
        for epoll::Event { data, flags: told } in events {
            let place = usize::try_from(data.u64()).ok();
            // The flags that both have are the same in both.
            let told = PollFlags::from_bits_truncate(told.bits() as u16);
            if let Some(flags) = place.and_then(|place| flags.get_mut(place)) {
                *flags |= told;
            }
        }
        Ok(flags)
    }
}
