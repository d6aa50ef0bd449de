// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The part of the law that is about what programs asked for: each doorbell, at once or later, and
//! each added event shows, each reset was one, and every call was answered as it should be.

use evgen_uapi::SOURCE_DOORBELL;

use crate::faults::ALL_ONES;
use crate::law::{Evidence, difference};
use crate::log::seen;
use crate::thousands::thousands;
use crate::verdict::{Law, Verdict};

/// Judges what `verdict` has figures for.
pub(crate) fn judge(evidence: &Evidence, verdict: &mut Verdict) {
    judge_doorbells(evidence, verdict);
    judge_deferred(evidence, verdict);
    judge_added(evidence, verdict);
    judge_resets(evidence, verdict);
    for complaint in &evidence.complaints {
        verdict.broken(Law::Answered, None, complaint.clone());
    }
}

fn judge_doorbells(evidence: &Evidence, verdict: &mut Verdict) {
    // A device that is gone hears no doorbell, and nobody can count that. One that is busy or hangs
    // does hear it.
    let deaf = verdict.came_about(ALL_ONES) > 0;
    for (number, ring) in verdict.rings.clone().into_iter().enumerate() {
        // When all is quiet nothing is put off any more.
        let (now, later) = (
            evidence.injected.rung[number].cast_signed(),
            evidence.injected.deferred[number].cast_signed(),
        );
        let came = seen(&evidence.logs, SOURCE_DOORBELL, number)
            .distinct
            .cast_signed();
        // A missing event may have been a doorbell's or not.
        let most = if deaf {
            i64::MAX
        } else {
            came + ring.missing.max(0)
        };
        if !(came..=most).contains(&(now + later)) {
            let figures = format!(
                "doorbell rung {} times and {} times later, but {} doorbell events came, with {} events of any source missing",
                thousands(now),
                thousands(later),
                thousands(came),
                thousands(ring.missing)
            );
            verdict.broken(Law::Doorbells, Some(number), figures);
        }
    }
}

fn judge_deferred(evidence: &Evidence, verdict: &mut Verdict) {
    let (before, after) = (&evidence.before, &evidence.after);
    let deferred = difference(after.deferred, before.deferred);
    let rung = difference(after.deferred_rung, before.deferred_rung);
    let pending = difference(after.deferred_pending, before.deferred_pending);
    let asked: u64 = evidence.injected.deferred.iter().sum();
    if deferred != rung + pending || deferred != asked.cast_signed() {
        let figures = format!(
            "the injectors deferred {}, the driver counted {}, of which it rang {} and {} wait",
            thousands(asked.cast_signed()),
            thousands(deferred),
            thousands(rung),
            thousands(pending)
        );
        verdict.broken(Law::Deferred, None, figures);
    }
}

fn judge_added(evidence: &Evidence, verdict: &mut Verdict) {
    let added = evidence.injected.added.cast_signed();
    if added != verdict.added {
        let figures = format!(
            "the injectors added {}, but the driver counted {}",
            thousands(added),
            thousands(verdict.added)
        );
        verdict.broken(Law::Added, None, figures);
    }
    let early = difference(evidence.after.evicted_early, evidence.before.evicted_early);
    let evicted = verdict.total(|ring| ring.evicted) + verdict.added_evicted;
    if !(0..=evicted).contains(&early) {
        let figures = format!(
            "{} evicted for want of memory, but {} evicted at all",
            thousands(early),
            thousands(evicted)
        );
        verdict.broken(Law::Accounted, None, figures);
    }
}

/// One reset can be the end of several calls.
fn judge_resets(evidence: &Evidence, verdict: &mut Verdict) {
    let (asked, done) = (evidence.injected.resets, verdict.restarts[1]);
    if asked > 0 && done < 1 {
        let asked = thousands(asked.cast_signed());
        let figures = format!("{asked} resets asked for, but the device was never set up anew");
        verdict.broken(Law::Reset, None, figures);
    }
}
