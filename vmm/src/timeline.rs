// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How long the steps of a run took, as the guest's marks tell it.

use std::fmt;
use std::time::Duration;

/// The mark that says that the driver has all devices.
const PROBED: &str = "driver";

/// The marks of a run, in the order in which the guest set them.
#[derive(Debug)]
pub struct Timeline {
    devices: usize,
    marks: Vec<(String, Duration)>,
}

impl Timeline {
    /// That of a guest with so many devices, which has set no mark yet.
    pub fn new(devices: usize) -> Self {
        Self {
            devices,
            marks: Vec::new(),
        }
    }

    /// Adds a mark that the guest set `at` this time after the VMM's start.
    pub fn mark(&mut self, name: &str, at: Duration) {
        self.marks.push((name.into(), at));
    }

    /// Whether the guest has set no mark.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }
}

/// What the time that ends at a known mark was spent with.
fn step(mark: &str) -> &str {
    match mark {
        "init" => "VMM start → guest init",
        PROBED => "driver probe",
        "ready" => "workload start",
        "done" => "workload",
        other => other,
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = Duration::ZERO;
        for (index, (name, at)) in self.marks.iter().enumerate() {
            let separator = if index == 0 { "" } else { " · " };
            let seconds = at.saturating_sub(before).as_secs_f64();
            write!(f, "{separator}{} {seconds:.2} s", step(name))?;
            if name == PROBED && self.devices > 1 {
                let each = 1e3 * seconds / self.devices as f64;
                write!(f, " ({} devices, {each:.0} ms each)", self.devices)?;
            }
            before = *at;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_differences() {
        for (devices, each) in [(0, ""), (1, ""), (3, " (3 devices, 40 ms each)")] {
            let mut timeline = Timeline::new(devices);
            assert_eq!(timeline.to_string(), "");
            for (name, milliseconds) in [("init", 2310), ("driver", 2430), ("tea", 3000)] {
                timeline.mark(name, Duration::from_millis(milliseconds));
            }
            let expected =
                format!("VMM start → guest init 2.31 s · driver probe 0.12 s{each} · tea 0.57 s");
            assert_eq!(timeline.to_string(), expected);
        }
    }
}
