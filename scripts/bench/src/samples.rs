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

/// The least-squares line through points (x, y), as (what y is at x = 0, what y gains with each x).
/// `None` if the points lie at fewer than two places x.
pub fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    // Not a number either, where there are no points.
    if spread.is_nan() || spread <= 0.0 {
        return None;
    }
    let common: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let slope = common / spread;
    Some((mean_y - slope * mean_x, slope))
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
    fn lines() {
        for (points, expected) in [
            (&[][..], None),
            (&[(1.0, 5.0)], None),
            (&[(1.0, 5.0), (1.0, 7.0)], None),
            (&[(1.0, 5.0), (3.0, 9.0)], Some((3.0, 2.0))),
            (&[(0.0, 1.0), (1.0, 0.0), (2.0, 5.0)], Some((0.0, 2.0))),
        ] {
            assert_eq!(line(points), expected, "{points:?}");
        }
    }
}
