// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The conservation law: no event is lost, doubled, reordered or damaged without being counted.
//!
//! Everything is judged as the difference between two quiet moments, so it does not matter what the
//! device went through before. Differences are signed: a counter that runs backwards breaks a law
//! instead of the check.

use evgen_uapi::{
    Counters, MAX_RINGS, SOURCE_DOORBELL, SOURCE_DRIVER, SOURCE_INJECT, SOURCE_STORM,
};

use crate::injected::Injected;
use crate::log::{Log, Seen, seen};
use crate::thousands::thousands;
use crate::verdict::{Law, RingFigures, Verdict};

/// What is known of one device after a run.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Number of the device.
    pub device: usize,
    /// Counters at the start: all quiet, no event pending.
    pub before: Counters,
    /// Events that were pending when all was quiet again, while readers still waited for events.
    pub waiting: u64,
    /// Counters at the end, with every reader gone.
    pub after: Counters,
    /// Number of readers.
    pub readers: usize,
    /// What each reader saw, and what was left for the final drain.
    pub logs: Vec<Log>,
    /// What was injected.
    pub injected: Injected,
}

/// Number of rings of the device with these counters.
pub fn rings(counters: &Counters) -> usize {
    MAX_RINGS.min(counters.rings.try_into().unwrap_or(MAX_RINGS))
}

/// Judges one device.
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = figures(evidence);
    judge_rings(evidence, &mut verdict);
    judge_list(evidence, &mut verdict);
    judge_streams(evidence, &mut verdict);
    judge_records(evidence, &mut verdict);
    judge_injectors(evidence, &mut verdict);
    verdict
}

const DEVICE_SOURCES: [(u16, &str); 3] = [
    (SOURCE_DOORBELL, "doorbell"),
    (SOURCE_INJECT, "inject"),
    (SOURCE_STORM, "storm"),
];

fn difference(after: u64, before: u64) -> i64 {
    after.wrapping_sub(before).cast_signed()
}

fn figures(evidence: &Evidence) -> Verdict {
    let Evidence {
        before,
        after,
        logs,
        ..
    } = evidence;
    let distinct = |source, ring| seen(logs, source, ring).distinct;
    let ring_figures = |ring: usize| {
        let (before, after) = (&before.ring[ring], &after.ring[ring]);
        let generated = difference(after.generated, before.generated);
        let seen: u64 = DEVICE_SOURCES
            .iter()
            .map(|&(source, _)| distinct(source, ring))
            .sum();
        RingFigures {
            generated,
            delivered: difference(after.delivered, before.delivered),
            dropped: difference(after.dropped, before.dropped),
            received: difference(after.received, before.received),
            evicted: difference(after.evicted, before.evicted),
            missing: generated - seen.cast_signed(),
        }
    };
    let added = difference(after.added, before.added);
    Verdict {
        device: evidence.device,
        readers: evidence.readers,
        rings: (0..rings(&evidence.after)).map(ring_figures).collect(),
        added,
        added_evicted: difference(after.added_evicted, before.added_evicted),
        added_missing: added - distinct(SOURCE_DRIVER, 0).cast_signed(),
        read: difference(after.read, before.read),
        pending: after.pending,
        interrupts: difference(after.interrupts, before.interrupts),
        violations: Vec::new(),
    }
}

fn judge_rings(evidence: &Evidence, verdict: &mut Verdict) {
    for (number, ring) in verdict.rings.clone().into_iter().enumerate() {
        let RingFigures {
            generated,
            delivered,
            dropped,
            received,
            ..
        } = ring;
        if generated != delivered + dropped {
            let figures = format!(
                "generated {}, but delivered {} + dropped {} = {}",
                thousands(generated),
                thousands(delivered),
                thousands(dropped),
                thousands(delivered + dropped)
            );
            verdict.broken(Law::Generated, Some(number), figures);
        }
        if received != delivered {
            let figures = format!(
                "received {}, but delivered {}",
                thousands(received),
                thousands(delivered)
            );
            verdict.broken(Law::Received, Some(number), figures);
        }
        if !accounted(ring.unaccounted(), evidence) {
            let figures = format!(
                "{} events missing, but dropped {} + evicted {} = {}",
                thousands(ring.missing),
                thousands(dropped),
                thousands(ring.evicted),
                thousands(dropped + ring.evicted)
            );
            verdict.broken(Law::Accounted, Some(number), figures);
        }
    }
}

/// What is neither seen nor counted as lost must still be in the list. It is drained in the end, so
/// as a rule there is no such event.
fn accounted(gap: i64, evidence: &Evidence) -> bool {
    (0..=evidence.after.pending.cast_signed()).contains(&gap)
}

