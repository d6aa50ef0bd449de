// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The ways in which the device misbehaves on demand, and where the driver shows that it noticed.

use evgen_uapi::{Counters, FAULTS, RingCounters};

/// A way to misbehave.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name in the device's datasheet.
    pub name: &'static str,
    /// What the driver counts when it notices; `None` if there is nothing to be noticed, or nothing
    /// that tells it from what is normal.
    pub noticed: Option<Notice>,
}

/// What the driver counts.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    /// The counter.
    pub counter: fn(&Counters) -> u64,
    /// Something else looks the same, and counts there too.
    pub shared: bool,
}

/// An event's interrupt is not sent.
pub const LOST_INTERRUPT: usize = 1;
/// One bit of an event's checksum is wrong.
pub const CORRUPT_CHECKSUM: usize = 7;
/// An event is delivered twice.
pub const DUPLICATE_EVENT: usize = 8;
/// An event comes after the one that follows it.
pub const REORDERED_EVENT: usize = 9;
/// An event is written to where nothing is.
pub const UNMAPPED_DMA: usize = 10;
/// The used index is far out for a while.
pub const WILD_INDEX: usize = 6;
/// The device does nothing for a while.
pub const HANG: usize = 11;
/// The device is busy for a while.
pub const STUCK_BUSY: usize = 12;
/// The device is gone for a while.
pub const ALL_ONES: usize = 13;
/// The device resets itself.
pub const SELF_RESET: usize = 14;

/// Every kind, by its number in the datasheet.
pub const KINDS: [Kind; FAULTS] = [
    // Messages that merge on their way leave empty interrupts too.
    shared("spurious-interrupt", |counters| counters.empty_interrupts),
    // Whatever keeps an event from being told of: an index that moved late, for one.
    shared("lost-interrupt", |counters| counters.faults.lost_interrupts),
    silent("duplicate-interrupt"),
    silent("early-interrupt"),
    silent("late-interrupt"),
    silent("stale-index"),
    own("wild-index", |counters| counters.faults.bad_index),
    shared("corrupt-checksum", bad_checksum),
    shared("duplicate-event", out_of_order),
    shared("reordered-event", out_of_order),
    shared("unmapped-dma", bad_checksum),
    own("hang", |counters| counters.faults.hangs),
    own("stuck-busy", |counters| counters.faults.stuck_busy),
    own("all-ones", |counters| counters.faults.unreachable),
    own("self-reset", |counters| counters.faults.self_resets),
];

const fn silent(name: &'static str) -> Kind {
    Kind {
        name,
        noticed: None,
    }
}

const fn own(name: &'static str, counter: fn(&Counters) -> u64) -> Kind {
    let shared = false;
    Kind {
        name,
        noticed: Some(Notice { counter, shared }),
    }
}

const fn shared(name: &'static str, counter: fn(&Counters) -> u64) -> Kind {
    let shared = true;
    Kind {
        name,
        noticed: Some(Notice { counter, shared }),
    }
}

fn bad_checksum(counters: &Counters) -> u64 {
    sum(counters, |ring| ring.bad_checksum)
}

fn out_of_order(counters: &Counters) -> u64 {
    sum(counters, |ring| ring.out_of_order)
}

fn sum(counters: &Counters, counter: fn(&RingCounters) -> u64) -> u64 {
    counters.ring.iter().map(counter).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_the_datasheet() {
        let datasheet = include_str!("../../../device-model/SPEC.md");
        for (number, kind) in KINDS.iter().enumerate() {
            let row = format!("| {number} | `{}` |", kind.name);
            assert!(datasheet.contains(&row), "SPEC.md lacks {row}");
        }
        for (number, name) in [
            (LOST_INTERRUPT, "lost-interrupt"),
            (WILD_INDEX, "wild-index"),
            (CORRUPT_CHECKSUM, "corrupt-checksum"),
            (DUPLICATE_EVENT, "duplicate-event"),
            (REORDERED_EVENT, "reordered-event"),
            (UNMAPPED_DMA, "unmapped-dma"),
            (HANG, "hang"),
            (STUCK_BUSY, "stuck-busy"),
            (ALL_ONES, "all-ones"),
            (SELF_RESET, "self-reset"),
        ] {
            assert_eq!(KINDS[number].name, name);
        }
    }
}
