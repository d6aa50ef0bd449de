// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the machine does for each request.

use std::ops::RangeInclusive;
use std::sync::Arc;

use lockstorm_device_model::abi::event::PAYLOAD_SIZE;
use lockstorm_device_model::{Fault, Injection, Storm, StormError};
use thiserror::Error;
use vmm_sys_util::eventfd::EventFd;

use super::measured;
use super::metrics;
use super::reply::{About, EventLine, Reply};
use super::request::{Inject, InjectFault, Mask, PROTOCOL, Request, StormStart, Withhold};
use super::stats::MachineStats;
use crate::devices::evgen::{CommandError, EvgenHost};
use crate::machine::exits::ExitCounts;
use crate::machine::run_control::{PauseError, RunControl};

/// Events or faults that one request may be about, so that neither the next in line nor the end of
/// the run waits for long.
pub(super) const COUNTS: RangeInclusive<u32> = 1..=65_536;

/// Does what requests say.
pub trait Handler: Send + Sync {
    /// Does `request`, or changes nothing. Of [`Request::Events`] it only says whether it can be
    /// done; of [`Request::Quit`], that it can.
    fn handle(&self, request: &Request) -> Reply;

    /// Has events be told, from now on, of just those devices that are `wanted`.
    fn observe(&self, wanted: &dyn Fn(usize) -> bool);

    /// Readable when there are events to be told of.
    fn stream(&self) -> &EventFd;

    /// Takes the events there are: a bounded number.
    fn take_events(&self) -> Vec<EventLine>;
}

/// A machine as its control socket sees it.
pub struct Commands {
    evgen: Arc<EvgenHost>,
    run_control: Arc<RunControl>,
    exits: Arc<[ExitCounts]>,
}

/// A request that cannot be done. Nothing has changed then.
#[derive(Debug, Error)]
enum Refusal {
    #[error("{command}: count is {count}, must be {first} to {last}", first = COUNTS.start(), last = COUNTS.end())]
    Count { command: &'static str, count: u32 },
    #[error(transparent)]
    Evgen(#[from] CommandError),
    #[error(transparent)]
    Storm(#[from] StormError),
    #[error(transparent)]
    Pause(#[from] PauseError),
}

impl Commands {
    /// What `evgen` and `run_control` can do, and what `exits` count.
    pub fn new(
        evgen: Arc<EvgenHost>,
        run_control: Arc<RunControl>,
        exits: Arc<[ExitCounts]>,
    ) -> Self {
        Self {
            evgen,
            run_control,
            exits,
        }
    }

    fn try_handle(&self, request: &Request) -> Result<Reply, Refusal> {
        let mut reply = Reply::done();
        match request {
            Request::Version {} => reply.about = Some(self.about()),
            Request::Inject(inject) => self.inject(inject)?,
            Request::Withhold(Withhold {
                device,
                ring,
                count,
            }) => {
                check_count("withhold", *count)?;
                self.evgen.withhold(*device, *ring, *count)?;
            }
            Request::StormStart(StormStart { storm, devices }) => {
                let storm = Storm::from_token(storm)?;
                self.evgen.start_storm(&storm, devices.as_deref())?;
                reply.token = Some(storm.token());
            }
            Request::StormStop {} => self.evgen.stop_storm(),
            Request::StormStatus {} => {
                let stats = self.evgen.stats().into_iter();
                let storms = stats.map(|stats| stats.storm.map(measured::storm));
                reply.storms = Some(storms.collect());
            }
            Request::Fault(InjectFault {
                device,
                ring,
                fault,
                count,
            }) => {
                check_count("fault", *count)?;
                self.evgen.inject_fault(*device, *ring, *fault, *count)?;
            }
            Request::Mask(Mask {
                device,
                vector,
                masked,
            }) => self.evgen.hold_vector(*device, *vector, *masked)?,
            Request::Reset(reset) => self.evgen.reset(reset.device)?,
            Request::Stats {} => reply.stats = Some(self.stats()),
            Request::Metrics {} => reply.metrics = Some(metrics::text(&self.stats())),
            Request::Events(events) => {
                self.evgen.named(events.devices.as_deref())?;
            }
            Request::Pause {} => {
                self.run_control.pause()?;
                self.evgen.stand_still();
            }
            Request::Resume {} => {
                self.run_control.resume()?;
                self.evgen.go_on();
            }
            Request::Quit {} => {}
        }
        Ok(reply)
    }

    fn inject(&self, inject: &Inject) -> Result<(), Refusal> {
        let Inject {
            device,
            ring,
            count,
            kind,
            acknowledge,
        } = *inject;
        check_count("inject", count)?;
        let injection = Injection {
            ring,
            kind,
            payload: [0; PAYLOAD_SIZE],
            count,
            acknowledge,
        };
        Ok(self.evgen.inject(device, injection)?)
    }

    fn about(&self) -> About {
        About {
            protocol: PROTOCOL,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            devices: self.evgen.stats().iter().map(measured::about).collect(),
            faults: Fault::ALL.iter().map(Fault::to_string).collect(),
        }
    }

    fn stats(&self) -> MachineStats {
        let devices = self.evgen.stats().into_iter().zip(self.evgen.latencies());
        MachineStats {
            time: self.run_control.clock().now(),
            paused: self.run_control.is_paused(),
            devices: devices
                .map(|(stats, latencies)| measured::device(stats, latencies.as_ref()))
                .collect(),
            interrupts_lost: self.evgen.interrupts_lost(),
            exits: ExitCounts::sums(&self.exits),
        }
    }
}

impl Handler for Commands {
    fn handle(&self, request: &Request) -> Reply {
        self.try_handle(request).unwrap_or_else(Reply::error)
    }

    fn observe(&self, wanted: &dyn Fn(usize) -> bool) {
        self.evgen.observe(wanted);
    }

    fn stream(&self) -> &EventFd {
        self.evgen.feed().ready()
    }

    fn take_events(&self) -> Vec<EventLine> {
        let events = self.evgen.feed().take().into_iter();
        events.map(measured::event_line).collect()
    }
}

fn check_count(command: &'static str, count: u32) -> Result<(), Refusal> {
    if COUNTS.contains(&count) {
        Ok(())
    } else {
        Err(Refusal::Count { command, count })
    }
}

#[cfg(test)]
#[path = "commands_test.rs"]
mod tests;
