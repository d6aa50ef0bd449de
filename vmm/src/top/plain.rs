// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Plain lines, for files and pipes.

use std::fmt::Display;
use std::io::{Result, Write};

use super::rates::{DeviceSample, Sample, rate, storm};
use crate::control::Nanoseconds;

/// Writes a line for each device, and one for all.
pub fn write(to: &mut impl Write, sample: &Sample) -> Result<()> {
    let seconds = sample.time.as_secs_f64();
    for device in &sample.devices {
        let number = device.device;
        writeln!(to, "{seconds:>9.1} s  device {number}  {}", Line(device))?;
    }
    let paused = if sample.paused { "  paused" } else { "" };
    let lost = match sample.interrupts_lost {
        0 => String::new(),
        lost => format!("  {lost} interrupts lost by the host"),
    };
    writeln!(to, "{seconds:>9.1} s  {}{lost}{paused}", sample.verdict)?;
    to.flush()
}

struct Line<'a>(&'a DeviceSample);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(device) = self;
        let sum =
            |of: fn(&super::rates::RingSample) -> f64| rate(device.rings.iter().map(of).sum());
        let interrupts = rate(device.vectors.values().sum());
        write!(
            f,
            "{:>6} events/s {interrupts:>6} interrupts/s {:>6} dropped/s {:>6} faulted/s",
            sum(|ring| ring.events),
            sum(|ring| ring.dropped),
            sum(|ring| ring.faulted),
        )?;
        if let Some(latency) = &device.latency {
            let (p50, p99) = (Nanoseconds(latency.p50), Nanoseconds(latency.p99));
            write!(f, "  p50 {p50} p99 {p99} max {}", Nanoseconds(latency.max))?;
        }
        write!(f, "  {}", storm(device.storm.as_ref()))?;
        f.write_str(if device.gone { "  gone" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::top::rates::tests::stats;

    #[test]
    fn a_line_for_each_device_and_one_for_all() {
        let mut after = stats(2);
        let second = Duration::from_secs(1);
        let text = |sample: &Sample| {
            let mut text = Vec::new();
            write(&mut text, sample).unwrap();
            String::from_utf8(text).unwrap()
        };
        let expected = "      4.0 s  device 0      60 events/s     16 interrupts/s     20 dropped/s     \
10 faulted/s  p50 8.20 µs p99 120 µs max 3.40 ms  storm 50 %, 120 events in 1.5 s
      4.0 s  device 1       0 events/s      0 interrupts/s      0 dropped/s      0 faulted/s  no storm
      4.0 s  law holds: 120 events, 0 unaccounted for
";
        assert_eq!(text(&Sample::between(&stats(1), &after, second)), expected);
        after.paused = true;
        after.interrupts_lost = 3;
        let text = text(&Sample::between(&stats(1), &after, second));
        assert!(
            text.ends_with("for  3 interrupts lost by the host  paused\n"),
            "{text}"
        );
    }
}
