// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `lockstorm ctl`: one request to a running machine.

mod arguments;
mod hot_plug;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::console::tell;
use crate::control::{Client, ClientError, Reply, Request};
use crate::supervisor::status;
use arguments::CtlRequest;
use hot_plug::WaitError;

const EXAMPLES: &str = "\
Examples:
  What was counted, for people, for programs, for Prometheus:
    lockstorm ctl --socket /tmp/storm.sock stats
    lockstorm ctl --socket /tmp/storm.sock --json stats
    lockstorm ctl --socket /tmp/storm.sock metrics

  Ten events on ring 2 of device 1, each with a measurement of its latency:
    lockstorm ctl --socket /tmp/storm.sock inject --device 1 --ring 2 --count 10 --acknowledge

  A storm, and how far it is. The token that it prints repeats it:
    lockstorm ctl --socket /tmp/storm.sock storm start bursts
    lockstorm ctl --socket /tmp/storm.sock storm start --rate 20000 --burst 16 --seconds 10
    lockstorm ctl --socket /tmp/storm.sock storm status

  The next three interrupts of ring 0 get lost:
    lockstorm ctl --socket /tmp/storm.sock fault lost-interrupt --ring 0 --count 3

  One more device, while the guest runs; and how it goes again, with and without asking the guest:
    lockstorm ctl --socket /tmp/storm.sock plug --rings 8
    lockstorm ctl --socket /tmp/storm.sock unplug 1
    lockstorm ctl --socket /tmp/storm.sock unplug 2 --surprise

  The next 100 events that are made, a line each:
    lockstorm ctl --socket /tmp/storm.sock events --count 100

Exit status: 0 done · 2 refused · 69 nobody answers · 124 the guest does not do its part";

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

/// Sends the request, prints the reply and returns the exit status.
pub fn run(ctl: Ctl) -> u8 {
    let (events, patience) = (ctl.request.events_wanted(), ctl.request.patience());
    let request = match ctl.request.into_request() {
        Ok(request) => request,
        Err(error) => {
            tell(error);
            return status::USAGE;
        }
    };
    match ask(&ctl.socket, &request, ctl.json, events, patience) {
        Ok(status) => status,
        Err(error) => {
            tell(&error);
            match error {
                WaitError::Client(_) => status::UNAVAILABLE,
                _ => status::TIMEOUT,
            }
        }
    }
}

fn ask(
    socket: &Path,
    request: &Request,
    json: bool,
    events: Option<u64>,
    patience: Option<Duration>,
) -> Result<u8, WaitError> {
    let mut client = Client::connect(socket)?;
    let (reply, line) = client.request(request)?;
    if let (Some(count), true) = (events, reply.ok) {
        return Ok(print_events(&mut client, json, count)?);
    }
    // Before it is waited for: it is done, whatever the guest makes of it.
    let status = print(&reply, json.then_some(&line));
    let patience = patience.filter(|patience| reply.ok && !patience.is_zero());
    if let Some(patience) = patience {
        hot_plug::wait(&mut client, request, &reply, patience)?;
    }
    Ok(status)
}

fn print(reply: &Reply, json: Option<&String>) -> u8 {
    // Who closes stdout does not want to know.
    let _ = match (json, &reply.error) {
        (Some(line), _) => writeln!(io::stdout(), "{line}"),
        (None, Some(error)) => {
            tell(error);
            Ok(())
        }
        (None, None) => writeln!(io::stdout(), "{}", reply.to_string().trim_end()),
    };
    if reply.ok { status::OK } else { status::USAGE }
}

/// Prints `count` events as they are made, or fewer if the machine ends before.
fn print_events(client: &mut Client, json: bool, count: u64) -> Result<u8, ClientError> {
    for _ in 0..count {
        let (event, line) = match client.event() {
            Err(ClientError::Closed) => break,
            result => result?,
        };
        let printed = if json {
            writeln!(io::stdout(), "{line}")
        } else {
            writeln!(io::stdout(), "{event}")
        };
        if printed.is_err() {
            break;
        }
    }
    Ok(status::OK)
}
