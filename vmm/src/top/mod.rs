// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `lockstorm top`: a running machine's devices, looked at again and again.

mod plain;
mod rates;
mod screen;
mod view;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::console::tell;
use crate::control::stats::MachineStats;
use crate::control::{Client, ClientError, Request};
use crate::supervisor::status;
use rates::Sample;
use screen::{Key, Screen};

const EXAMPLES: &str = "\
Examples:
  lockstorm top --socket /tmp/storm.sock
  lockstorm top --socket /tmp/storm.sock --interval 5 --plain >storm.log
  lockstorm top --socket /tmp/storm.sock --once

On a terminal, q or Ctrl-C ends it.

Exit status: 0 done · 2 refused · 69 nobody answers";

/// Options of `lockstorm top`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Top {
    /// Control socket of the machine, as given to its `boot --control`
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Seconds from one look to the next
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// A line for each device and interval, as without a terminal
    #[arg(long)]
    plain: bool,
    /// One interval, in plain lines
    #[arg(long)]
    once: bool,
}

/// Reads a number of seconds from 0.1 to 3600.
fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("must be from 0.1 to 3600".to_owned())
    }
}

/// Why there is nothing more to see.
enum End {
    /// The user has seen enough.
    Enough,
    /// The machine does not answer any more.
    Gone(ClientError),
    /// It does not tell.
    Refused(String),
    /// The output or the terminal fails.
    Output(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Shows the devices until somebody has had enough; returns the exit status.
pub fn run(top: &Top) -> u8 {
    let end = match Client::connect(&top.socket) {
        Ok(mut client) => watch(top, &mut client),
        Err(error) => End::Gone(error),
    };
    match end {
        End::Enough => status::OK,
        // Who closes stdout does not want to know.
        End::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => status::OK,
        End::Output(error) => {
            tell(format_args!("cannot show anything: {error}"));
            status::UNAVAILABLE
        }
        End::Gone(error) => {
            tell(error);
            status::UNAVAILABLE
        }
        End::Refused(error) => {
            tell(error);
            status::USAGE
        }
    }
}

fn watch(top: &Top, client: &mut Client) -> End {
    let interval = Duration::from_secs_f64(top.interval);
    let terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let watched = if top.plain || top.once || !terminal {
        watch_plainly(client, interval, top.once)
    } else {
        Screen::enter()
            .map_err(End::from)
            .and_then(|screen| watch_on(screen, client, interval))
    };
    // The screen is as it was before, and what there is to say can be seen.
    watched.err().unwrap_or(End::Enough)
}

fn watch_plainly(client: &mut Client, interval: Duration, once: bool) -> Result<(), End> {
    let mut before = look(client)?;
    loop {
        thread::sleep(interval);
        let after = look(client)?;
        plain::write(&mut io::stdout().lock(), &Sample::new(&before, &after))?;
        if once {
            return Ok(());
        }
        before = after;
    }
}

fn watch_on(mut screen: Screen, client: &mut Client, interval: Duration) -> Result<(), End> {
    let mut before = look(client)?;
    let mut after = before.clone();
    loop {
        let next = Instant::now() + interval;
        loop {
            screen.draw(|frame| view::draw(frame, &Sample::new(&before, &after)))?;
            match screen.key_before(next)? {
                Some(Key::Quit) => return Ok(()),
                // It has another size now.
                Some(Key::Other) => {}
                None => break,
            }
        }
        before = std::mem::replace(&mut after, look(client)?);
    }
}

/// What the devices have counted, and when.
#[derive(Clone, Debug)]
struct Look {
    stats: MachineStats,
    at: Instant,
}

fn look(client: &mut Client) -> Result<Look, End> {
    let (reply, _) = client.request(&Request::Stats {}).map_err(End::Gone)?;
    let at = Instant::now();
    match (reply.stats, reply.error) {
        (Some(stats), _) => Ok(Look { stats, at }),
        (None, error) => Err(End::Refused(error.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_machine_there_is_nothing_to_see() {
        let folder = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let top = Top {
            socket: folder.as_path().join("control"),
            interval: 1.0,
            plain: false,
            once: false,
        };
        assert_eq!(run(&top), status::UNAVAILABLE);
    }

    #[test]
    fn intervals_are_neither_nothing_nor_for_ever() {
        for (text, valid) in [
            ("1", true),
            ("0.1", true),
            ("3600", true),
            ("0", false),
            ("-1", false),
            ("1e9", false),
            ("nan", false),
            ("inf", false),
            ("x", false),
        ] {
            assert_eq!(interval(text).is_ok(), valid, "{text}");
        }
    }
}
