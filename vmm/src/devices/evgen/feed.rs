// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What devices tell of the events they make, on its way to whoever wants to know.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use lockstorm_device_model::Made;
use vmm_sys_util::eventfd::EventFd;

/// Events kept for a reader that does not fetch them.
const KEPT: usize = 16_384;

/// An event that a device made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The device.
    pub device: usize,
    /// The event.
    pub made: Made,
    /// Events of the same device before it that were not kept.
    pub lost: u64,
}

/// The way from all devices to one reader. It holds up nobody: what the reader does not fetch in
/// time is counted and not kept.
///
/// The lock covers the events on their way. Devices take it inside their own lock, the reader with
/// none held; nothing is locked inside it.
pub struct Feed {
    queue: Mutex<Queue>,
    ready: EventFd,
}

#[derive(Default)]
struct Queue {
    events: Vec<Observed>,
    /// By device, events that were not kept since the last one that was.
    lost: BTreeMap<usize, u64>,
}

impl Feed {
    /// A feed without events.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::default(),
            ready: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
        })
    }

    /// Adds what `device` made, and that it made `lost` more after that.
    pub(super) fn push(&self, device: usize, made: Vec<Made>, lost: u64) {
        if made.is_empty() && lost == 0 {
            return;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.events.is_empty();
        let mut left_out = queue.lost.remove(&device).unwrap_or(0);
        for made in made {
            if queue.events.len() < KEPT {
                let lost = std::mem::take(&mut left_out);
                queue.events.push(Observed { device, made, lost });
            } else {
                left_out += 1;
            }
        }
        left_out = left_out.saturating_add(lost);
        if left_out > 0 {
            queue.lost.insert(device, left_out);
        }
        if was_empty && !queue.events.is_empty() {
            // A full counter is the only error there can be, and that is ready too.
            let _ = self.ready.write(1);
        }
    }

    /// Forgets what `device` has told: nobody wants it any more, and whoever does next is not to hear
    /// that it lost events which it never asked for.
    pub(super) fn forget(&self, device: usize) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.events.retain(|observed| observed.device != device);
        queue.lost.remove(&device);
    }

    /// Takes all events there are, oldest first.
    pub fn take(&self) -> Vec<Observed> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut queue.events)
    }

    /// Readable when there are events. The reader reads it, and then takes them.
    pub fn ready(&self) -> &EventFd {
        &self.ready
    }
}

#[cfg(test)]
mod tests {
    use lockstorm_device_model::abi::event::{Event, PAYLOAD_SIZE};
    use lockstorm_device_model::{Fate, FaultSet};

    use super::*;

    fn made(sequence: u64) -> Made {
        Made {
            event: Event {
                sequence,
                timestamp: 0,
                source: 0,
                kind: 0,
                ring: 0,
                flags: 0,
                payload: [0; PAYLOAD_SIZE],
            },
            fate: Fate::Delivered,
            faults: FaultSet::NONE,
            storm_offset: None,
        }
    }

    #[test]
    fn what_is_not_fetched_is_bounded_and_counted_by_device() {
        let feed = Feed::new().unwrap();
        feed.push(0, (0..KEPT as u64).map(made).collect(), 0);
        feed.push(1, vec![made(7)], 2);
        feed.push(0, vec![made(8), made(9)], 0);
        assert_eq!(feed.take().len(), KEPT);
        feed.push(0, vec![made(10), made(11)], 0);
        feed.push(2, vec![made(1)], 5);
        feed.push(1, vec![made(12)], 0);
        let lost: Vec<_> = feed
            .take()
            .iter()
            .map(|observed| (observed.device, observed.made.event.sequence, observed.lost))
            .collect();
        assert_eq!(lost, [(0, 10, 2), (0, 11, 0), (2, 1, 0), (1, 12, 3)]);
    }

    #[test]
    fn what_is_forgotten_is_neither_told_nor_lost() {
        let feed = Feed::new().unwrap();
        feed.push(0, (0..KEPT as u64 - 1).map(made).collect(), 3);
        feed.push(1, vec![made(7), made(8)], 0);
        feed.forget(0);
        let told = feed.take();
        assert_eq!((told.len(), told[0].device), (1, 1));
        feed.push(0, vec![made(9)], 0);
        feed.push(1, vec![made(9)], 0);
        let lost: Vec<_> = feed.take().iter().map(|observed| observed.lost).collect();
        assert_eq!(lost, [0, 1]);
    }

    #[test]
    fn the_reader_is_told_when_there_is_something_to_read() {
        let feed = Feed::new().unwrap();
        feed.push(0, vec![], 0);
        assert!(feed.ready().read().is_err());
        feed.push(0, vec![made(1)], 0);
        feed.push(0, vec![made(2)], 0);
        assert!(feed.ready().read().is_ok() && feed.ready().read().is_err());
        assert_eq!(feed.take().len(), 2);
        feed.push(0, vec![made(3)], 0);
        assert!(feed.ready().read().is_ok());
    }
}
