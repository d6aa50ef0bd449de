// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The storm of `lockstorm boot --storm`: begins when the guest is ready, and shows a line per
//! second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::console::tell;
use crate::control::{Totals, live_line};
use crate::devices::evgen::{EvgenHost, StormRequest};

/// The mark at which the storm begins: the guest's workload runs.
const READY: &str = "ready";
const INTERVAL: Duration = Duration::from_secs(1);

/// The storm, before and while it runs.
pub struct LiveStorm {
    host: Arc<EvgenHost>,
    /// Taken when it begins.
    request: Option<StormRequest>,
    running: Option<Running>,
}

struct Running {
    start: Instant,
    shown: Instant,
    totals: Totals,
}

impl LiveStorm {
    /// The storm that is asked for, if there is one, on `host`'s devices.
    pub fn new(host: Arc<EvgenHost>, request: Option<StormRequest>) -> Self {
        Self {
            host,
            request,
            running: None,
        }
    }

    /// The guest has set a mark.
    pub fn mark(&mut self, name: &str, now: Instant) {
        if name != READY {
            return;
        }
        let Some(request) = self.request.take() else {
            return;
        };
        let totals = Totals::of(&self.host.stats());
        if let Err(error) = self.host.start_storm(&request) {
            tell(format_args!("the storm does not start: {error}"));
            return;
        }
        self.running = Some(Running {
            start: now,
            shown: now,
            totals,
        });
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
