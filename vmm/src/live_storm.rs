// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The storm of `lockstorm boot --storm`: begins when the guest is ready, and shows a line per
//! second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lockstorm_device_model::{Stats, Storm};

use crate::console::tell;
use crate::devices::evgen::EvgenHost;
use crate::supervisor::{Ending, status};

/// The mark at which the storm begins: the guest's workload runs.
const READY: &str = "ready";
const INTERVAL: Duration = Duration::from_secs(1);

/// The storm, before and while it runs.
pub struct LiveStorm {
    host: Arc<EvgenHost>,
    /// Taken when it begins.
    storm: Option<Storm>,
    running: Option<Running>,
    refused: bool,
}

struct Running {
    start: Instant,
    shown: Instant,
    totals: Totals,
}

impl LiveStorm {
    /// The storm that is asked for, if there is one, on `host`'s devices.
    pub fn new(host: Arc<EvgenHost>, storm: Option<Storm>) -> Self {
        Self {
            host,
            storm,
            running: None,
            refused: false,
        }
    }

    /// The guest has set a mark.
    pub fn mark(&mut self, name: &str, now: Instant) {
        if name != READY {
            return;
        }
        let Some(storm) = self.storm.take() else {
            return;
        };
        let totals = Totals::of(&self.host.stats());
        if let Err(error) = self.host.start_storm(&storm, None) {
            tell(format_args!("the storm does not start: {error}"));
            self.refused = true;
            return;
        }
        tell(format_args!("token of this storm: {}", storm.token()));
        self.running = Some(Running {
            start: now,
            shown: now,
            totals,
        });
    }

    /// How a run is to be told that ended as `ending`: without its storm it did not go well.
    pub fn judge(&self, ending: Ending) -> Ending {
        let missed = self.refused || self.storm.is_some();
        if missed && ending.status == status::OK {
            Ending {
                status: status::FINDING,
                message: Some(format!(
                    "the storm never began (--storm): the guest did not set the mark `{READY}`, \
                     or a device refused it"
                )),
            }
        } else {
            ending
        }
    }

    /// When [`LiveStorm::show`] is to be called next.
    pub fn due(&self) -> Option<Instant> {
        self.running
            .as_ref()
            .map(|running| running.shown + INTERVAL)
    }

    /// Prints a line if one is due at `now`; the last one when the storm is over.
    pub fn show(&mut self, now: Instant) {
        let Some(running) = &mut self.running else {
            return;
        };
        let interval = now.saturating_duration_since(running.shown);
        if interval < INTERVAL {
            return;
        }
        let totals = Totals::of(&self.host.stats());
        let elapsed = now.saturating_duration_since(running.start);
        tell(live_line(elapsed, interval, &running.totals, &totals));
        running.shown = now;
        running.totals = totals;
        if totals.storms == 0 {
            self.running = None;
        }
    }
}

/// Sums over all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    /// Events made.
    generated: u64,
    /// Events written to guest memory.
    delivered: u64,
    /// Events made but not written.
    dropped: u64,
    /// Interrupts sent.
    interrupts: u64,
    /// Devices with a storm under way.
    storms: usize,
}

impl Totals {
    /// Adds up what the devices have counted.
    fn of(devices: &[Stats]) -> Self {
        let mut totals = Self::default();
        for device in devices {
            for ring in &device.rings {
                totals.generated += ring.generated;
                totals.delivered += ring.delivered;
                totals.dropped += ring.dropped;
            }
            totals.interrupts += device.raised.iter().sum::<u64>();
            totals.storms += usize::from(device.storm.is_some_and(|storm| storm.running));
        }
        totals
    }
}

/// What happened in the `interval` between two looks, the second of them `elapsed` after the
/// storm's start.
fn live_line(elapsed: Duration, interval: Duration, before: &Totals, after: &Totals) -> String {
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
