// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What readers saw: every sequence number of every stream, in little memory.
//!
//! A stream is the events of one source through one ring; its events are numbered from 0.

mod text;

use std::ops::Range;

use evgen_uapi::{MAX_RINGS, NO_RING, Record, SOURCE_DRIVER, SOURCES};

use crate::pattern;

pub use text::ParseError;

/// What one reader saw of one stream.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// Sequence numbers in the order seen, runs of consecutive ones together.
    runs: Vec<Range<u64>>,
    last: Option<u64>,
    disorder: Disorder,
}

/// Sequence numbers that did not rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disorder {
    /// How many there were.
    pub count: u64,
    /// The first of them, and the number before it.
    pub first: Option<(u64, u64)>,
}

impl Stream {
    /// Takes note of events with consecutive numbers.
    fn see(&mut self, numbers: Range<u64>) {
        if let Some(last) = self.last
            && numbers.start <= last
        {
            self.disorder.count += 1;
            self.disorder.first.get_or_insert((last, numbers.start));
        }
        self.last = Some(numbers.start.max(numbers.end - 1));
        match self.runs.last_mut() {
            Some(run) if run.end == numbers.start => run.end = numbers.end,
            _ => self.runs.push(numbers),
        }
    }
}

/// What one reader saw of one device.
#[derive(Clone, Debug)]
pub struct Log {
    rings: usize,
    streams: [[Stream; MAX_RINGS]; SOURCES],
    /// Events of any kind.
    pub events: u64,
    /// Events with a wrong checksum or contents that do not fit [`pattern`]. They are in no stream:
    /// no field of theirs can be trusted.
    pub corrupt: u64,
    /// Events of a source or ring that cannot be. They are in no stream.
    pub strange: u64,
    /// Source and ring of the first strange event.
    pub first_strange: Option<(u16, u16)>,
}

impl Log {
    /// The log of a reader that has seen nothing yet of a device with `rings` rings.
    pub fn new(rings: usize) -> Self {
        Self {
            rings: rings.min(MAX_RINGS),
            streams: Default::default(),
            events: 0,
            corrupt: 0,
            strange: 0,
            first_strange: None,
        }
    }

    /// The log of a reader that starts where these ended, of a device with `rings` rings: none of
    /// their events is in it, but what comes must have higher numbers.
    pub fn continued(rings: usize, logs: &[Self]) -> Self {
        let mut next = Self::new(rings);
        for log in logs {
            for (next, stream) in next
                .streams
                .as_flattened_mut()
                .iter_mut()
                .zip(log.streams.as_flattened())
            {
                next.last = next.last.max(stream.highest());
            }
        }
        next
    }

    /// Takes note of an event.
    pub fn record(&mut self, record: &Record) {
        self.events += 1;
        if !record.intact || !pattern::fits(record) {
            self.corrupt += 1;
            return;
        }
        match self.stream(record) {
            Some(stream) => {
                stream.see(record.sequence..record.sequence.saturating_add(1));
            }
            None => {
                self.strange += 1;
                self.first_strange
                    .get_or_insert((record.source, record.ring));
            }
        }
    }

    fn stream(&mut self, record: &Record) -> Option<&mut Stream> {
        let ring = match (record.source, record.ring) {
            (SOURCE_DRIVER, NO_RING) => 0,
            (SOURCE_DRIVER, _) => return None,
            (_, ring) if usize::from(ring) < self.rings => usize::from(ring),
            _ => return None,
        };
        self.streams
            .get_mut(usize::from(record.source))?
            .get_mut(ring)
    }
}

impl Stream {
    fn highest(&self) -> Option<u64> {
        self.runs
            .iter()
            .map(|run| run.end - 1)
            .chain(self.last)
            .max()
    }
}

/// What all readers together saw of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Different events.
    pub distinct: u64,
    /// Events seen once more.
    pub duplicates: u64,
    /// Number of the first event seen once more.
    pub first_duplicate: Option<u64>,
    /// One more than the highest number.
    pub end: u64,
    /// Numbers that did not rise for the reader that saw them.
    pub disorder: Disorder,
}

/// What the readers with these logs saw of the stream of `source` through `ring` (0 for
/// [`SOURCE_DRIVER`]).
pub fn seen(logs: &[Log], source: u16, ring: usize) -> Seen {
    let streams = || {
        logs.iter()
            .filter_map(move |log| log.streams.get(usize::from(source))?.get(ring))
    };
    let mut runs: Vec<_> = streams().flat_map(|stream| &stream.runs).collect();
    runs.sort_unstable_by_key(|run| (run.start, run.end));

    let mut seen = Seen::default();
    for run in runs {
        let new = run.start.max(seen.end)..run.end.max(seen.end);
        let again = (run.end - run.start) - (new.end - new.start);
        seen.distinct += new.end - new.start;
        seen.duplicates += again;
        if again > 0 {
            seen.first_duplicate.get_or_insert(run.start);
        }
        seen.end = new.end;
    }
    for stream in streams() {
        seen.disorder.count += stream.disorder.count;
        seen.disorder.first = seen.disorder.first.or(stream.disorder.first);
    }
    seen
}

