// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The parts of the conservation law, and what became of them on one device.

use std::fmt;

/// The parts of the law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// The device knows what became of each event.
    Generated,
    /// The driver took from the ring all that the device put there.
    Received,
    /// The driver knows what became of each event.
    Balanced,
    /// What the driver gave out has arrived.
    Read,
    /// Nobody sleeps beside a pending event.
    Awake,
    /// What is missing was dropped, spoiled or evicted.
    Accounted,
    /// No number comes from nowhere.
    Possible,
    /// Order within a stream, as far as the device keeps it.
    Rising,
    /// No event comes twice, but for copies that the device made.
    Once,
    /// Checksums, and contents as far as they are known; what is spoiled stays with the driver.
    Intact,
    /// Source and ring.
    Origin,
    /// One event per doorbell.
    Doorbells,
    /// Doorbells that were put off were rung.
    Deferred,
    /// One event per added event.
    Added,
    /// A reset that was asked for took place.
    Reset,
    /// No call gave what it must not give.
    Answered,
    /// Events spoiled are those that faults spoiled.
    Spoiled,
    /// Copies are those that a fault made.
    Copied,
    /// Events out of order are those that faults put there.
    Disordered,
    /// The driver noticed what lasts.
    Noticed,
    /// The driver noticed nothing that was not there.
    Justified,
    /// Whatever happened, the device works in the end.
    Alive,
}

impl Law {
    /// Every part, in the order in which an event meets them.
    pub const ALL: [Self; 22] = [
        Self::Generated,
        Self::Received,
        Self::Balanced,
        Self::Read,
        Self::Awake,
        Self::Accounted,
        Self::Possible,
        Self::Rising,
        Self::Once,
        Self::Intact,
        Self::Origin,
        Self::Doorbells,
        Self::Deferred,
        Self::Added,
        Self::Reset,
        Self::Answered,
        Self::Spoiled,
        Self::Copied,
        Self::Disordered,
        Self::Noticed,
        Self::Justified,
        Self::Alive,
    ];
}

impl fmt::Display for Law {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::Generated => "each ring: generated = delivered + dropped + faulted",
            Self::Received => "each ring: received = delivered + extra",
            Self::Balanced => "received + added = read + evicted + pending",
            Self::Read => "readers got what the driver gave out",
            Self::Awake => "no reader sleeps beside a pending event",
            Self::Accounted => "events missing = dropped + faulted + evicted",
            Self::Possible => "no sequence number beyond what was generated",
            Self::Rising => "sequence numbers rise in each stream, but for those counted",
            Self::Once => "no event comes twice, but for copies counted",
            Self::Intact => "every event is intact",
            Self::Origin => "every event names a source and ring that exist",
            Self::Doorbells => "each doorbell made one event",
            Self::Deferred => "each deferred doorbell was rung",
            Self::Added => "each added event was counted",
            Self::Reset => "a reset set the device up anew",
            Self::Answered => "calls gave what they should",
            Self::Spoiled => "faulted = corrupt-checksum + unmapped-dma",
            Self::Copied => "extra = duplicate-event",
            Self::Disordered => "out of order = duplicate-event + reordered-event",
            Self::Noticed => "the driver noticed what lasts",
            Self::Justified => "the driver noticed nothing that was not there",
            Self::Alive => "every ring works in the end",
        })
    }
}

/// A broken law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which part of the law.
    pub law: Law,
    /// On which ring; `None` if it is the device's as a whole.
    pub ring: Option<usize>,
    /// The number of the fault that it is about; `None` if it is about none.
    pub fault: Option<usize>,
    /// The figures that should agree.
    pub figures: String,
}

