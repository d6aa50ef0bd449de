// SPDX-License-Identifier: Apache-2.0 OR MIT

use evgen_uapi::SOURCE_STORM;

use super::*;
use crate::example::{Row, Run, check, laws, records, take};
use crate::verdict::FaultFigures;

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
        "a reset that was not noticed, because a program asked for another",
        |run| {
            run.evidence.injected.resets = 1;
            run.evidence.after.faults.self_resets = 0;
        },
        &[],
    ),
    (
        "a ring that was given up",
        |run| run.evidence.after.faults.rings_lost = 1,
        &[(Law::Alive, None)],
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
        "a doorbell that a device did not hear which was busy, and hung",
        |run| {
            run.evidence.injected.rung[1] = 20;
            let after = &mut run.evidence.after;
            (after.came_about[STUCK_BUSY], after.came_about[HANG]) = (1, 1);
            (after.faults.stuck_busy, after.faults.hangs) = (1, 1);
        },
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
fn what_goes_wrong_breaks_its_laws_and_no_others() {
    check(FAULTY, Run::faulty);
}

#[test]
fn nothing_is_noticed_without_faults() {
    for (happen, law) in [
        (
            (|faults| faults.device_restarts = 1) as fn(&mut FaultCounters),
            Law::Justified,
        ),
        (|faults| faults.lost_interrupts = 1, Law::Justified),
        (|faults| faults.hangs = 1, Law::Justified),
        (|faults| faults.stuck_busy = 1, Law::Justified),
        (|faults| faults.unreachable = 1, Law::Justified),
    ] {
        let mut run = Run::good();
        happen(&mut run.evidence.after.faults);
        assert!(laws(&run.judge()).contains(&(law, None)));
    }
}

/// A late one is no fault, and a lost one is what came about.
#[test]
fn the_watchdog_may_find_less_than_the_handlers() {
    for (lost, interrupts, came_about, holds) in
        [(2, 2, 0, true), (3, 2, 0, false), (3, 2, 1, true)]
    {
        let mut run = Run::good();
        let after = &mut run.evidence.after;
        after.faults.lost_interrupts = lost;
        after.interrupts = interrupts;
        after.came_about[LOST_INTERRUPT] = came_about;
        assert_eq!(laws(&run.judge()).is_empty(), holds, "{lost} {interrupts}");
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
