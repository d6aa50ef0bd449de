// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How often vCPUs left the guest for this program, and why.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a vCPU left the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExitReason {
    IoIn,
    IoOut,
    MmioRead,
    MmioWrite,
    /// A signal: the machine pauses or ends.
    Signal,
    /// Anything else. Most of these end the run.
    Other,
}

/// The reasons as they are named to users, in the order of [`ExitReason`].
const NAMES: [&str; 6] = [
    "io-in",
    "io-out",
    "mmio-read",
    "mmio-write",
    "signal",
    "other",
];

/// Exits of one vCPU.
///
/// Only the vCPU's thread counts, so that counting is never in anybody's way. Others may read at any
/// time; what they get may be one behind.
#[derive(Debug, Default)]
pub struct ExitCounts([AtomicU64; NAMES.len()]);

impl ExitCounts {
    pub(super) fn count(&self, reason: ExitReason) {
        if let Some(count) = self.0.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The sums over several vCPUs, by the name of the reason; only what has come about.
    pub fn sums(of: &[Self]) -> BTreeMap<String, u64> {
        let all = NAMES.iter().enumerate().map(|(reason, name)| {
            let counts = of.iter().filter_map(|counts| counts.0.get(reason));
            let sum = counts.map(|count| count.load(Ordering::Relaxed)).sum();
            ((*name).to_owned(), sum)
        });
        all.filter(|&(_, sum)| sum > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_under_its_name() {
        let vcpus = [ExitCounts::default(), ExitCounts::default()];
        assert!(ExitCounts::sums(&vcpus).is_empty());
        for (times, (reason, name)) in (1..).zip([
            (ExitReason::IoIn, "io-in"),
            (ExitReason::IoOut, "io-out"),
            (ExitReason::MmioRead, "mmio-read"),
            (ExitReason::MmioWrite, "mmio-write"),
            (ExitReason::Signal, "signal"),
            (ExitReason::Other, "other"),
        ]) {
            for _ in 0..times {
                vcpus[0].count(reason);
            }
            vcpus[1].count(reason);
            assert_eq!(ExitCounts::sums(&vcpus)[name], times + 1);
        }
    }
}
