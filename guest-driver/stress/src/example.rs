// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Runs of which everything is known, for tests of the law.

use std::collections::HashSet;

use evgen_uapi::{
    AddEvent, Counters, NO_RING, Record, SOURCE_DOORBELL, SOURCE_DRIVER, SOURCE_STORM,
};

use crate::faults::{CORRUPT_CHECKSUM, DUPLICATE_EVENT, REORDERED_EVENT, SELF_RESET, UNMAPPED_DMA};
use crate::injected::Injected;
use crate::law::{Evidence, judge};
use crate::log::Log;
use crate::pattern;
use crate::verdict::{Law, Verdict, Violation};

/// A run in which everything happened that may happen, and what two readers got of it.
pub(crate) struct Run {
    pub evidence: Evidence,
    pub readers: [Vec<Record>; 2],
}

/// Intact events with these numbers.
pub(crate) fn records(
    source: u16,
    ring: u16,
    numbers: impl IntoIterator<Item = u64>,
) -> Vec<Record> {
    let record = |sequence| {
        let AddEvent { kind, payload, .. } = match source {
            SOURCE_DRIVER => pattern::added(1, sequence),
            _ => AddEvent::default(),
        };
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
    };
    numbers.into_iter().map(record).collect()
}

impl Run {
    /// Ring 0: storm 0 to 9 with 4 dropped, doorbell 0 to 2, one of them put off. Ring 1: storm 0 to 4 with 0 evicted.
    /// Added: 0 to 3 with 1 evicted.
    pub fn good() -> Self {
        let mut after = Counters {
            rings: 2,
            added: 4,
            added_evicted: 1,
            read: 19,
            ..Counters::default()
        };
        let ring = &mut after.ring[0];
        (ring.generated, ring.delivered, ring.dropped, ring.received) = (13, 12, 1, 12);
        let ring = &mut after.ring[1];
        (ring.generated, ring.delivered, ring.received, ring.evicted) = (5, 5, 5, 1);
        let mut injected = Injected {
            added: 4,
            ..Injected::default()
        };
        (injected.rung[0], injected.deferred[0]) = (2, 1);
        (after.deferred, after.deferred_rung) = (1, 1);
        Self {
            evidence: Evidence {
                device: 0,
                before: Counters {
                    rings: 2,
                    ..Counters::default()
                },
                waiting: 0,
                after,
                readers: 2,
                logs: Vec::new(),
                injected,
                complaints: Vec::new(),
                dead: Vec::new(),
            },
            readers: [
                [
                    records(SOURCE_STORM, 0, [0, 1, 2, 6, 7]),
                    records(SOURCE_DOORBELL, 0, [0, 2]),
                    records(SOURCE_DRIVER, NO_RING, [0, 3]),
                ]
                .concat(),
                [
                    records(SOURCE_STORM, 0, [3, 5, 8, 9]),
                    records(SOURCE_DOORBELL, 0, [1]),
                    records(SOURCE_STORM, 1, [1, 2, 3, 4]),
                    records(SOURCE_DRIVER, NO_RING, [2]),
                ]
                .concat(),
            ],
        }
    }

    /// The good run, and faults on top. Ring 0: storm 10 has a wrong checksum, storm 11 was written
    /// elsewhere, storm 5 comes twice. Ring 1: storm 6 comes before storm 5; storm 7 came twice, and
    /// one of the two was evicted; storm 8 came twice, and both were. Then the device reset itself.
    pub fn faulty() -> Self {
        let mut run = Self::good();
        let after = &mut run.evidence.after;
        let ring = &mut after.ring[0];
        (ring.generated, ring.faulted, ring.bad_checksum) = (15, 2, 2);
        (ring.extra, ring.received, ring.out_of_order) = (1, 13, 1);
        let ring = &mut after.ring[1];
        (ring.generated, ring.delivered, ring.received) = (9, 9, 11);
        (ring.extra, ring.evicted, ring.out_of_order) = (2, 4, 3);
        after.read += 4;
        for (fault, count) in [
            (CORRUPT_CHECKSUM, 1),
            (UNMAPPED_DMA, 1),
            (DUPLICATE_EVENT, 3),
            (REORDERED_EVENT, 1),
            (SELF_RESET, 1),
        ] {
            after.came_about[fault] = count;
        }
        (after.faults.self_resets, after.faults.device_restarts) = (1, 1);
        run.readers[1].insert(1, records(SOURCE_STORM, 0, [5])[0]);
        run.readers[1].extend(records(SOURCE_STORM, 1, [6, 5, 7]));
        run
    }

    /// The same run on a device that had events before.
    pub fn second() -> Self {
        let mut run = Self::good();
        let Evidence { before, after, .. } = &mut run.evidence;
        for (ring, extra) in [(0, 200), (1, 100)] {
            for counters in [&mut *before, &mut *after] {
                let ring = &mut counters.ring[ring];
                ring.generated += extra;
                ring.delivered += extra;
                ring.received += extra;
            }
        }
        for counters in [before, after] {
            counters.added += 100;
            counters.read += 400;
        }
        for record in run.readers.iter_mut().flatten() {
            record.sequence += 100;
        }
        run
    }

    pub fn judge(mut self) -> Verdict {
        for records in &self.readers {
            let mut log = Log::new(2);
            records.iter().for_each(|record| log.record(record));
            self.evidence.logs.push(log);
        }
        judge(&self.evidence)
    }
}

/// Takes an event away from the reader that got it.
pub(crate) fn take(readers: &mut [Vec<Record>], source: u16, ring: u16, sequence: u64) -> Record {
    let wanted =
        |record: &Record| (record.source, record.ring, record.sequence) == (source, ring, sequence);
    let (reader, at) = readers
        .iter()
        .enumerate()
        .find_map(|(reader, records)| Some((reader, records.iter().position(wanted)?)))
        .unwrap();
    readers[reader].remove(at)
}

/// What is done to a run, and which laws that breaks on which ring.
pub(crate) type Row = (&'static str, fn(&mut Run), Laws);
type Laws = &'static [(Law, Option<usize>)];

/// Checks that each row breaks its laws, and no others, on a run like `run`.
pub(crate) fn check(table: &[Row], run: fn() -> Run) {
    for &(what, happen, expected) in table {
        let mut run = run();
        happen(&mut run);
        let expected: HashSet<_> = expected.iter().copied().collect();
        assert_eq!(laws(&run.judge()), expected, "{what}");
    }
}

/// The laws that are broken, and on which ring.
pub(crate) fn laws(verdict: &Verdict) -> HashSet<(Law, Option<usize>)> {
    let law = |violation: &Violation| (violation.law, violation.ring);
    verdict.violations.iter().map(law).collect()
}
