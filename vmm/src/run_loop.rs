// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A run under way: what its events come to.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use lockstorm_device_model::Storm;

use crate::devices::evgen::EvgenHost;
use crate::live_storm::LiveStorm;
use crate::machine::events::Event;
use crate::supervisor::{Ending, Rules, Supervisor};
use crate::timeline::Timeline;

/// A run under way.
pub struct RunLoop {
    supervisor: Supervisor,
    /// The storms that are asked for.
    pub storm: LiveStorm,
    /// What the guest has told of how far it is.
    pub timeline: Timeline,
}

impl RunLoop {
    /// A run that began at `start`, is judged by `rules`, and has the devices of `evgen` storm.
    pub fn new(rules: Rules, start: Instant, evgen: &Arc<EvgenHost>, storms: &[Storm]) -> Self {
        Self {
            supervisor: Supervisor::new(rules, start),
            storm: LiveStorm::new(Arc::clone(evgen), storms.to_vec()),
            timeline: Timeline::new(evgen.figures().len()),
        }
    }

    /// Follows the events in `inbox` until they or the time end the run.
    pub fn until_end(&mut self, inbox: &Receiver<Event>) -> Ending {
        loop {
            let now = Instant::now();
            if let Some(ending) = self.supervisor.expire(now) {
                return ending;
            }
            self.storm.show(now);
            let due = [self.supervisor.deadline(), self.storm.due()];
            let event = match due.into_iter().flatten().min() {
                Some(due) => inbox.recv_timeout(due.saturating_duration_since(now)).ok(),
                None => inbox.recv().ok(),
            };
            // There are always senders, the caller for one, so it is the time that has come.
            let Some(event) = event else { continue };
            let now = Instant::now();
            if let Event::Mark { name, at } = &event {
                self.timeline.mark(name, *at);
                self.storm.mark(name, now);
            }
            if let Some(ending) = self.supervisor.handle(event, now) {
                return ending;
            }
        }
    }
}
