// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Which parts of a BAR the guest reaches by itself, and which only with our help.

use std::ops::Range;

/// What the hardware maps, in bytes.
pub(super) const PAGE: u64 = 4096;

/// A memory BAR of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BarShape {
    /// In bytes, a power of two.
    pub size: u64,
    /// The BAR's lowest four bits, which tell how far it reaches and whether it may be prefetched.
    pub kind: u8,
}

impl BarShape {
    /// Whether the next BAR holds the upper half of this one's address.
    pub fn is_64_bit(self) -> bool {
        self.kind & 0b110 == 0b100
    }
}

/// The ranges of a BAR to be mapped into the guest: those that can be mapped at all, without the
/// pages that have something of `trapped` on them. In rising order and by pages.
pub(super) fn mapped(mappable: &[Range<u64>], trapped: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut mapped: Vec<Range<u64>> = mappable
        .iter()
        .map(|range| range.start.next_multiple_of(PAGE)..range.end / PAGE * PAGE)
        .collect();
    for hole in trapped.iter().filter(|hole| !hole.is_empty()) {
        let hole = hole.start / PAGE * PAGE..hole.end.next_multiple_of(PAGE);
        mapped = mapped
            .into_iter()
            .flat_map(|range| {
                let before = range.start..range.end.min(hole.start);
                let after = range.start.max(hole.end)..range.end;
                [before, after]
            })
            .filter(|range| !range.is_empty())
            .collect();
    }
    mapped.retain(|range| !range.is_empty());
    mapped.sort_by_key(|range| range.start);
    mapped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[(u64, u64)]) -> Vec<Range<u64>> {
        pairs.iter().map(|&(start, end)| start..end).collect()
    }

    #[test]
    fn pages_with_something_trapped_are_left_out() {
        type Pairs = &'static [(u64, u64)];
        let cases: [(Pairs, Pairs, Pairs); 11] = [
            (&[(0, 0x4000)], &[], &[(0, 0x4000)]),
            (&[], &[(0, 0x1000)], &[]),
            // All of it is the table's.
            (&[(0, 0x1000)], &[(0, 0x50), (0x800, 0x808)], &[]),
            // The table in front, in the middle, at the end.
            (&[(0, 0x4000)], &[(0, 0x1000)], &[(0x1000, 0x4000)]),
            (
                &[(0, 0x4000)],
                &[(0x1ff0, 0x2010)],
                &[(0, 0x1000), (0x3000, 0x4000)],
            ),
            (&[(0, 0x4000)], &[(0x3f00, 0x4000)], &[(0, 0x3000)]),
            // The table and the pending bits.
            (
                &[(0, 0x6000)],
                &[(0x1000, 0x1010), (0x3800, 0x3808)],
                &[(0, 0x1000), (0x2000, 0x3000), (0x4000, 0x6000)],
            ),
            // What can be mapped are parts, in any order.
            (
                &[(0x4000, 0x6000), (0, 0x2000)],
                &[(0x5000, 0x5001)],
                &[(0, 0x2000), (0x4000, 0x5000)],
            ),
            // Parts of pages are not.
            (
                &[(0x800, 0x2800), (0x3000, 0x3800)],
                &[],
                &[(0x1000, 0x2000)],
            ),
            (&[(0, 0x2000)], &[(0x1000, 0x1000)], &[(0, 0x2000)]),
            (&[(0, 0x2000)], &[(0x8000, 0x9000)], &[(0, 0x2000)]),
        ];
        for (mappable, trapped, expected) in cases {
            let result = mapped(&ranges(mappable), &ranges(trapped));
            assert_eq!(
                result,
                ranges(expected),
                "{mappable:x?} without {trapped:x?}"
            );
        }
    }
}
