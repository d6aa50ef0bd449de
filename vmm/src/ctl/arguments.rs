// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The command line of `lockstorm ctl`, and the requests that it stands for.

use std::time::Duration;

use clap::{Args, Subcommand};
use lockstorm_device_model::{Fault, Storm};

use crate::control::Request;
use crate::control::request::{
    self, Inject, InjectFault, Mask, Plug, Reset, StormStart, Unplug, Withhold,
};
use crate::storms::{self, FindError};

/// What to ask for.
#[derive(Debug, Subcommand)]
pub(super) enum CtlRequest {
    /// Tell what answers: versions, devices, faults
    Version,
    /// Make events on one ring
    Inject {
        #[command(flatten)]
        ring: Ring,
        #[command(flatten)]
        count: Count,
        /// Kind that the events carry
        #[arg(long, value_name = "N", default_value_t = 0)]
        kind: u16,
        /// Have the handler acknowledge each one, which measures its latency
        #[arg(long)]
        acknowledge: bool,
    },
    /// Let the next events of a ring vanish, to prove that their absence is noticed
    Withhold {
        #[command(flatten)]
        ring: Ring,
        #[command(flatten)]
        count: Count,
    },
    /// Start or stop a storm, or tell how far it is
    #[command(subcommand)]
    Storm(StormAction),
    /// Let a ring or a device misbehave
    Fault {
        /// Name of the fault; `version` lists them
        fault: Fault,
        #[command(flatten)]
        ring: Ring,
        #[command(flatten)]
        count: Count,
    },
    /// Keep the interrupts of a vector pending
    Mask(Vector),
    /// Let the interrupts of a vector go again
    Unmask(Vector),
    /// End all faults of a device, and have it reset itself
    Reset {
        /// The device's number
        #[arg(long, value_name = "N", default_value_t = 0)]
        device: usize,
    },
    /// Put a device into a slot, and wait until the guest uses it
    Plug {
        /// Event rings of the device, 1 to 8; if not given, as the machine was started with
        #[arg(long, value_name = "N")]
        rings: Option<u8>,
        /// MSI-X vectors of the device, up to 2048; if not given, as the machine was started with
        #[arg(long, value_name = "N")]
        vectors: Option<u16>,
        /// Slot, counted from 1; if not given, the first free one
        #[arg(long, value_name = "N")]
        slot: Option<u8>,
        #[command(flatten)]
        patience: Patience,
    },
    /// Ask the guest to let go of a device, and wait until it is out of its slot
    Unplug {
        /// The device's number
        #[arg(value_name = "DEVICE")]
        device: usize,
        /// Take it out at once, whatever the guest is doing with it
        #[arg(long)]
        surprise: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// Tell what the devices have counted, and what is in the slots
    Stats,
    /// Tell the same as text that Prometheus reads
    Metrics,
    /// Print a line for each event from now on
    Events {
        #[command(flatten)]
        devices: Devices,
        /// End after so many; without it, with the machine or at Ctrl-C
        #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
        count: u64,
    },
    /// Stop the guest, and time for the devices
    Pause,
    /// Let a paused guest go on
    Resume,
    /// End the run
    Quit,
}

/// What to do with storms.
#[derive(Debug, Subcommand)]
pub(super) enum StormAction {
    /// Start one
    Start {
        #[command(flatten)]
        storm: WhichStorm,
        #[command(flatten)]
        devices: Devices,
    },
    /// End all
    Stop,
    /// Tell how far each device's is
    Status,
}

/// Which storm: a name, a file, a token, or a few numbers.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct WhichStorm {
    /// Its name (see `lockstorm storm list`), file or token
    #[arg(value_name = "STORM", value_parser = storms::find,
          conflicts_with_all = ["rate", "burst", "seconds", "seed"])]
    storm: Option<Storm>,
    /// Instead: events per second on each ring
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Events that come at once on each ring
    #[arg(long, value_name = "N", default_value_t = 1, requires = "rate")]
    burst: u32,
    /// How long it lasts
    #[arg(long, value_name = "S", default_value_t = 10, requires = "rate")]
    seconds: u32,
    /// Seed of the payloads
    #[arg(long, value_name = "N", default_value_t = 0, requires = "rate")]
    seed: u64,
}

/// Which ring of which device.
#[derive(Debug, Args)]
pub(super) struct Ring {
    /// The device's number
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: usize,
    /// Ring of the device, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    ring: usize,
}

/// How many.
#[derive(Debug, Args)]
pub(super) struct Count {
    /// How many, at most 65536
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u32,
}

/// Which vector of which device.
#[derive(Debug, Args)]
pub(super) struct Vector {
    /// The device's number
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: usize,
    /// MSI-X vector of the device, counted from 0
    #[arg(long, value_name = "N")]
    vector: u16,
}

/// How long to wait for the guest.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Patience {
    /// Seconds to wait for the guest; 0: not at all
    #[arg(long, value_name = "S", default_value_t = 30)]
    wait: u32,
}

/// Which devices.
#[derive(Debug, Args)]
pub(super) struct Devices {
    /// Devices, as 0,1,…; all if not given
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    devices: Option<Vec<usize>>,
}

impl CtlRequest {
    /// How many events to wait for, if it is events that are asked for.
    pub(super) fn events_wanted(&self) -> Option<u64> {
        match self {
            Self::Events { count, .. } => Some(*count),
            _ => None,
        }
    }

