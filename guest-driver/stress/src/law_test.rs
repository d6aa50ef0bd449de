// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::collections::HashSet;

use evgen_uapi::NO_RING;

use super::*;
use crate::example::{Row, Run, check, laws, records, take};

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
        |run| run.evidence.injected.rung[0] = 3,
        &[],
    ),
    (
        "a doorbell event that nobody asked for",
        |run| run.evidence.injected.rung[0] = 1,
        &[(Law::Doorbells, Some(0))],
    ),
    (
        "a doorbell that was put off and forgotten",
        |run| run.evidence.injected.deferred[0] = 2,
        &[(Law::Deferred, None)],
    ),
    (
        "one that was put off for another ring",
        |run| run.evidence.injected.deferred = [0, 1, 0, 0, 0, 0, 0, 0],
        // On ring 1, where an event was evicted, it could have come.
        &[(Law::Doorbells, Some(0))],
    ),
    (
        "one that was put off, counted, and is not rung",
        |run| run.evidence.after.deferred_rung = 0,
        &[(Law::Deferred, None)],
    ),
    (
        "one that is rung twice",
        |run| run.evidence.after.deferred_rung = 2,
        &[(Law::Deferred, None)],
    ),
    (
        "evicted early, as counted",
        |run| run.evidence.after.evicted_early = 2,
        &[],
    ),
    (
        "evicted early more often than at all",
        |run| run.evidence.after.evicted_early = 3,
        &[(Law::Accounted, None)],
    ),
    (
        "a reset that was one",
        |run| {
            run.evidence.injected.resets = 2;
            run.evidence.after.faults.device_restarts = 1;
        },
        &[],
    ),
    (
        "a reset that was none",
        |run| run.evidence.injected.resets = 1,
        &[(Law::Reset, None)],
    ),
    (
        "more resets than were asked for",
        |run| {
            run.evidence.injected.resets = 1;
            run.evidence.after.faults.device_restarts = 2;
        },
        &[(Law::Justified, None)],
    ),
    (
        "an answer that cannot be",
        |run| run.evidence.complaints = vec!["read gave 65 bytes".to_owned()],
        &[(Law::Answered, None)],
    ),
    (
        "a counter that ran backwards",
        |run| run.evidence.before.ring[1].generated = 300,
        &[(Law::Generated, Some(1)), (Law::Accounted, Some(1))],
    ),
];

#[test]
fn what_goes_wrong_breaks_its_laws_and_no_others() {
    check(TABLE, Run::good);
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
