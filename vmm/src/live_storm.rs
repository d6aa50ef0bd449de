// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The storms of `lockstorm boot --storm`: each begins when the guest is ready for it, shows a line
//! per second, and in the end what its events come to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockstorm_device_model::{Storm, StormStatus};

use crate::console::tell;
use crate::devices::evgen::{EvgenHost, Figures};
use crate::supervisor::{Ending, status};

/// The mark at which the next storm begins: the guest's workload runs.
const READY: &str = "ready";
const INTERVAL: Duration = Duration::from_secs(1);

/// The storms, before and while they run.
pub struct LiveStorm {
    host: Arc<EvgenHost>,
    /// Those that have not begun, the next one first.
    waiting: VecDeque<Storm>,
    running: Option<Running>,
    refused: bool,
}

struct Running {
    start: Instant,
    shown: Instant,
    totals: Totals,
}

impl LiveStorm {
    /// The storms that are asked for, on `host`'s devices, in this order.
    pub fn new(host: Arc<EvgenHost>, storms: Vec<Storm>) -> Self {
        Self {
            host,
            waiting: storms.into(),
            running: None,
            refused: false,
        }
    }

    /// The guest has set a mark.
    pub fn mark(&mut self, name: &str, now: Instant) {
        if name != READY {
            return;
        }
        // The last one may be over, and not told yet.
        self.finish();
        let Some(storm) = self.waiting.pop_front() else {
            return;
        };
        let totals = Totals::of(&self.host.figures());
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
        let missing = if self.refused {
            "a device refused a storm (--storm)".to_owned()
        } else if self.waiting.is_empty() {
            return ending;
        } else {
            format!(
                "{} of the storms (--storm) never began: the guest did not set the mark `{READY}`",
                self.waiting.len()
            )
        };
        if ending.status != status::OK {
            return ending;
        }
        Ending {
            status: status::FINDING,
            message: Some(missing),
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
        let totals = Totals::of(&self.host.figures());
        let elapsed = now.saturating_duration_since(running.start);
        tell(live_line(elapsed, interval, &running.totals, &totals));
        running.shown = now;
        running.totals = totals;
        self.finish();
    }

    /// Tells what the events of the storm come to, if it is over and was not told yet.
    pub fn finish(&mut self) {
        let devices = self.host.figures();
        if self.running.is_none() || Totals::of(&devices).storms > 0 {
            return;
        }
        self.running = None;
        for figures in devices {
            if let Some(storm) = figures.stats.storm {
                tell(end_line(figures.device, &storm));
            }
        }
    }
}

/// What one device made of a storm. The same storm gives the same digest.
fn end_line(device: usize, storm: &StormStatus) -> String {
    format!(
        "storm over on device {device}: {} events, digest {:016x}",
        grouped(storm.made),
        storm.digest
    )
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
    fn of(devices: &[Figures]) -> Self {
        let mut totals = Self::default();
        for Figures { stats: device, .. } in devices {
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
    use lockstorm_device_model::Config;

    use super::*;
    use crate::devices::evgen;
    use crate::machine::clock::Clock;

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
    fn each_ready_begins_the_next_storm_and_all_must_begin() {
        let clock = Clock::new(Instant::now());
        let host = Arc::new(evgen::without_kvm(2, Config::default(), &clock));
        let storm = |rate| {
            let phase = format!("pattern = 'periodic'\nrate = {rate}\nduration_ms = 3_600_000");
            Storm::from_toml(&format!("[[phase]]\n{phase}")).unwrap()
        };
        let totals = || {
            let figures = host.figures().into_iter();
            let running = figures.filter_map(|figures| figures.stats.storm);
            running.map(|storm| storm.total).collect::<Vec<_>>()
        };
        let good = || Ending {
            status: status::OK,
            message: None,
        };
        let now = Instant::now();
        let mut live = LiveStorm::new(Arc::clone(&host), vec![storm(1), storm(2)]);
        live.mark("driver", now);
        assert_eq!(totals(), []);
        live.mark(READY, now);
        assert_eq!(totals(), [Some(14_400); 2]);
        assert_eq!(live.judge(good()).status, status::FINDING);
        host.stop_storm();
        live.mark(READY, now);
        assert_eq!(totals(), [Some(28_800); 2]);
        assert_eq!(live.judge(good()), good());
        // There is none for this one, so the last one goes on.
        live.mark(READY, now);
        assert!(host.figures()[0].stats.storm.unwrap().running);
        assert_eq!(live.judge(good()), good());
    }

    #[test]
    fn a_storm_that_finds_another_is_a_finding() {
        let clock = Clock::new(Instant::now());
        let host = Arc::new(evgen::without_kvm(1, Config::default(), &clock));
        let calm = || Storm::named("calm").unwrap();
        let mut live = LiveStorm::new(Arc::clone(&host), vec![calm(), calm()]);
        live.mark(READY, Instant::now());
        live.mark(READY, Instant::now());
        let ending = live.judge(Ending {
            status: status::OK,
            message: None,
        });
        assert_eq!(ending.status, status::FINDING);
        assert!(ending.message.unwrap().contains("refused"));
    }

    #[test]
    fn the_last_line_tells_the_digest() {
        let storm = StormStatus {
            running: false,
            made: 8000,
            total: Some(8000),
            elapsed: 1_000_000_000,
            digest: 0xabc,
        };
        assert_eq!(
            end_line(1, &storm),
            "storm over on device 1: 8,000 events, digest 0000000000000abc"
        );
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
