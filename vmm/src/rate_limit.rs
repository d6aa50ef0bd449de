// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Keeps whoever can cause a warning again and again from filling the log.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts how often something has come about. The log is to hear of the 1st, 2nd, 4th, 8th … time.
#[derive(Debug, Default)]
pub struct Occurrences(AtomicU64);

impl Occurrences {
    /// Not once so far.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one more; gives the count so far if the log is to hear of this one.
    pub fn add(&self) -> Option<u64> {
        let so_far = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        so_far.is_power_of_two().then_some(so_far)
    }

    /// How often so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_times_are_twenty_lines() {
        let occurrences = Occurrences::default();
        let heard: Vec<u64> = (0..1_000_000).filter_map(|_| occurrences.add()).collect();
        assert_eq!(heard.len(), 20);
        assert_eq!(heard[..5], [1, 2, 4, 8, 16]);
        assert_eq!(occurrences.count(), 1_000_000);
    }
}
