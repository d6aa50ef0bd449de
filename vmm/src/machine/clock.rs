// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The time that devices go by: that since the VMM's start, without pauses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Says that the clock stands still.
const STOPPED: u64 = 1 << 63;

/// A clock that can be stopped. Clones are the same clock.
///
/// While it stands still, the shared word is the time that it shows, with [`STOPPED`]. While it goes,
/// the word is how long it has stood still so far. A single word, because devices read it on each
/// access of a vCPU. Whoever reads it while it is being stopped may get a time that is a little
/// later than where it stops.
#[derive(Clone, Debug)]
pub struct Clock {
    start: Instant,
    state: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that goes, and was at zero at `start`.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            state: Arc::default(),
        }
    }

    /// Nanoseconds.
    pub fn now(&self) -> u64 {
        let state = self.state.load(Ordering::Acquire);
        if state & STOPPED != 0 {
            state & !STOPPED
        } else {
            self.since_start().saturating_sub(state)
        }
    }

    /// The same as a duration.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now())
    }

    /// Whether it stands still.
    pub fn is_stopped(&self) -> bool {
        self.state.load(Ordering::Acquire) & STOPPED != 0
    }

    /// Stops it, if it goes. One thread at a time stops and starts it.
    pub(crate) fn stop(&self) {
        if !self.is_stopped() {
            self.state.store(self.now() | STOPPED, Ordering::Release);
        }
    }

    /// Has it go on, if it stands still.
    pub(crate) fn go_on(&self) {
        if self.is_stopped() {
            let stood_still = self.since_start().saturating_sub(self.now());
            self.state.store(stood_still, Ordering::Release);
        }
    }

    fn since_start(&self) -> u64 {
        // Enough for three centuries, in 63 bits.
        self.start.elapsed().as_nanos() as u64 & !STOPPED
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    const STEP: Duration = Duration::from_millis(2);

    #[test]
    fn a_pause_takes_no_time() {
        let clock = Clock::new(Instant::now());
        let same = clock.clone();
        sleep(STEP);
        clock.stop();
        let at = clock.now();
        assert!(clock.elapsed() >= STEP);
        for _ in 0..3 {
            sleep(STEP);
            same.stop();
            assert_eq!((clock.now(), same.now()), (at, at));
        }
        assert!(clock.is_stopped() && same.is_stopped());
        same.go_on();
        assert!(!clock.is_stopped());
        let begin = Instant::now();
        sleep(STEP);
        clock.go_on();
        let after = clock.now();
        assert!(after >= at + STEP.as_nanos() as u64);
        // The pauses before, 6 ms at least, are not in it.
        assert!(Duration::from_nanos(after - at) <= begin.elapsed() + STEP);
    }
}
