// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What is said about a handful of samples.

/// The middle of `samples`, or the mean of the two in the middle; `None` if there are none.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => sorted.get(middle).copied(),
        _ => Some((sorted.get(middle - 1)? + sorted.get(middle)?) / 2.0),
    }
}

/// What y gains with each x: the median of the slopes between any two of the points (x, y), which one
/// odd point among them does not bend. `None` if no two have different x.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::new();
    for (index, one) in points.iter().enumerate() {
        for other in points.iter().skip(index + 1) {
            let slope = (other.1 - one.1) / (other.0 - one.0);
            if slope.is_finite() {
                slopes.push(slope);
            }
        }
    }
    median(&slopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (samples, expected) in [
            (&[][..], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[4.0, 1.0, 3.0, 100.0], Some(3.5)),
        ] {
            assert_eq!(median(samples), expected, "{samples:?}");
        }
    }

    #[test]
    fn slopes() {
        for (points, expected) in [
            (&[][..], None),
            (&[(1.0, 5.0)], None),
            (&[(1.0, 5.0), (1.0, 7.0)], None),
            (&[(1.0, 5.0), (3.0, 9.0)], Some(2.0)),
            (
                &[(0.0, 99.0), (1.0, 2.0), (2.0, 4.0), (3.0, 6.0), (4.0, 8.0)],
                Some(2.0),
            ),
        ] {
            assert_eq!(slope(points), expected, "{points:?}");
        }
    }
}
