// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::collections::HashSet;

use evgen_uapi::{AddEvent, FaultCounters, NO_RING, Record};

use super::*;
use crate::faults::{
    CORRUPT_CHECKSUM, DUPLICATE_EVENT, REORDERED_EVENT, SELF_RESET, UNMAPPED_DMA, WILD_INDEX,
};
use crate::pattern;
use crate::verdict::{FaultFigures, Violation};

/// A run in which everything happened that may happen, and what two readers got of it.
struct Run {
    evidence: Evidence,
    readers: [Vec<Record>; 2],
}

fn records(source: u16, ring: u16, numbers: impl IntoIterator<Item = u64>) -> Vec<Record> {
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
    /// Ring 0: storm 0 to 9 with 4 dropped, doorbell 0 to 2. Ring 1: storm 0 to 4 with 0 evicted.
    /// Added: 0 to 3 with 1 evicted.
    fn good() -> Self {
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
        injected.rung[0] = 3;
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
    fn faulty() -> Self {
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
    fn second() -> Self {
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

    fn judge(mut self) -> Verdict {
        for records in &self.readers {
            let mut log = Log::new(2);
            records.iter().for_each(|record| log.record(record));
            self.evidence.logs.push(log);
        }
        judge(&self.evidence)
    }
}

fn take(readers: &mut [Vec<Record>], source: u16, ring: u16, sequence: u64) -> Record {
    let wanted =
        |record: &Record| (record.source, record.ring, record.sequence) == (source, ring, sequence);
    let (reader, at) = readers
        .iter()
        .enumerate()
        .find_map(|(reader, records)| Some((reader, records.iter().position(wanted)?)))
        .unwrap();
    readers[reader].remove(at)
}

type Laws = &'static [(Law, Option<usize>)];
type Row = (&'static str, fn(&mut Run), Laws);

const TABLE: &[Row] = &[
    ("nothing wrong", |_| {}, &[]),
    (
        "withheld: counted as delivered, never written",
        |run| {
            take(&mut run.readers, SOURCE_STORM, 1, 4);
            run.evidence.after.ring[1].received -= 1;
            run.evidence.after.read -= 1;
        },
        &[(Law::Received, Some(1)), (Law::Accounted, Some(1))],
    ),
    (
        "withheld, and at once another one comes twice",
        |run| {
            take(&mut run.readers, SOURCE_STORM, 1, 3);
            run.readers[1].extend(records(SOURCE_STORM, 1, [4]));
        },
        &[
            (Law::Accounted, Some(1)),
            (Law::Rising, Some(1)),
            (Law::Once, Some(1)),
        ],
    ),
    (
        "lost between list and reader",
        |run| {
            take(&mut run.readers, SOURCE_STORM, 0, 9);
        },
        &[(Law::Accounted, Some(0)), (Law::Read, None)],
    ),
    (
        "lost by the driver, which never counted it",
        |run| {
            take(&mut run.readers, SOURCE_STORM, 0, 9);
            run.evidence.after.read -= 1;
        },
        &[(Law::Accounted, Some(0)), (Law::Balanced, None)],
    ),
    (
        "dropped and counted",
        |run| {
            take(&mut run.readers, SOURCE_STORM, 0, 9);
            run.evidence.after.read -= 1;
            let ring = &mut run.evidence.after.ring[0];
            (ring.dropped, ring.delivered, ring.received) = (2, 11, 11);
        },
        &[],
    ),
    (
        "dropped, not counted",
        |run| run.evidence.after.ring[0].dropped = 0,
        &[(Law::Generated, Some(0)), (Law::Accounted, Some(0))],
    ),
    (
        "counted as dropped, yet it came",
        |run| {
            let ring = &mut run.evidence.after.ring[1];
            (ring.dropped, ring.delivered, ring.received) = (1, 4, 4);
            run.evidence.after.read -= 1;
        },
        &[(Law::Accounted, Some(1)), (Law::Read, None)],
    ),
    (
        "evicted and counted",
        |run| {
            take(&mut run.readers, SOURCE_STORM, 1, 1);
            run.evidence.after.read -= 1;
            run.evidence.after.ring[1].evicted += 1;
        },
        &[],
    ),
    (
        "evicted, counted on the wrong ring",
        |run| {
            run.evidence.after.ring[1].evicted = 0;
            run.evidence.after.ring[0].evicted = 1;
        },
        &[(Law::Accounted, Some(0)), (Law::Accounted, Some(1))],
    ),
    (
        "reordered",
        |run| run.readers[1].swap(0, 1),
        &[(Law::Rising, Some(0))],
    ),
    (
        "the same event to two readers",
        |run| {
            run.readers[0].push(run.readers[1][8]);
            run.evidence.after.read += 1;
        },
        &[(Law::Balanced, None), (Law::Once, Some(1))],
    ),
    (
        "corrupted under way",
        |run| run.readers[0][0].intact = false,
        &[(Law::Accounted, Some(0)), (Law::Intact, None)],
    ),
    (
        "corrupted, seen by the driver alone",
        |run| run.evidence.after.ring[0].bad_checksum = 1,
        &[(Law::Intact, Some(0))],
    ),
    (
        "an added event with the kind of another, under a good checksum",
        |run| run.readers[0][8].kind = 0,
        &[(Law::Accounted, None), (Law::Intact, None)],
    ),
    (
        "an added event with a byte cleared, under a good checksum",
        |run| run.readers[0][8].payload[31] = 0,
        &[(Law::Accounted, None), (Law::Intact, None)],
    ),
    (
        "a doorbell event with a kind, under a good checksum",
        |run| run.readers[1][4].kind = 1,
        &[(Law::Accounted, Some(0)), (Law::Intact, None)],
    ),
    (
        "from a ring that does not exist",
        |run| run.readers[0][0].ring = 2,
        &[(Law::Accounted, Some(0)), (Law::Origin, None)],
    ),
    (
        "a number from nowhere",
        |run| run.readers[1][8].sequence = 5,
        &[(Law::Possible, Some(1))],
    ),
    (
        "pending in the end, and right",
        |run| {
            take(&mut run.readers, SOURCE_STORM, 0, 9);
            take(&mut run.readers, SOURCE_DRIVER, NO_RING, 3);
            run.evidence.after.read -= 2;
            run.evidence.after.pending = 2;
        },
        &[],
    ),
    (
        "pending in the end, and one of them lost",
        |run| {
            take(&mut run.readers, SOURCE_STORM, 0, 9);
            run.evidence.after.read -= 2;
            run.evidence.after.pending = 2;
        },
        &[(Law::Read, None), (Law::Accounted, None)],
    ),
    (
        "a reader that was never woken",
        |run| run.evidence.waiting = 1,
        &[(Law::Awake, None)],
    ),
    (
        "an added event lost",
        |run| {
            take(&mut run.readers, SOURCE_DRIVER, NO_RING, 0);
            run.evidence.after.read -= 1;
        },
        &[(Law::Balanced, None), (Law::Accounted, None)],
    ),
    (
        "an added event that was never counted",
        |run| run.evidence.injected.added += 1,
        &[(Law::Added, None)],
    ),
    (
        "a doorbell that made no event",
        |run| run.evidence.injected.rung[0] = 5,
        &[(Law::Doorbells, Some(0))],
    ),
    (
        "a doorbell that may have been dropped",
        |run| run.evidence.injected.rung[0] = 4,
        &[],
    ),
    (
        "a doorbell event that nobody asked for",
        |run| run.evidence.injected.rung[0] = 2,
        &[(Law::Doorbells, Some(0))],
    ),
    (
        "a counter that ran backwards",
        |run| run.evidence.before.ring[1].generated = 300,
        &[(Law::Generated, Some(1)), (Law::Accounted, Some(1))],
    ),
];

/// On top of [`Run::faulty`].
const FAULTY: &[Row] = &[
    ("all of it counted", |_| {}, &[]),
    (
        "a spoiled event that the driver passed on",
        |run| {
            let ring = &mut run.evidence.after.ring[0];
            (ring.bad_checksum, ring.received) = (1, 14);
            run.evidence.after.read += 1;
            let mut spoiled = records(SOURCE_STORM, 0, [10]);
            spoiled[0].intact = false;
            run.readers[0].append(&mut spoiled);
        },
        &[
            (Law::Received, Some(0)),
            (Law::Intact, Some(0)),
            (Law::Intact, None),
        ],
    ),
    (
        "an event thrown away that was not spoiled",
        |run| {
            take(&mut run.readers, SOURCE_STORM, 1, 4);
            let ring = &mut run.evidence.after.ring[1];
            (ring.bad_checksum, ring.received) = (1, 10);
            run.evidence.after.read -= 1;
        },
        &[
            (Law::Received, Some(1)),
            (Law::Accounted, Some(1)),
            (Law::Intact, Some(1)),
        ],
    ),
    (
        "spoiled, by no fault",
        |run| run.evidence.after.came_about[UNMAPPED_DMA] = 0,
        &[(Law::Spoiled, None)],
    ),
    (
        "counted as spoiled, yet it came",
        |run| {
            run.readers[0].extend(records(SOURCE_STORM, 0, [10]));
            run.evidence.after.ring[0].received += 1;
            run.evidence.after.read += 1;
        },
        &[(Law::Received, Some(0)), (Law::Accounted, Some(0))],
    ),
    (
        "a copy that no fault made",
        |run| run.evidence.after.came_about[DUPLICATE_EVENT] = 2,
        &[(Law::Copied, None), (Law::Disordered, None)],
    ),
    (
        "a copy lost between ring and driver",
        |run| {
            run.readers[1].remove(1);
            run.evidence.after.ring[0].received -= 1;
            run.evidence.after.ring[0].out_of_order -= 1;
            run.evidence.after.read -= 1;
        },
        // The event itself is there, so it is not missing.
        &[(Law::Received, Some(0)), (Law::Disordered, None)],
    ),
    (
        "one copy too many",
        |run| {
            run.readers[1].insert(1, records(SOURCE_STORM, 0, [5])[0]);
            run.evidence.after.read += 1;
        },
        &[
            (Law::Balanced, None),
            (Law::Rising, Some(0)),
            (Law::Once, Some(0)),
        ],
    ),
    (
        "an event out of order that no fault put there",
        |run| run.evidence.after.came_about[REORDERED_EVENT] = 0,
        &[(Law::Disordered, None)],
    ),
    (
        "a reset that the driver did not notice",
        |run| {
            let faults = &mut run.evidence.after.faults;
            (faults.self_resets, faults.device_restarts) = (0, 0);
        },
        &[(Law::Noticed, None)],
    ),
    (
        "one reset hidden by another",
        |run| run.evidence.after.came_about[SELF_RESET] = 2,
        &[],
    ),
    (
        "a reset hidden by a hang",
        |run| {
            run.evidence.after.came_about[HANG] = 1;
            run.evidence.after.faults.self_resets = 0;
            run.evidence.after.faults.hangs = 1;
        },
        &[],
    ),
    (
        "a reset noticed that was none",
        |run| run.evidence.after.faults.self_resets = 2,
        &[(Law::Justified, None)],
    ),
    (
        "a reset noticed, and nothing done",
        |run| run.evidence.after.faults.device_restarts = 0,
        &[(Law::Alive, None)],
    ),
    (
        "a wild index noticed that was none",
        |run| run.evidence.after.faults.bad_index = 1,
        &[(Law::Justified, None)],
    ),
    (
        "a wild index that the next event put right",
        |run| run.evidence.after.came_about[WILD_INDEX] = 1,
        &[],
    ),
    (
        "a ring set up anew for nothing",
        |run| run.evidence.after.faults.ring_restarts = 1,
        &[(Law::Justified, None)],
    ),
    (
        "a used element that cannot be",
        |run| run.evidence.after.faults.bad_element = 1,
        &[(Law::Justified, None)],
    ),
    (
        "a doorbell that a device did not hear which was there",
        |run| run.evidence.injected.rung[1] = 20,
        &[(Law::Doorbells, Some(1))],
    ),
    (
        "a doorbell that a device did not hear which was gone",
        |run| {
            run.evidence.injected.rung[1] = 20;
            run.evidence.after.came_about[ALL_ONES] = 1;
            run.evidence.after.faults.unreachable = 1;
        },
        &[],
    ),
    (
        "a ring that died of it",
        |run| run.evidence.dead = vec![1],
        &[(Law::Alive, Some(1))],
    ),
];

#[test]
fn each_fault_breaks_its_laws_and_no_others() {
    let good = TABLE.iter().map(|row| (row, Run::good()));
    let faulty = FAULTY.iter().map(|row| (row, Run::faulty()));
    for (&(fault, happen, expected), mut run) in good.chain(faulty) {
        happen(&mut run);
        let broken = laws(&run.judge());
        let expected: HashSet<_> = expected.iter().copied().collect();
        assert_eq!(broken, expected, "{fault}");
    }
}

#[test]
fn nothing_is_noticed_without_faults() {
    for (happen, law) in [
        (
            (|faults| faults.device_restarts = 1) as fn(&mut FaultCounters),
            Law::Justified,
        ),
        (|faults| faults.hangs = 1, Law::Justified),
        (|faults| faults.stuck_busy = 1, Law::Justified),
        (|faults| faults.unreachable = 1, Law::Justified),
    ] {
        let mut run = Run::good();
        happen(&mut run.evidence.after.faults);
        assert!(laws(&run.judge()).contains(&(law, None)));
    }
}

#[test]
fn faults_are_counted() {
    let verdict = Run::faulty().judge();
    assert_eq!(verdict.unaccounted(), 0);
    let fault = |came_about, noticed| FaultFigures {
        came_about,
        noticed,
    };
    assert_eq!(verdict.faults[DUPLICATE_EVENT], fault(3, Some(4)));
    assert_eq!(verdict.faults[SELF_RESET], fault(1, Some(1)));
    assert_eq!(verdict.faults[HANG], fault(0, Some(0)));
}

#[test]
fn what_came_before_does_not_matter() {
    let verdict = Run::second().judge();
    assert_eq!(laws(&verdict), HashSet::new());
    assert_eq!(
        (verdict.events(), verdict.unaccounted()),
        (Run::good().judge().events(), 0)
    );
}

#[test]
fn unaccounted_events_are_counted() {
    let mut run = Run::good();
    take(&mut run.readers, SOURCE_STORM, 0, 9);
    take(&mut run.readers, SOURCE_STORM, 1, 4);
    take(&mut run.readers, SOURCE_DRIVER, NO_RING, 0);
    assert_eq!(run.judge().unaccounted(), 3);
}

fn laws(verdict: &Verdict) -> HashSet<(Law, Option<usize>)> {
    let law = |violation: &Violation| (violation.law, violation.ring);
    verdict.violations.iter().map(law).collect()
}
