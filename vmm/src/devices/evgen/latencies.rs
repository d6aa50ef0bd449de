// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How long interrupts took, as a histogram.

use hdrhistogram::Histogram;

/// Significant digits that are kept of each sample.
const DIGITS: u8 = 2;
/// Longest latency that is told from longer ones, in nanoseconds: ten minutes.
const LONGEST: u64 = 600_000_000_000;

/// All samples of a device, in some 30 KB however many they are.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
    sum: u64,
}

impl Latencies {
    /// No samples yet; `None` if such a histogram cannot be.
    fn new() -> Option<Self> {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS).ok()?;
        Some(Self { histogram, sum: 0 })
    }

    /// Adds `samples`, in nanoseconds, to those in `to`. Room for them is made at the first, so that
    /// a device that measures nothing costs nothing.
    pub(super) fn add(to: &mut Option<Self>, samples: &[u64]) {
        if to.is_none() && !samples.is_empty() {
            *to = Self::new();
        }
        let Some(latencies) = to else {
            return;
        };
        for &sample in samples {
            latencies.histogram.saturating_record(sample);
            latencies.sum = latencies.sum.saturating_add(sample);
        }
    }

    /// The samples, in nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_sample_will_do_and_none_costs_nothing() {
        let mut latencies = None;
        Latencies::add(&mut latencies, &[]);
        assert!(latencies.is_none());
        Latencies::add(&mut latencies, &[0, 1, 1_000_000, u64::MAX]);
        Latencies::add(&mut latencies, &[5]);
        let latencies = latencies.unwrap();
        assert_eq!(latencies.histogram().len(), 5);
        assert_eq!(latencies.sum(), u64::MAX);
        assert!(latencies.histogram().max() >= LONGEST);
    }
}
