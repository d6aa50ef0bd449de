// SPDX-License-Identifier: GPL-2.0

//! Resetting the device, however it takes it.

use kernel::{
    prelude::*,
    time::{delay::fsleep, Delta},
};

use crate::registers::Registers;

/// How often, and how long after each other, [`Reset::finish`] tries: for a second in all.
const ATTEMPTS: usize = 100;
const PAUSE: Delta = Delta::from_millis(10);

/// A reset that is wanted, from the first request until the device is known to be off.
///
/// A device may be busy for a while, when it ignores writes, or gone for a while. So a reset goes on
/// in steps that never wait, and is done only when the device's registers say so.
pub(crate) struct Reset {
    rings: usize,
    asked: bool,
}

/// How far a [`Reset`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The device does not run, its rings are off: it writes no memory.
    Done,
    /// The device is busy.
    Busy,
    /// The device does not answer, or did not take the reset.
    Refused,
}

impl Reset {
    /// A reset of a device with `rings` rings, which is not asked for yet.
    pub(crate) fn new(rings: usize) -> Self {
        Self {
            rings,
            asked: false,
        }
    }

    /// Goes on as far as is possible without waiting. In any context.
    pub(crate) fn step(&mut self, registers: &Registers) -> Progress {
        // One that is under way is not asked for again: it would begin anew.
        if self.asked {
            match self.look(registers) {
                Progress::Refused => {}
                done_or_busy => return done_or_busy,
            }
        }
        // A device that is busy just now does not hear this, and the next look shows it.
        self.asked = registers.ask_for_reset().is_ok();
        // As a rule a reset is over before the write has completed.
        self.look(registers)
    }

    /// Resets the device, or gives up after a second. Sleeps.
    ///
    /// `ETIMEDOUT` if the device is busy all the time, `EIO` if it does not answer or does not obey.
    pub(crate) fn finish(mut self, registers: &Registers) -> Result {
        let mut progress = self.step(registers);
        for _ in 1..ATTEMPTS {
            if progress == Progress::Done {
                break;
            }
            fsleep(PAUSE);
            progress = self.step(registers);
        }
        match progress {
            Progress::Done => Ok(()),
            Progress::Busy => Err(ETIMEDOUT),
            Progress::Refused => Err(EIO),
        }
    }

    fn look(&self, registers: &Registers) -> Progress {
        let health = registers.health();
        if !health.is_gone() && health.is_busy() {
            Progress::Busy
        } else if registers.is_off(self.rings) {
            Progress::Done
        } else {
            Progress::Refused
        }
    }
}
