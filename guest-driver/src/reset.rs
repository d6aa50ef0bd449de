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

/// The resets that programs ask for, and how far they are. Those that ask before one begins share it.
#[derive(Default)]
pub(crate) struct ResetRequests {
    wanted: bool,
    /// Resets that were begun because of a request.
    begun: u64,
    /// How many of those were begun when the device was last set up anew.
    done: u64,
}

/// The reset that somebody asked for.
#[derive(Clone, Copy)]
pub(crate) struct RequestedReset(u64);

impl ResetRequests {
    /// Asks for a reset that begins from now on.
    pub(crate) fn ask(&mut self) -> RequestedReset {
        self.wanted = true;
        RequestedReset(self.begun.wrapping_add(1))
    }

    /// Whether one is wanted, which the caller begins now.
    pub(crate) fn begin(&mut self) -> bool {
        let begins = core::mem::take(&mut self.wanted);
        self.begun = self.begun.wrapping_add(u64::from(begins));
        begins
    }

    /// The device was set up anew, after whatever reset.
    pub(crate) fn finish(&mut self) {
        self.done = self.begun;
    }

    /// Whether the device was set up anew after that reset.
    pub(crate) fn is_done(&self, reset: RequestedReset) -> bool {
        self.done >= reset.0
    }
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
