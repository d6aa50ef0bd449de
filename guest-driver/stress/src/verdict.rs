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
    /// What is missing was dropped or evicted.
    Accounted,
    /// No number comes from nowhere.
    Possible,
    /// Order within a stream.
    Rising,
    /// No event comes twice.
    Once,
    /// Checksums, and contents as far as they are known.
    Intact,
    /// Source and ring.
    Origin,
    /// One event per doorbell.
    Doorbells,
    /// One event per added event.
    Added,
}

impl Law {
    /// Every part, in the order in which an event meets them.
    pub const ALL: [Self; 13] = [
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
        Self::Added,
    ];
}

impl fmt::Display for Law {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::Generated => "each ring: generated = delivered + dropped",
            Self::Received => "each ring: received = delivered",
            Self::Balanced => "received + added = read + evicted + pending",
            Self::Read => "readers got what the driver gave out",
            Self::Awake => "no reader sleeps beside a pending event",
            Self::Accounted => "events missing = dropped + evicted",
            Self::Possible => "no sequence number beyond what was generated",
            Self::Rising => "sequence numbers rise in each stream",
            Self::Once => "no event comes twice",
            Self::Intact => "every event is intact",
            Self::Origin => "every event names a source and ring that exist",
            Self::Doorbells => "each doorbell made one event",
            Self::Added => "each added event was counted",
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
    /// Driver: taken from the ring.
    pub received: i64,
    /// Driver: left the list unread.
    pub evicted: i64,
    /// Generated, but seen by no reader.
    pub missing: i64,
}

impl RingFigures {
    /// Missing, and not counted as lost; or, below zero, counted as lost and seen all the same.
    pub fn unaccounted(&self) -> i64 {
        self.missing - self.dropped - self.evicted
    }
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

    /// As [`RingFigures::unaccounted`], of the added events.
    pub fn added_unaccounted(&self) -> i64 {
        self.added_missing - self.added_evicted
    }

    /// Takes note of a broken law.
    pub fn broken(&mut self, law: Law, ring: Option<usize>, figures: String) {
        self.violations.push(Violation { law, ring, figures });
    }
}