/// What went through one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFigures {
    /// Device: made.
    pub generated: i64,
    /// Device: written to the ring.
    pub delivered: i64,
    /// Device: made but not written.
    pub dropped: i64,
    /// Device: spoiled by a fault.
    pub faulted: i64,
    /// Device: second copies.
    pub extra: i64,
    /// Driver: taken from the ring.
    pub received: i64,
    /// Driver: left the list unread.
    pub evicted: i64,
    /// Driver: taken from the ring and thrown away.
    pub bad_checksum: i64,
    /// Driver: with a number that did not rise.
    pub out_of_order: i64,
    /// Generated, but seen by no reader.
    pub missing: i64,
    /// Seen once more by some reader.
    pub seen_again: i64,
}

impl RingFigures {
    /// Copies that left the list unread. Of two copies either may have been, so an event whose copy
    /// was evicted is still seen; how often that happened follows from the copies that were seen,
    /// and is exact where nothing was evicted.
    fn copies_evicted(&self) -> i64 {
        let most = self.extra.min(self.evicted).max(0);
        (self.extra - self.seen_again).clamp(0, most)
    }

    /// Missing, and not counted as lost; or, below zero, counted as lost and seen all the same.
    pub fn unaccounted(&self) -> i64 {
        self.missing + self.copies_evicted() - self.dropped - self.faulted - self.evicted
    }
}

/// What there is to say of one kind of fault on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultFigures {
    /// Device: how often it came about.
    pub came_about: i64,
    /// Driver: how often it was noticed, if that can be.
    pub noticed: Option<i64>,
}

/// What went through one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Number of the device.
    pub device: usize,
    /// Number of readers that took part.
    pub readers: usize,
    /// Per ring.
    pub rings: Vec<RingFigures>,
    /// Added through the driver.
    pub added: i64,
    /// Of these, the ones that left the list unread.
    pub added_evicted: i64,
    /// Of the added ones, those that no reader saw.
    pub added_missing: i64,
    /// Given out.
    pub read: i64,
    /// In the list at the end.
    pub pending: u64,
    /// Runs of a ring's interrupt handler.
    pub interrupts: i64,
    /// By the number of the fault.
    pub faults: Vec<FaultFigures>,
    /// Runs of a ring's interrupt handler that found nothing.
    pub empty_interrupts: i64,
    /// Rings set up anew, and devices.
    pub restarts: [i64; 2],
    /// What is wrong; empty if the law holds.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Sum of one figure over all rings.
    pub fn total(&self, figure: impl Fn(&RingFigures) -> i64) -> i64 {
        self.rings.iter().map(figure).sum()
    }

    /// Events that were made for this device, by whomever.
    pub fn events(&self) -> i64 {
        self.total(|ring| ring.generated) + self.added
    }

    /// Events whose whereabouts nobody knows, or that nobody should have.
    pub fn unaccounted(&self) -> u64 {
        let gaps = self.total(|ring| ring.unaccounted().abs()) + self.added_unaccounted().abs();
        gaps.unsigned_abs().saturating_sub(self.pending)
    }

    /// How often the fault with number `kind` came about.
    pub fn came_about(&self, kind: usize) -> i64 {
        self.faults.get(kind).map_or(0, |fault| fault.came_about)
    }

    /// How often the driver noticed the fault with number `kind`; zero if it cannot.
    pub fn noticed(&self, kind: usize) -> i64 {
        let fault = self.faults.get(kind);
        fault.and_then(|fault| fault.noticed).unwrap_or(0)
    }

    /// As [`RingFigures::unaccounted`], of the added events.
    pub fn added_unaccounted(&self) -> i64 {
        self.added_missing - self.added_evicted
    }

    /// Takes note of a broken law.
    pub fn broken(&mut self, law: Law, ring: Option<usize>, figures: String) {
        self.violations.push(Violation {
            law,
            ring,
            fault: None,
            figures,
        });
    }

    /// Takes note of a broken law that is about the fault of this number.
    pub fn broken_by(&mut self, law: Law, fault: usize, figures: String) {
        self.violations.push(Violation {
            law,
            ring: None,
            fault: Some(fault),
            figures,
        });
    }
}