    /// How long the guest may take to do its part, if it has one.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self {
            Self::Plug { patience, .. } | Self::Unplug { patience, .. } => {
                Some(Duration::from_secs(patience.wait.into()))
            }
            _ => None,
        }
    }

    /// The request that says this.
    pub(super) fn into_request(self) -> Result<Request, FindError> {
        Ok(match self {
            Self::Version => Request::Version {},
            Self::Inject {
                ring: Ring { device, ring },
                count: Count { count },
                kind,
                acknowledge,
            } => Request::Inject(Inject {
                device,
                ring,
                count,
                kind,
                acknowledge,
            }),
            Self::Withhold {
                ring: Ring { device, ring },
                count: Count { count },
            } => Request::Withhold(Withhold {
                device,
                ring,
                count,
            }),
            Self::Storm(StormAction::Start { storm, devices }) => Request::StormStart(StormStart {
                storm: storm.find()?.token(),
                devices: devices.devices,
            }),
            Self::Storm(StormAction::Stop) => Request::StormStop {},
            Self::Storm(StormAction::Status) => Request::StormStatus {},
            Self::Fault {
                fault,
                ring: Ring { device, ring },
                count: Count { count },
            } => Request::Fault(InjectFault {
                device,
                ring,
                fault,
                count,
            }),
            Self::Mask(vector) => Request::Mask(vector.masked(true)),
            Self::Unmask(vector) => Request::Mask(vector.masked(false)),
            Self::Reset { device } => Request::Reset(Reset { device }),
            Self::Plug {
                rings,
                vectors,
                slot,
                ..
            } => Request::Plug(Plug {
                rings,
                vectors,
                slot,
            }),
            Self::Unplug {
                device, surprise, ..
            } => Request::Unplug(Unplug { device, surprise }),
            Self::Stats => Request::Stats {},
            Self::Metrics => Request::Metrics {},
            Self::Events { devices, .. } => Request::Events(request::Events {
                on: true,
                devices: devices.devices,
            }),
            Self::Pause => Request::Pause {},
            Self::Resume => Request::Resume {},
            Self::Quit => Request::Quit {},
        })
    }
}

impl Vector {
    fn masked(self, masked: bool) -> Mask {
        let Self { device, vector } = self;
        Mask {
            device,
            vector,
            masked,
        }
    }
}

impl WhichStorm {
    fn find(self) -> Result<Storm, FindError> {
        let Self {
            storm,
            rate,
            burst,
            seconds,
            seed,
        } = self;
        match storm {
            Some(storm) => Ok(storm),
            // Without either, there would have been no storm on the command line.
            None => storms::find(&format!(
                "rate={},burst={burst},seconds={seconds},seed={seed}",
                rate.unwrap_or_default()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(subcommand)]
        request: CtlRequest,
    }

    fn request(words: &str) -> Result<Request, String> {
        let words = ["ctl"].into_iter().chain(words.split_whitespace());
        let line = CommandLine::try_parse_from(words).map_err(|error| error.to_string())?;
        line.request
            .into_request()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_command_is_a_request() {
        let quick = storms::find("rate=20000,burst=16,seconds=3,seed=9").unwrap();
        let start = |storm: &Storm, devices| {
            Request::StormStart(StormStart {
                storm: storm.token(),
                devices,
            })
        };
        let mask = |masked| {
            Request::Mask(Mask {
                device: 1,
                vector: 2,
                masked,
            })
        };
        for (words, expected) in [
            ("version", Request::Version {}),
            (
                "inject --device 1 --ring 2 --count 3 --kind 4 --acknowledge",
                Request::Inject(Inject {
                    device: 1,
                    ring: 2,
                    count: 3,
                    kind: 4,
                    acknowledge: true,
                }),
            ),
            (
                "withhold --ring 1",
                Request::Withhold(Withhold {
                    device: 0,
                    ring: 1,
                    count: 1,
                }),
            ),
            (
                "storm start ramp --devices 0,2",
                start(&Storm::named("ramp").unwrap(), Some(vec![0, 2])),
            ),
            (
                "storm start --rate 20000 --burst 16 --seconds 3 --seed 9",
                start(&quick, None),
            ),
            (
                "storm start --rate 5",
                start(&storms::find("rate=5").unwrap(), None),
            ),
            ("storm stop", Request::StormStop {}),
            ("storm status", Request::StormStatus {}),
            (
                "fault stale-index --device 1 --count 2",
                Request::Fault(InjectFault {
                    device: 1,
                    ring: 0,
                    fault: Fault::StaleIndex,
                    count: 2,
                }),
            ),
            ("mask --device 1 --vector 2", mask(true)),
            ("unmask --device 1 --vector 2", mask(false)),
            ("reset --device 3", Request::Reset(Reset { device: 3 })),
            (
                "plug --rings 8 --vectors 12 --slot 2 --wait 0",
                Request::Plug(Plug {
                    rings: Some(8),
                    vectors: Some(12),
                    slot: Some(2),
                }),
            ),
            (
                "unplug 3 --surprise",
                Request::Unplug(Unplug {
                    device: 3,
                    surprise: true,
                }),
            ),
            ("stats", Request::Stats {}),
            ("metrics", Request::Metrics {}),
            (
                "events --devices 1 --count 5",
                Request::Events(request::Events {
                    on: true,
                    devices: Some(vec![1]),
                }),
            ),
            ("pause", Request::Pause {}),
            ("resume", Request::Resume {}),
            ("quit", Request::Quit {}),
        ] {
            assert_eq!(request(words), Ok(expected), "{words}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for words in [
            "",
            "explode",
            "storm",
            "storm start",
            "storm start --burst 3",
            "storm start ramp --rate 3",
            "storm start --rate 0",
            "storm start no-such-storm",
            "fault lost",
            "fault",
            "mask",
            "unplug",
            "unplug x",
            "plug 1",
            "inject --count -1",
            "events --count x",
        ] {
            assert!(request(words).is_err(), "{words}");
        }
    }
}
