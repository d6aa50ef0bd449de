// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The line per second that shows how a storm goes on.

use std::time::Duration;

use lockstorm_device_model::Stats;

/// Sums over all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events made.
    pub generated: u64,
    /// Events written to guest memory.
    pub delivered: u64,
    /// Events made but not written.
    pub dropped: u64,
    /// Interrupts sent.
    pub interrupts: u64,
    /// Devices with a storm under way.
    pub storms: usize,
}

impl Totals {
    /// Adds up what the devices have counted.
    pub fn of(devices: &[Stats]) -> Self {
        let mut totals = Self::default();
        for device in devices {
            for ring in &device.rings {
                totals.generated += ring.generated;
                totals.delivered += ring.delivered;
                totals.dropped += ring.dropped;
            }
            totals.interrupts += device.raised.iter().sum::<u64>();
            totals.storms += usize::from(device.storm_remaining.is_some());
        }
        totals
    }
}

/// What happened in the `interval` between two looks, the second of them `elapsed` after the
/// storm's start.
pub fn live_line(elapsed: Duration, interval: Duration, before: &Totals, after: &Totals) -> String {
    // A driver that resets its device sets the counters back: then there is nothing to say.
    let made = after.generated.saturating_sub(before.generated);
    let rate = made as f64 / interval.as_secs_f64().max(f64::MIN_POSITIVE);
    format!(
        "storm {:>4.0} s  {:>10} events/s  {:>12} delivered  {:>10} dropped  {:>11} interrupts",
        elapsed.as_secs_f64(),
        grouped(rate as u64),
        grouped(after.delivered),
        grouped(after.dropped),
        grouped(after.interrupts),
    )
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_the_rate_and_the_sums() {
        let before = Totals {
            generated: 100_000,
            ..Totals::default()
        };
        let after = Totals {
            generated: 260_000,
            delivered: 259_000,
            dropped: 1000,
            interrupts: 12,
            storms: 1,
        };
        let seconds = Duration::from_secs;
        let line = live_line(seconds(3), Duration::from_millis(500), &before, &after);
        assert_eq!(
            line,
            "storm    3 s     320,000 events/s       259,000 delivered       1,000 dropped           12 interrupts"
        );
        for (interval, before, after) in [(0, before, after), (0, after, after), (1, after, before)]
        {
            live_line(seconds(3), seconds(interval), &before, &after);
        }
    }

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
