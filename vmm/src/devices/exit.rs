// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The exit device: how a guest says with which status the run ends, and how far it has come.
//!
//! | offset | write |
//! |---|---|
//! | 0 | one byte: the run ends with it as its status |
//! | 1 | one ASCII character of the timeline; a newline ends the name of a mark |
//!
//! Both read as ones, like ports where nothing is.

use std::sync::{Mutex, PoisonError};

use crate::machine::bus::{BusDevice, Outcome, Stop};
use crate::machine::clock::Clock;
use crate::machine::events::{Event, Events};

/// Longer names are cut off here.
const NAME_MAX: usize = 32;
/// Marks beyond are ignored.
const MARKS_MAX: usize = 64;

/// The device. Its lock covers the name that is being written and the number of marks; it is taken
/// on vCPU threads and a leaf: nothing is locked inside it.
pub struct ExitDevice {
    clock: Clock,
    events: Events,
    timeline: Mutex<Timeline>,
}

#[derive(Default)]
struct Timeline {
    name: String,
    marks: usize,
}

impl ExitDevice {
    /// A device whose marks have the time of `clock` and are told to `events`.
    pub fn new(clock: Clock, events: Events) -> Self {
        Self {
            clock,
            events,
            timeline: Mutex::default(),
        }
    }
}

impl BusDevice for ExitDevice {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        match (offset, data) {
            (0, &[status]) => return Outcome::Stop(Stop::Exit(status)),
            (1, &[character]) => {
                let mut timeline = self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(name) = timeline.take(character) {
                    self.events.send(Event::Mark {
                        name,
                        at: self.clock.elapsed(),
                    });
                }
            }
            _ => {}
        }
        Outcome::Done
    }
}

impl Timeline {
    /// Takes a character; returns a mark's name when that ends it.
    fn take(&mut self, character: u8) -> Option<String> {
        if character != b'\n' {
            if self.name.len() < NAME_MAX && (character == b' ' || character.is_ascii_graphic()) {
                self.name.push(char::from(character));
            }
            return None;
        }
        let name = std::mem::take(&mut self.name);
        if name.is_empty() || self.marks == MARKS_MAX {
            return None;
        }
        self.marks += 1;
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn device() -> (ExitDevice, std::sync::mpsc::Receiver<Event>) {
        let (events, receiver) = Events::channel();
        (
            ExitDevice::new(Clock::new(Instant::now()), events),
            receiver,
        )
    }

    fn names(receiver: &std::sync::mpsc::Receiver<Event>) -> Vec<String> {
        let name = |event| match event {
            Event::Mark { name, .. } => name,
            other => panic!("{other:?}"),
        };
        receiver.try_iter().map(name).collect()
    }

    #[test]
    fn only_one_byte_at_offset_0_ends_the_run() {
        let (device, _receiver) = device();
        assert_eq!(device.write(0, &[42]), Outcome::Stop(Stop::Exit(42)));
        for (offset, data) in [
            (0, &[1, 0][..]),
            (0, &[]),
            (1, &[1]),
            (1, &[1, 2]),
            (7, &[1]),
        ] {
            assert_eq!(device.write(offset, data), Outcome::Done);
        }
    }

    #[test]
    fn marks_are_bounded_in_length_content_and_number() {
        let (device, receiver) = device();
        let write = |text: &[u8]| {
            for byte in text {
                assert_eq!(device.write(1, &[*byte]), Outcome::Done);
            }
        };
        write(b"init\n\n\ndri");
        assert_eq!(names(&receiver), ["init"]);
        write(b"ver\n\x1b[31m\xff\0x\n");
        assert_eq!(names(&receiver), ["driver", "[31mx"]);
        write(&[b'a'; 1000]);
        write(b"\n");
        assert_eq!(names(&receiver), ["a".repeat(NAME_MAX)]);
        for _ in 0..1000 {
            write(b"again\n");
        }
        assert_eq!(names(&receiver).len(), MARKS_MAX - 4);
    }
}
