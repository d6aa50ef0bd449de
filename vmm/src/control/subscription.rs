// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A client's stream of events: which ones it wants, and how many it missed.

use std::collections::BTreeSet;

use super::reply::EventLine;
use super::request::Events;

/// What a client wants to have of the events that are made.
pub(super) struct Subscription {
    /// All if `None`.
    devices: Option<BTreeSet<usize>>,
    /// Events that it was not given since the last one that it was.
    lost: u64,
}

/// An event, and its line for a client who has missed none.
pub(super) struct Line {
    event: EventLine,
    bytes: Vec<u8>,
}

impl Line {
    pub(super) fn new(event: EventLine) -> Self {
        Self {
            bytes: super::to_line(&event),
            event,
        }
    }
}

impl Subscription {
    /// What a request asks for; `None` if for no events.
    pub(super) fn to(events: Events) -> Option<Self> {
        events.on.then(|| Self {
            devices: events.devices.map(|devices| devices.into_iter().collect()),
            lost: 0,
        })
    }

    /// Whether events of `device` are among those wanted.
    pub(super) fn wants(&self, device: usize) -> bool {
        let devices = self.devices.as_ref();
        devices.is_none_or(|devices| devices.contains(&device))
    }

    /// Hands `line` to `take` if it is wanted. If that says that there is no room for it, the next
    /// line will tell. Gives whether there is something new for the client.
    pub(super) fn offer(&mut self, line: &Line, take: impl FnOnce(&[u8]) -> bool) -> bool {
        if !self.wants(line.event.event.device) {
            return false;
        }
        let taken = if self.lost == 0 {
            take(&line.bytes)
        } else {
            take(&super::to_line(&EventLine {
                lost: self.lost.saturating_add(line.event.lost),
                ..line.event.clone()
            }))
        };
        if taken {
            self.lost = 0;
        } else {
            self.lost = self.lost.saturating_add(line.event.lost).saturating_add(1);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::examples;

    fn line(device: usize, lost: u64) -> Line {
        let mut line = examples::event_line();
        line.event.device = device;
        line.lost = lost;
        Line::new(line)
    }

    fn subscription(devices: Option<Vec<usize>>) -> Subscription {
        Subscription::to(Events { on: true, devices }).unwrap()
    }

    #[test]
    fn what_there_was_no_room_for_is_counted_in_the_next_line() {
        let mut subscription = subscription(None);
        let mut offer = |lost, room| {
            let mut told = None;
            subscription.offer(&line(0, lost), |bytes| {
                let line: EventLine = serde_json::from_slice(bytes).unwrap();
                told = Some(line.lost);
                room
            });
            told.unwrap()
        };
        assert_eq!(offer(0, true), 0);
        assert_eq!(offer(0, false), 0);
        // The device itself had let go of five.
        assert_eq!(offer(5, false), 6);
        assert_eq!(offer(0, true), 7);
        assert_eq!(offer(0, true), 0);
        assert_eq!(offer(3, true), 3);
    }

    #[test]
    fn only_what_is_wanted_is_offered() {
        let mut subscription = subscription(Some(vec![1, 1, 3]));
        for (device, wanted) in [(0, false), (1, true), (2, false), (3, true)] {
            assert_eq!(subscription.wants(device), wanted);
            assert_eq!(subscription.offer(&line(device, 0), |_| true), wanted);
        }
        let off = Events {
            on: false,
            devices: None,
        };
        assert!(Subscription::to(off).is_none());
    }
}
