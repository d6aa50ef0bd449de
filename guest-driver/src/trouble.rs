// SPDX-License-Identifier: GPL-2.0

//! What can go wrong with a device, as it is counted and logged.

use kernel::{fmt, prelude::*, print::OnceLite};

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
            Self::RingError | Self::RingLost => return,
        };
        *counter = counter.wrapping_add(1);
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
