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
use super::reply::{About, EventLine, Plugged, Reply, StormOn};
use super::request::{
    Inject, InjectFault, Mask, PROTOCOL, Plug, Request, StormStart, Unplug, Withhold,
};
use super::stats::MachineStats;
use crate::devices::evgen::{CommandError, EvgenHost};
use crate::devices::hot_plug::{self, HotPlug, HotPlugError};
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
    hot_plug: Box<dyn HotPlug>,
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
    HotPlug(#[from] HotPlugError),
    #[error(transparent)]
    Storm(#[from] StormError),
    #[error(transparent)]
    Pause(#[from] PauseError),
}

impl Commands {
    /// What `evgen`, `hot_plug` and `run_control` can do, and what `exits` count.
    pub fn new(
        evgen: Arc<EvgenHost>,
        hot_plug: Box<dyn HotPlug>,
        run_control: Arc<RunControl>,
        exits: Arc<[ExitCounts]>,
    ) -> Self {
        Self {
            evgen,
            hot_plug,
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
                let figures = self.evgen.figures().into_iter();
                let storms = figures.filter_map(|figures| {
                    let storm = measured::storm(figures.stats.storm?);
                    let device = figures.device;
                    Some(StormOn { device, storm })
                });
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
            Request::Plug(Plug {
                rings,
                vectors,
                slot,
            }) => {
                let plugged = self.hot_plug.plug(*rings, *vectors, *slot)?;
                let hot_plug::Plugged { device, slot } = plugged;
                reply.plugged = Some(Plugged { device, slot });
            }
            Request::Unplug(Unplug { device, surprise }) => {
                if *surprise {
                    self.hot_plug.pull(*device)?;
                } else {
                    self.hot_plug.unplug(*device)?;
                }
            }
            Request::Stats {} => reply.stats = Some(self.stats()),
            Request::Metrics {} => reply.metrics = Some(metrics::text(&self.stats())),
            Request::Events(events) => {
                self.evgen.check(events.devices.as_deref())?;
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
        let figures = self.evgen.figures();
        let devices = figures.iter().filter(|figures| !figures.gone);
        About {
            protocol: PROTOCOL,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            devices: devices.map(measured::about).collect(),
            faults: Fault::ALL.iter().map(Fault::to_string).collect(),
        }
    }

    fn stats(&self) -> MachineStats {
        let (devices, slots) = (self.evgen.figures(), self.hot_plug.slots());
        MachineStats {
            time: self.run_control.clock().now(),
            paused: self.run_control.is_paused(),
            devices: devices.into_iter().map(measured::device).collect(),
            forgotten: measured::forgotten(self.evgen.forgotten()),
            slots: slots.into_iter().map(measured::slot).collect(),
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
