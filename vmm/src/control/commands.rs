// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the machine does for each request.

use lockstorm_device_model::Stats;

use super::protocol::{DeviceStats, Inject, MachineStats, Reply, Request, RingStats, Withhold};
use crate::devices::evgen::EvgenHost;

/// Events that one request may inject, so that neither the next in line nor the end of the run
/// waits for long.
const MAX_INJECT: u32 = 65_536;

/// Does what a request says.
pub trait Handler: Send + Sync {
    /// Does `request`, or changes nothing. [`Request::Quit`] never gets here.
    fn handle(&self, request: &Request) -> Reply;
}

impl Handler for EvgenHost {
    fn handle(&self, request: &Request) -> Reply {
        let done = match *request {
            Request::Inject(Inject { count, .. }) if count == 0 || count > MAX_INJECT => {
                return Reply::error(format_args!(
                    "inject: count is {count}, must be 1 to {MAX_INJECT}"
                ));
            }
            Request::Inject(Inject {
                device,
                ring,
                count,
                kind,
            }) => self.inject(device, ring, kind, count),
            Request::Withhold(Withhold {
                device,
                ring,
                count,
            }) => self.withhold(device, ring, count),
            Request::Storm(ref storm) => self.start_storm(storm),
            Request::StormStop {} => {
                self.stop_storm();
                Ok(())
            }
            Request::Stats {} => {
                return Reply {
                    stats: Some(MachineStats {
                        devices: self.stats().into_iter().map(DeviceStats::from).collect(),
                        interrupts_lost: self.interrupts_lost(),
                    }),
                    ..Reply::done()
                };
            }
            Request::Quit {} => Ok(()),
        };
        match done {
            Ok(()) => Reply::done(),
            Err(error) => Reply::error(error),
        }
    }
}

impl From<Stats> for DeviceStats {
    fn from(stats: Stats) -> Self {
        let rings = stats.rings.into_iter();
        Self {
            rings: rings
                .map(|ring| RingStats {
                    generated: ring.generated,
                    delivered: ring.delivered,
                    dropped: ring.dropped,
                })
                .collect(),
            raised: stats.raised,
            storm_remaining: stats
                .storm
                .filter(|storm| storm.running)
                .map(|storm| storm.total.unwrap_or(0).saturating_sub(storm.made)),
        }
    }
}
