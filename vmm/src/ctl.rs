// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `lockstorm ctl`: one request to a running machine.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use lockstorm_device_model::Storm;

use crate::console::tell;
use crate::control::{Client, ClientError, Inject, Reply, Request, StormStart, Withhold};
use crate::storms;
use crate::supervisor::status;

/// Options of `lockstorm ctl`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Ctl {
    /// Control socket of the machine, as given to its `boot --control`
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Print the reply as it came: JSON on one line
    #[arg(long, global = true)]
    json: bool,
    /// What to ask for
    #[command(subcommand)]
    request: CtlRequest,
}

const EXAMPLES: &str = "\
Examples:
  lockstorm ctl --socket /tmp/storm.sock stats
  lockstorm ctl --socket /tmp/storm.sock inject --device 1 --ring 0 --count 10
  lockstorm ctl --socket /tmp/storm.sock storm bursts
  lockstorm ctl --socket /tmp/storm.sock quit

Exit status: 0 done · 2 refused · 69 nobody answers";

#[derive(Debug, Subcommand)]
enum CtlRequest {
    /// Make events on one ring
    Inject {
        #[command(flatten)]
        events: Events,
        /// Kind that the events carry
        #[arg(long, value_name = "N", default_value_t = 0)]
        kind: u16,
    },
    /// Let the next events of a ring vanish, to prove that their absence is noticed
    Withhold {
        #[command(flatten)]
        events: Events,
    },
    /// Start a storm
    Storm {
        /// Its name (see `lockstorm storm list`), file or token, or rate=N,burst=N,seconds=N,seed=N
        /// of which all but the rate may be left out
        #[arg(value_name = "STORM", value_parser = storms::find)]
        storm: Storm,
        /// Devices, as 0,1,…; all if not given
        #[arg(long, value_name = "LIST", value_delimiter = ',')]
        devices: Option<Vec<usize>>,
    },
    /// End all storms
    StormStop,
    /// Tell what the devices have counted
    Stats,
    /// End the run
    Quit,
}

/// Which events, and how many.
#[derive(Debug, Args)]
struct Events {
    /// Device, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: usize,
    /// Ring of the device, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    ring: usize,
    /// How many; at most 65536 can be made at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u32,
}

impl From<CtlRequest> for Request {
    fn from(request: CtlRequest) -> Self {
        match request {
            CtlRequest::Inject {
                events:
                    Events {
                        device,
                        ring,
                        count,
                    },
                kind,
            } => Self::Inject(Inject {
                device,
                ring,
                count,
                kind,
            }),
            CtlRequest::Withhold {
                events:
                    Events {
                        device,
                        ring,
                        count,
                    },
            } => Self::Withhold(Withhold {
                device,
                ring,
                count,
            }),
            CtlRequest::Storm { storm, devices } => Self::StormStart(StormStart {
                storm: storm.token(),
                devices,
            }),
            CtlRequest::StormStop => Self::StormStop {},
            CtlRequest::Stats => Self::Stats {},
            CtlRequest::Quit => Self::Quit {},
        }
    }
}

/// Sends the request, prints the reply and returns the exit status.
pub fn run(ctl: Ctl) -> u8 {
    let request = Request::from(ctl.request);
    let answer = Client::connect(&ctl.socket).and_then(|mut client| client.request(&request));
    match answer {
        Ok((reply, line)) => {
            if let (Request::StormStart(start), true, false) = (&request, reply.ok, ctl.json) {
                tell(format_args!("token of this storm: {}", start.storm));
            }
            print(&reply, ctl.json.then_some(&line))
        }
        Err(error @ (ClientError::Connect { .. } | ClientError::Io(_) | ClientError::Reply(_))) => {
            tell(error);
            status::UNAVAILABLE
        }
    }
}

fn print(reply: &Reply, json: Option<&String>) -> u8 {
    let mut stdout = io::stdout();
    // Who closes stdout does not want to know.
    let _ = match (json, &reply.error) {
        (Some(line), _) => writeln!(stdout, "{line}"),
        (None, Some(error)) => {
            tell(error);
            Ok(())
        }
        (None, None) => writeln!(stdout, "{}", reply.to_string().trim_end()),
    };
    if reply.ok { status::OK } else { status::USAGE }
}
