// SPDX-License-Identifier: Apache-2.0 OR MIT

//! How long the steps of a run took, as the guest's marks tell it.

use std::fmt;
use std::time::Duration;

/// The marks of a run, in the order in which the guest set them.
#[derive(Debug, Default)]
pub struct Timeline(Vec<(String, Duration)>);

impl Timeline {
    /// Adds a mark that the guest set `at` this time after the VMM's start.
    pub fn mark(&mut self, name: &str, at: Duration) {
        self.0.push((name.into(), at));
    }

    /// Whether the guest has set no mark.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the time that ends at a known mark was spent with.
fn step(mark: &str) -> &str {
    match mark {
        "init" => "VMM start → guest init",
        "driver" => "driver probe",
        "ready" => "workload start",
        "done" => "workload",
        other => other,
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = Duration::ZERO;
        for (index, (name, at)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " · " };
            let seconds = at.saturating_sub(before).as_secs_f64();
            write!(f, "{separator}{} {seconds:.2} s", step(name))?;
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
        let mut timeline = Timeline::default();
        assert_eq!(timeline.to_string(), "");
        for (name, milliseconds) in [("init", 2310), ("driver", 2430), ("tea", 3000)] {
            timeline.mark(name, Duration::from_millis(milliseconds));
        }
        let expected = "VMM start → guest init 2.31 s · driver probe 0.12 s · tea 0.57 s";
        assert_eq!(timeline.to_string(), expected);
    }
}
