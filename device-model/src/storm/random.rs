// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Random numbers that are the same for the same seed, on every machine and in every version.

/// Steele, Lea and Flood's SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct SplitMix64(u64);

impl SplitMix64 {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero if that is zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// How far off the next of events is that come independently of each other, `mean` apart on
    /// average.
    ///
    /// The logarithm is not the machine's: that may differ in its last bit.
    pub(super) fn gap(&mut self, mean: f64) -> f64 {
        const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
        let uniform = ((self.next() >> 11) + 1) as f64 * UNIT;
        mean * -libm::log(uniform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers that the authors' own program gives for the seed 1234567.
    #[test]
    fn numbers_are_those_of_the_reference() {
        let mut random = SplitMix64::new(1_234_567);
        for expected in [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ] {
            assert_eq!(random.next(), expected);
        }
    }

    #[test]
    fn bounds_hold_and_gaps_have_their_mean() {
        let mut random = SplitMix64::new(1);
        for bound in [0, 1, 2, 1000, u64::MAX] {
            for _ in 0..1000 {
                assert!(random.below(bound) < bound.max(1));
            }
        }
        let sum: f64 = (0..100_000).map(|_| random.gap(10.0)).sum();
        assert!((980_000.0..1_020_000.0).contains(&sum), "{sum}");
    }
}
