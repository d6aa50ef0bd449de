// SPDX-License-Identifier: GPL-2.0

//! What can go wrong with a device, as it is counted and logged.

use kernel::{
    fmt,
    prelude::*,
    print::OnceLite,
    time::{ClockSource, Monotonic},
};

use crate::{registers::Registers, ring::Fault, uapi::FaultCounters};

/// One way in which a device misbehaves.
#[derive(Clone, Copy)]
pub(crate) enum Trouble {
    /// Events waited, and no interrupt told of them.
    LostInterrupt,
    /// A used index that cannot be.
    BadIndex,
    /// A used element that cannot be.
    BadElement,
    /// The device was reset, and not by us.
    SelfReset,
    /// The device's heartbeat stands still.
    Hang,
    /// The device is busy for longer than a reset may take.
    StuckBusy,
    /// The device does not answer.
    Unreachable,
    /// A ring is in the error state. The device counts those.
    RingError,
    /// A ring is wrong even after it was turned off.
    RingLost,
}

/// Number of [`Trouble`]s.
const TROUBLES: usize = Trouble::RingLost as usize + 1;

impl Trouble {
    /// Counts one of these, if they are counted.
    pub(crate) fn count(self, counters: &mut FaultCounters) {
        let counter = match self {
            Self::LostInterrupt => &mut counters.lost_interrupts,
            Self::BadIndex => &mut counters.bad_index,
            Self::BadElement => &mut counters.bad_element,
            Self::SelfReset => &mut counters.self_resets,
            Self::Hang => &mut counters.hangs,
            Self::StuckBusy => &mut counters.stuck_busy,
            Self::Unreachable => &mut counters.unreachable,
            Self::RingLost => &mut counters.rings_lost,
            Self::RingError => return,
        };
        *counter = counter.wrapping_add(1);
    }

    /// Its name, for those who look at the driver.
    pub(crate) fn name(self) -> &'static CStr {
        match self {
            Self::LostInterrupt => c"lost interrupt",
            Self::BadIndex => c"bad index",
            Self::BadElement => c"bad element",
            Self::SelfReset => c"self reset",
            Self::Hang => c"hang",
            Self::StuckBusy => c"stuck busy",
            Self::Unreachable => c"unreachable",
            Self::RingError => c"ring error",
            Self::RingLost => c"ring lost",
        }
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::UsedIndex { .. } => Self::BadIndex,
            Fault::UsedElement { .. } => Self::BadElement,
        }
    }
}

/// A trouble that was noticed.
#[derive(Clone, Copy)]
pub(crate) struct Noticed {
    /// Nanoseconds of the kernel's monotonic time.
    pub(crate) at: i64,
    pub(crate) trouble: Trouble,
    /// The ring that it is about; `None` if it is about the whole device.
    pub(crate) ring: Option<usize>,
}

impl Noticed {
    /// Just noticed. In any context.
    pub(crate) fn now(trouble: Trouble, ring: Option<usize>) -> Self {
        Self {
            at: Monotonic::ktime_get(),
            trouble,
            ring,
        }
    }
}

/// How many troubles are remembered.
const REMEMBERED: usize = 32;

/// The last troubles of one device: a device can cause any number of them.
#[derive(Clone, Copy)]
pub(crate) struct History {
    noticed: [Option<Noticed>; REMEMBERED],
    /// Where the next one goes: into the place of the oldest.
    next: usize,
}

impl History {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            noticed: [None; REMEMBERED],
            next: 0,
        }
    }

    /// Remembers a trouble, and forgets the oldest one for it if there are too many.
    pub(crate) fn remember(&mut self, noticed: Noticed) {
        self.noticed[self.next % REMEMBERED] = Some(noticed);
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// What is remembered, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Noticed> + '_ {
        let slots = self.next..self.next + REMEMBERED;
        slots.filter_map(|slot| self.noticed[slot % REMEMBERED])
    }
}

/// Which troubles of one device the log knows of. A device can cause any of them for ever, so each
/// kind is worth one line.
pub(crate) struct Told([OnceLite; TROUBLES]);

impl Told {
    /// None.
    pub(crate) fn new() -> Self {
        Self([const { OnceLite::new() }; TROUBLES])
    }

    /// Logs a trouble if it is the first of its kind. In any context.
    pub(crate) fn tell(&self, registers: &Registers, trouble: Trouble, what: fmt::Arguments<'_>) {
        self.0[trouble as usize].call_once(|| {
            dev_warn!(registers.device(), "{what} (logged once)\n");
        });
    }
}
