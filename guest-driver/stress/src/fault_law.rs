// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The part of the law that is about faults: each one that the device counts shows where it must,
//! the driver noticed what cannot be overlooked, recovered, and raised no false alarm.

use evgen_uapi::{Counters, FaultCounters};

use crate::faults::{
    ALL_ONES, CORRUPT_CHECKSUM, DUPLICATE_EVENT, HANG, KINDS, LOST_INTERRUPT, REORDERED_EVENT,
    SELF_RESET, STUCK_BUSY, UNMAPPED_DMA, WILD_INDEX,
};
use crate::law::{Evidence, difference};
use crate::thousands::thousands;
use crate::verdict::{FaultFigures, Law, Verdict};

/// What befalls the whole device, and lasts for several looks of the driver's watchdog, or until
/// the driver does something about it.
const TROUBLES: [usize; 4] = [HANG, STUCK_BUSY, ALL_ONES, SELF_RESET];
/// Of these, the ones after which the device must be set up anew.
const FATAL: [usize; 3] = [HANG, ALL_ONES, SELF_RESET];

/// How often each fault came about and was noticed.
pub(crate) fn figures(before: &Counters, after: &Counters) -> Vec<FaultFigures> {
    let kinds = KINDS
        .iter()
        .zip(before.came_about.iter().zip(after.came_about));
    kinds
        .map(|(kind, (&before_count, after_count))| FaultFigures {
            came_about: difference(after_count, before_count),
            noticed: kind
                .noticed
                .map(|notice| difference((notice.counter)(after), (notice.counter)(before))),
        })
        .collect()
}

/// Judges what `verdict` has figures for.
pub(crate) fn judge(evidence: &Evidence, verdict: &mut Verdict) {
    judge_events(verdict);
    judge_false_alarms(evidence, verdict);
    judge_notice(evidence, verdict);
    let lost = counted(evidence, |faults| faults.rings_lost);
    if lost != 0 {
        let figures = format!("{} rings given up", thousands(lost));
        verdict.broken(Law::Alive, None, figures);
    }
    for &ring in &evidence.dead {
        let figures = "no event comes through any more".to_owned();
        verdict.broken(Law::Alive, Some(ring), figures);
    }
}

/// Faults of events leave traces that can be counted one by one.
fn judge_events(verdict: &mut Verdict) {
    for (law, what, count, kinds) in [
        (
            Law::Spoiled,
            "faulted",
            verdict.total(|ring| ring.faulted),
            [CORRUPT_CHECKSUM, UNMAPPED_DMA].as_slice(),
        ),
        (
            Law::Copied,
            "extra",
            verdict.total(|ring| ring.extra),
            &[DUPLICATE_EVENT],
        ),
        (
            Law::Disordered,
            "out of order",
            verdict.total(|ring| ring.out_of_order),
            &[DUPLICATE_EVENT, REORDERED_EVENT],
        ),
    ] {
        let sum: i64 = kinds.iter().map(|&kind| verdict.came_about(kind)).sum();
        if count != sum {
            let parts: Vec<_> = kinds.iter().map(|&kind| count_of(verdict, kind)).collect();
            let figures = format!("{what} {}, but {}", thousands(count), parts.join(" + "));
            for &kind in kinds {
                verdict.broken_by(law, kind, figures.clone());
            }
        }
    }
}

/// No trouble without a fault. What goes on for long is noticed once, and what comes while the
/// driver deals with something else is not noticed for itself: so fewer are right, more are not.
fn judge_false_alarms(evidence: &Evidence, verdict: &mut Verdict) {
    for kind in TROUBLES.into_iter().chain([WILD_INDEX]) {
        let noticed = verdict.noticed(kind);
        if !(0..=verdict.came_about(kind)).contains(&noticed) {
            let figures = format!(
                "noticed {}, but {}",
                thousands(noticed),
                count_of(verdict, kind)
            );
            verdict.broken_by(Law::Justified, kind, figures);
        }
    }
    // Without a fault one may still come later than the watchdog. But if it is the watchdog that
    // finds most, they are not coming, and the rest of the law would hold all the same.
    let lost = verdict.noticed(LOST_INTERRUPT);
    if lost > verdict.interrupts && verdict.faults.iter().all(|fault| fault.came_about == 0) {
        let figures = format!(
            "{} times no interrupt told of events, and only {} came",
            thousands(lost),
            thousands(verdict.interrupts)
        );
        verdict.broken_by(Law::Justified, LOST_INTERRUPT, figures);
    }
    let elements = counted(evidence, |faults| faults.bad_element);
    if elements != 0 {
        let figures = format!("{} used elements that cannot be", thousands(elements));
        verdict.broken(Law::Justified, None, figures);
    }
    let (rings, indices) = (
        counted(evidence, |faults| faults.ring_restarts),
        verdict.noticed(WILD_INDEX),
    );
    if rings > indices {
        let figures = format!(
            "{} rings set up anew, but {} wrong indices noticed",
            thousands(rings),
            thousands(indices)
        );
        verdict.broken_by(Law::Justified, WILD_INDEX, figures);
    }
    let devices = counted(evidence, |faults| faults.device_restarts);
    if devices > evidence.injected.resets.cast_signed()
        && FATAL.iter().all(|&kind| verdict.came_about(kind) == 0)
    {
        let figures = format!(
            "set up anew {} times, {} of them asked for",
            thousands(devices),
            thousands(evidence.injected.resets.cast_signed())
        );
        verdict.broken(Law::Justified, None, figures);
    }
}

/// What lasts is noticed, and something is done about it.
fn judge_notice(evidence: &Evidence, verdict: &mut Verdict) {
    let came: Vec<_> = TROUBLES
        .into_iter()
        .filter(|&kind| verdict.came_about(kind) > 0)
        .collect();
    // One can hide another, but not all of them can be hidden, unless a program resets the device.
    let hidden = evidence.injected.resets > 0;
    if !hidden && !came.is_empty() && came.iter().all(|&kind| verdict.noticed(kind) == 0) {
        for kind in came {
            let figures = format!("{}, and none was noticed", count_of(verdict, kind));
            verdict.broken_by(Law::Noticed, kind, figures);
        }
    }
    let devices = counted(evidence, |faults| faults.device_restarts);
    for kind in FATAL {
        if verdict.noticed(kind) > 0 && devices == 0 {
            let figures = format!(
                "{} noticed, and the device was never set up anew",
                thousands(verdict.noticed(kind))
            );
            verdict.broken_by(Law::Alive, kind, figures);
        }
    }
}

fn count_of(verdict: &Verdict, kind: usize) -> String {
    let count = thousands(verdict.came_about(kind));
    format!("{} came about {count} times", KINDS[kind].name)
}

fn counted(evidence: &Evidence, counter: impl Fn(&FaultCounters) -> u64) -> i64 {
    difference(
        counter(&evidence.after.faults),
        counter(&evidence.before.faults),
    )
}

#[cfg(test)]
#[path = "fault_law_test.rs"]
mod tests;
