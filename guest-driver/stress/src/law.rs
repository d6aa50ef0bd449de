// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The conservation law: no event is lost, doubled, reordered or damaged without being counted.
//!
//! Everything is judged as the difference between two quiet moments, so it does not matter what the
//! device went through before. Differences are signed: a counter that runs backwards breaks a law
//! instead of the check.

use evgen_uapi::{
    Counters, MAX_RINGS, SOURCE_DOORBELL, SOURCE_DRIVER, SOURCE_INJECT, SOURCE_STORM,
};

use crate::call_law;
use crate::fault_law;
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
    /// Answers to calls that were not what they should be.
    pub complaints: Vec<String>,
    /// Rings through which, in the end, no event came though a doorbell was rung. Looked for only if
    /// a fault came about.
    pub dead: Vec<usize>,
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
    call_law::judge(evidence, &mut verdict);
    fault_law::judge(evidence, &mut verdict);
    verdict
}

const DEVICE_SOURCES: [(u16, &str); 3] = [
    (SOURCE_DOORBELL, "doorbell"),
    (SOURCE_INJECT, "inject"),
    (SOURCE_STORM, "storm"),
];

pub(crate) fn difference(after: u64, before: u64) -> i64 {
    after.wrapping_sub(before).cast_signed()
}

fn figures(evidence: &Evidence) -> Verdict {
    let Evidence {
        before,
        after,
        logs,
        ..
    } = evidence;
    let ring_figures = |ring: usize| {
        let (before, after) = (&before.ring[ring], &after.ring[ring]);
        let generated = difference(after.generated, before.generated);
        let (mut distinct, mut again) = (0_u64, 0_u64);
        for (source, _) in DEVICE_SOURCES {
            let seen = seen(logs, source, ring);
            distinct = distinct.saturating_add(seen.distinct);
            again = again.saturating_add(seen.duplicates);
        }
        RingFigures {
            generated,
            delivered: difference(after.delivered, before.delivered),
            dropped: difference(after.dropped, before.dropped),
            faulted: difference(after.faulted, before.faulted),
            extra: difference(after.extra, before.extra),
            received: difference(after.received, before.received),
            evicted: difference(after.evicted, before.evicted),
            bad_checksum: difference(after.bad_checksum, before.bad_checksum),
            out_of_order: difference(after.out_of_order, before.out_of_order),
            missing: generated - distinct.cast_signed(),
            seen_again: again.cast_signed(),
        }
    };
    let added = difference(after.added, before.added);
    Verdict {
        device: evidence.device,
        readers: evidence.readers,
        rings: (0..rings(&evidence.after)).map(ring_figures).collect(),
        added,
        added_evicted: difference(after.added_evicted, before.added_evicted),
        added_missing: added - seen(logs, SOURCE_DRIVER, 0).distinct.cast_signed(),
        read: difference(after.read, before.read),
        pending: after.pending,
        interrupts: difference(after.interrupts, before.interrupts),
        empty_interrupts: difference(after.empty_interrupts, before.empty_interrupts),
        faults: fault_law::figures(before, after),
        restarts: [
            difference(after.faults.ring_restarts, before.faults.ring_restarts),
            difference(after.faults.device_restarts, before.faults.device_restarts),
        ],
        violations: Vec::new(),
    }
}

fn judge_rings(evidence: &Evidence, verdict: &mut Verdict) {
    for (number, ring) in verdict.rings.clone().into_iter().enumerate() {
        let RingFigures {
            generated,
            delivered,
            dropped,
            faulted,
            extra,
            received,
            ..
        } = ring;
        if generated != delivered + dropped + faulted {
            let figures = format!(
                "generated {}, but delivered {} + dropped {} + faulted {} = {}",
                thousands(generated),
                thousands(delivered),
                thousands(dropped),
                thousands(faulted),
                thousands(delivered + dropped + faulted)
            );
            verdict.broken(Law::Generated, Some(number), figures);
        }
        if received != delivered + extra {
            let figures = format!(
                "received {}, but delivered {} + extra {} = {}",
                thousands(received),
                thousands(delivered),
                thousands(extra),
                thousands(delivered + extra)
            );
            verdict.broken(Law::Received, Some(number), figures);
        }
        if !accounted(ring.unaccounted(), evidence) {
            let figures = format!(
                "{} events missing, but dropped {} + faulted {} + evicted {}, with {} unaccounted for",
                thousands(ring.missing),
                thousands(dropped),
                thousands(faulted),
                thousands(ring.evicted),
                thousands(ring.unaccounted())
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
        let streams = DEVICE_SOURCES.map(|(source, name)| {
            let seen = seen(&evidence.logs, source, ring);
            numbered = numbered.saturating_add(seen.end);
            (name, seen)
        });
        let figures = verdict.rings[ring];
        // An event that a reader finds out of order is out of order for the driver too, but not the
        // other way round: what came before it may have gone to another reader.
        judge_order(verdict, Some(ring), &streams, figures.out_of_order);
        judge_copies(verdict, Some(ring), &streams, figures.extra);
        judge_numbers(
            verdict,
            Some(ring),
            numbered,
            evidence.after.ring[ring].generated,
        );
    }
    let seen = seen(&evidence.logs, SOURCE_DRIVER, 0);
    judge_order(verdict, None, &[("added", seen)], 0);
    judge_copies(verdict, None, &[("added", seen)], 0);
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

/// What was seen of the streams of one ring, each with its name.
type Streams<'a> = &'a [(&'static str, Seen)];

fn judge_order(verdict: &mut Verdict, ring: Option<usize>, streams: Streams<'_>, most: i64) {
    let count: u64 = streams.iter().map(|(_, seen)| seen.disorder.count).sum();
    let first = streams
        .iter()
        .find_map(|(name, seen)| Some((name, seen.disorder.first?)));
    if let Some((source, (before, then))) = first
        && count.cast_signed() > most
    {
        let figures = format!(
            "{} events out of order, but {} counted; one was {source} number {then} after {before}",
            thousands(count.cast_signed()),
            thousands(most)
        );
        verdict.broken(Law::Rising, ring, figures);
    }
}

fn judge_copies(verdict: &mut Verdict, ring: Option<usize>, streams: Streams<'_>, most: i64) {
    let count: u64 = streams.iter().map(|(_, seen)| seen.duplicates).sum();
    let first = streams
        .iter()
        .find_map(|(name, seen)| Some((name, seen.first_duplicate?)));
    if let Some((source, first)) = first
        && count.cast_signed() > most
    {
        let figures = format!(
            "{} events came twice, but {} copies counted; one was {source}, from number {first} on",
            thousands(count.cast_signed()),
            thousands(most)
        );
        verdict.broken(Law::Once, ring, figures);
    }
}

fn judge_records(evidence: &Evidence, verdict: &mut Verdict) {
    let corrupt: u64 = evidence.logs.iter().map(|log| log.corrupt).sum();
    if corrupt > 0 {
        let figures = format!(
            "the readers saw {} damaged events, which the driver should have thrown away",
            thousands(corrupt.cast_signed())
        );
        verdict.broken(Law::Intact, None, figures);
    }
    for (number, ring) in verdict.rings.clone().into_iter().enumerate() {
        if ring.bad_checksum != ring.faulted {
            let figures = format!(
                "the driver threw {} away, but faulted {}",
                thousands(ring.bad_checksum),
                thousands(ring.faulted)
            );
            verdict.broken(Law::Intact, Some(number), figures);
        }
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

#[cfg(test)]
#[path = "law_test.rs"]
mod tests;