fn judge_list(evidence: &Evidence, verdict: &mut Verdict) {
    let received = verdict.total(|ring| ring.received);
    let evicted = verdict.total(|ring| ring.evicted) + verdict.added_evicted;
    let pending = difference(evidence.after.pending, evidence.before.pending);
    let (came, went) = (received + verdict.added, verdict.read + evicted + pending);
    if came != went {
        let figures = format!(
            "received {} + added {} = {}, but read {} + evicted {} + pending {} = {}",
            thousands(received),
            thousands(verdict.added),
            thousands(came),
            thousands(verdict.read),
            thousands(evicted),
            thousands(pending),
            thousands(went)
        );
        verdict.broken(Law::Balanced, None, figures);
    }

    let events: u64 = evidence.logs.iter().map(|log| log.events).sum();
    if verdict.read != events.cast_signed() {
        let figures = format!(
            "the driver gave out {}, but the readers got {}",
            thousands(verdict.read),
            thousands(events.cast_signed())
        );
        verdict.broken(Law::Read, None, figures);
    }

    if evidence.waiting > 0 {
        let waiting = thousands(evidence.waiting.cast_signed());
        verdict.broken(
            Law::Awake,
            None,
            format!("{waiting} events stayed pending, though a reader waited"),
        );
    }

    let added_gap = verdict.added_unaccounted();
    if !accounted(added_gap, evidence) {
        let figures = format!(
            "{} added events missing, but {} evicted",
            thousands(verdict.added_missing),
            thousands(verdict.added_evicted)
        );
        verdict.broken(Law::Accounted, None, figures);
    }
    let gaps = verdict.total(RingFigures::unaccounted) + added_gap;
    if verdict.pending > 0 && gaps != verdict.pending.cast_signed() {
        let figures = format!(
            "{} events neither seen nor counted as lost, but {} pending",
            thousands(gaps),
            thousands(verdict.pending.cast_signed())
        );
        verdict.broken(Law::Accounted, None, figures);
    }
}

fn judge_streams(evidence: &Evidence, verdict: &mut Verdict) {
    for ring in 0..rings(&evidence.after) {
        // Numbers count from when the device was bound, as the counters do: no difference here.
        let mut numbered = 0_u64;
        for (source, name) in DEVICE_SOURCES {
            let seen = seen(&evidence.logs, source, ring);
            numbered = numbered.saturating_add(seen.end);
            judge_order(verdict, Some(ring), name, seen);
        }
        judge_numbers(
            verdict,
            Some(ring),
            numbered,
            evidence.after.ring[ring].generated,
        );
    }
    let seen = seen(&evidence.logs, SOURCE_DRIVER, 0);
    judge_order(verdict, None, "added", seen);
    judge_numbers(verdict, None, seen.end, evidence.after.added);
}

fn judge_numbers(verdict: &mut Verdict, ring: Option<usize>, numbered: u64, made: u64) {
    if numbered > made {
        let figures = format!(
            "sequence numbers for {} events, but {} were made since the device was bound",
            thousands(numbered.cast_signed()),
            thousands(made.cast_signed())
        );
        verdict.broken(Law::Possible, ring, figures);
    }
}

fn judge_order(verdict: &mut Verdict, ring: Option<usize>, source: &str, seen: Seen) {
    if let Some((before, then)) = seen.disorder.first {
        let figures = format!(
            "{} {source} events out of order, the first was number {then} after {before}",
            thousands(seen.disorder.count.cast_signed())
        );
        verdict.broken(Law::Rising, ring, figures);
    }
    if let Some(first) = seen.first_duplicate {
        let figures = format!(
            "{} {source} events came twice, the first from number {first} on",
            thousands(seen.duplicates.cast_signed())
        );
        verdict.broken(Law::Once, ring, figures);
    }
}

fn judge_records(evidence: &Evidence, verdict: &mut Verdict) {
    let corrupt: u64 = evidence.logs.iter().map(|log| log.corrupt).sum();
    let noticed_by = |counters: &Counters| counters.ring.iter().map(|ring| ring.bad_checksum).sum();
    let noticed = difference(noticed_by(&evidence.after), noticed_by(&evidence.before));
    if corrupt > 0 || noticed != 0 {
        let figures = format!(
            "damaged events: the readers saw {}, the driver {} wrong checksums; both should be 0",
            thousands(corrupt.cast_signed()),
            thousands(noticed)
        );
        verdict.broken(Law::Intact, None, figures);
    }
    let strange: u64 = evidence.logs.iter().map(|log| log.strange).sum();
    if let Some((source, ring)) = evidence.logs.iter().find_map(|log| log.first_strange) {
        let figures = format!(
            "{} events of no known origin, the first of source {source} on ring {ring}",
            thousands(strange.cast_signed())
        );
        verdict.broken(Law::Origin, None, figures);
    }
}

fn judge_injectors(evidence: &Evidence, verdict: &mut Verdict) {
    for (number, ring) in verdict.rings.clone().into_iter().enumerate() {
        let rung = evidence.injected.rung[number].cast_signed();
        let came = seen(&evidence.logs, SOURCE_DOORBELL, number)
            .distinct
            .cast_signed();
        // A missing event may have been a doorbell's or not.
        if !(came..=came + ring.missing.max(0)).contains(&rung) {
            let figures = format!(
                "doorbell rung {} times, but {} doorbell events came, with {} events of any source missing",
                thousands(rung),
                thousands(came),
                thousands(ring.missing)
            );
            verdict.broken(Law::Doorbells, Some(number), figures);
        }
    }
    let added = evidence.injected.added.cast_signed();
    if added != verdict.added {
        let figures = format!(
            "the injectors added {}, but the driver counted {}",
            thousands(added),
            thousands(verdict.added)
        );
        verdict.broken(Law::Added, None, figures);
    }
}

#[cfg(test)]
#[path = "law_test.rs"]
mod tests;