#[cfg(test)]
mod tests {
    use evgen_uapi::{AddEvent, SOURCE_STORM};

    use super::*;

    fn record(source: u16, ring: u16, sequence: u64) -> Record {
        let AddEvent { kind, payload, .. } = pattern::added(1, sequence);
        Record {
            sequence,
            timestamp: 0,
            source,
            kind,
            ring,
            flags: 0,
            payload,
            intact: true,
        }
    }

    fn log(sequences: &[u64]) -> Log {
        let mut log = Log::new(2);
        for &sequence in sequences {
            log.record(&record(SOURCE_STORM, 1, sequence));
        }
        log
    }

    #[test]
    fn readers_add_up() {
        type Row = (
            &'static [&'static [u64]],
            u64,
            Option<u64>,
            u64,
            Option<(u64, u64)>,
        );
        let table: &[Row] = &[
            (&[], 0, None, 0, None),
            (&[&[]], 0, None, 0, None),
            (&[&[0, 1, 2, 3]], 4, None, 4, None),
            (&[&[2, 3, 7]], 3, None, 8, None),
            (&[&[0, 3, 4], &[1, 2, 5]], 6, None, 6, None),
            (&[&[5, 6], &[0, 1]], 4, None, 7, None),
            (&[&[0, 1, 1, 2]], 3, Some(1), 3, Some((1, 1))),
            (&[&[0, 2, 1, 3]], 4, None, 4, Some((2, 1))),
            (&[&[0, 1, 2, 3, 4], &[2, 3]], 5, Some(2), 5, None),
            (&[&[0, 1, 2], &[2, 3]], 4, Some(2), 4, None),
        ];
        for &(readers, distinct, first_duplicate, end, first) in table {
            let logs: Vec<_> = readers.iter().map(|sequences| log(sequences)).collect();
            let events: u64 = logs.iter().map(|log| log.events).sum();
            let expected = Seen {
                distinct,
                duplicates: events - distinct,
                first_duplicate,
                end,
                disorder: Disorder {
                    count: first.is_some().into(),
                    first,
                },
            };
            assert_eq!(seen(&logs, SOURCE_STORM, 1), expected, "{readers:?}");
            assert_eq!(seen(&logs, SOURCE_STORM, 0), Seen::default());
        }
    }

    #[test]
    fn what_cannot_be_is_strange() {
        for (source, ring, strange) in [
            (SOURCE_STORM, 1, false),
            (SOURCE_STORM, 2, true),
            (SOURCE_STORM, NO_RING, true),
            (SOURCE_DRIVER, NO_RING, false),
            (SOURCE_DRIVER, 0, true),
            (4, 0, true),
            (u16::MAX, 0, true),
        ] {
            let mut log = Log::new(2);
            log.record(&record(source, ring, 0));
            assert_eq!(log.first_strange, strange.then_some((source, ring)));
            assert_eq!((log.events, log.strange), (1, strange.into()));
        }
    }

    #[test]
    fn a_corrupt_event_is_in_no_stream() {
        let storm = record(SOURCE_STORM, 0, 99);
        let added = record(SOURCE_DRIVER, NO_RING, 99);
        for corrupt in [
            Record {
                intact: false,
                ..storm
            },
            Record {
                intact: false,
                ..added
            },
            Record { kind: 0, ..added },
        ] {
            let mut log = Log::new(1);
            log.record(&corrupt);
            assert_eq!((log.events, log.corrupt), (1, 1), "{corrupt:?}");
            assert_eq!(seen(&[log], corrupt.source, 0), Seen::default());
        }
    }

    #[test]
    fn a_continued_log_takes_higher_numbers_only() {
        let mut first = log(&[0, 1, 2]);
        // A program may have added anything before.
        first.record(&Record {
            kind: 7,
            ..record(SOURCE_DRIVER, NO_RING, 0)
        });
        assert_eq!(first.corrupt, 1);
        let mut next = Log::continued(2, &[first, log(&[0])]);
        next.record(&record(SOURCE_STORM, 1, 2));
        next.record(&record(SOURCE_STORM, 1, 3));
        assert_eq!((next.events, next.corrupt), (2, 0));
        let continued = Log::continued(2, std::slice::from_ref(&next));
        let seen = seen(&[continued, next], SOURCE_STORM, 1);
        assert_eq!((seen.distinct, seen.disorder.first), (2, Some((2, 2))));
    }
}
