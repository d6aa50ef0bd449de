// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Interrupt coalescing: fewer interrupts, for a bounded delay.

/// The coalescing of one ring: what the driver has set, and what waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coalescing {
    /// Events that make an interrupt worth while; 0 and 1 mean every one.
    pub count: u32,
    /// Microseconds that an event waits for others at most; 0 means that none waits.
    pub time: u32,
    /// Events delivered since the last interrupt.
    waiting: u32,
    /// When the interrupt is sent at the latest; `None` if none of those that wait deserves one.
    due: Option<u64>,
}

impl Coalescing {
    /// An event was delivered at `now`; the driver wants an interrupt for it or not. Gives whether to
    /// send one now.
    pub fn event(&mut self, wanted: bool, now: u64) -> bool {
        if self.count <= 1 || self.time == 0 {
            return wanted;
        }
        self.waiting = self.waiting.saturating_add(1);
        if wanted && self.due.is_none() {
            self.due = Some(now.saturating_add(u64::from(self.time) * 1000));
        }
        self.due.is_some() && self.waiting >= self.count && self.flush()
    }

    /// When [`Self::expire`] is to be called.
    pub fn due(&self) -> Option<u64> {
        self.due
    }

    /// Whether an interrupt has waited for long enough; then it is to be sent now.
    pub fn expire(&mut self, now: u64) -> bool {
        self.due.is_some_and(|due| due <= now) && self.flush()
    }

    /// Lets nothing wait any more; whether an interrupt did, which is to be sent now.
    pub fn flush(&mut self) -> bool {
        self.waiting = 0;
        self.due.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: u64 = 1000;

    fn coalescing(count: u32, time: u32) -> Coalescing {
        Coalescing {
            count,
            time,
            ..Coalescing::default()
        }
    }

    #[test]
    fn without_both_settings_nothing_waits() {
        for (count, time) in [(0, 0), (1, 50), (8, 0)] {
            let mut coalescing = coalescing(count, time);
            assert!(coalescing.event(true, 5));
            assert!(!coalescing.event(false, 6));
            assert_eq!(coalescing.due(), None);
        }
    }

    #[test]
    fn the_count_or_the_time_sends_one() {
        let mut coalescing = coalescing(3, 50);
        for _ in 0..2 {
            assert!(!coalescing.event(true, 100));
            assert!(!coalescing.event(true, 200));
            assert_eq!(coalescing.due(), Some(100 + 50 * MICROSECOND));
            assert!(coalescing.event(true, 300));
            assert_eq!(coalescing.due(), None);
        }
        assert!(!coalescing.event(true, 1000));
        assert!(!coalescing.expire(1000 + 50 * MICROSECOND - 1));
        assert!(coalescing.expire(1000 + 50 * MICROSECOND));
        assert!(!coalescing.expire(u64::MAX));
    }

    #[test]
    fn what_deserves_no_interrupt_brings_none_but_counts() {
        let mut coalescing = coalescing(3, 50);
        for _ in 0..5 {
            assert!(!coalescing.event(false, 100));
        }
        assert_eq!(coalescing.due(), None);
        assert!(coalescing.event(true, 200));
    }
}
