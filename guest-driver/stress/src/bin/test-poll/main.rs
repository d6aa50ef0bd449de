// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Waits for evgen devices by poll or epoll, and tells what that says.

mod waiter;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::status;
use evgen_uapi::EVENT_SIZE;
use rustix::event::PollFlags;
use thiserror::Error;

use waiter::Waiter;

/// Waits until events can be read from /dev/evgenN, and prints a line for each device that poll or
/// epoll names.
///
/// The events stay where they are, if not told otherwise. So poll and level-triggered epoll name the
/// device again at once. Edge-triggered epoll does so only when something new comes.
#[derive(Parser)]
#[command(
    name = "test-poll",
    after_help = "Examples:
  test-poll poll                         wait until device 0 has an event
  test-poll poll 0 1 2 --timeout 0       only look at three devices
  test-poll epoll 0 --count 3            one event is enough to be named three times
  test-poll epoll-edge 0 --count 3       takes three events
  test-poll epoll-edge 0 -c 9 --read one edge-triggered, and one event read each time: once it stops,
                                         events may still wait
  test-inject-deferred-event 0 0 500; test-poll poll 0

A line has the time since the start, the device, what is said of it (IN: it can be read, HUP or ERR: it
is gone), and how many events were read.

Exit status: 0 all was seen, 2 wrong arguments, 42 an unexpected error, 69 no such device, or one is
gone, 124 nothing happened in time."
)]
struct Arguments {
    /// What to wait with
    how: How,
    /// Numbers of the devices: 0 for /dev/evgen0
    #[arg(value_name = "N", default_values_t = [0])]
    devices: Vec<usize>,
    /// Stop after waking up this many times
    #[arg(short, long, value_name = "C", default_value_t = 1)]
    count: u64,
    /// Wait this long at most, each time
    #[arg(short, long, value_name = "MS")]
    timeout: Option<u32>,
    /// What to read from a device that is named
    #[arg(short, long, value_name = "EVENTS", default_value = "none")]
    read: Read,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    /// The system call poll
    Poll,
    /// epoll, level-triggered
    Epoll,
    /// epoll, edge-triggered
    EpollEdge,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Read {
    /// Nothing
    None,
    /// The oldest event
    One,
    /// Everything there is
    All,
}

#[derive(Debug, Error)]
enum PollError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("cannot wait: {0}")]
    Wait(io::Error),
    #[error("cannot print: {0}")]
    Print(io::Error),
    #[error("nothing happened within {0} ms")]
    Late(u32),
    #[error("evgen{0} is gone")]
    Gone(usize),
}

fn main() -> ExitCode {
    let error = match watch(&Arguments::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(PollError::Print(error)) if error.kind() == ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    eprintln!("test-poll: {error}");
    ExitCode::from(match error {
        PollError::Device(error) => error.status(),
        PollError::Wait(_) | PollError::Print(_) => status::FINDING,
        PollError::Late(_) => status::TIMEOUT,
        PollError::Gone(_) => status::UNAVAILABLE,
    })
}

fn watch(arguments: &Arguments) -> Result<(), PollError> {
    let open = |&number| Device::open(number, Mode::Nonblocking);
    let devices: Vec<_> = arguments
        .devices
        .iter()
        .map(open)
        .collect::<Result<_, _>>()?;
    let waiter = Waiter::new(arguments.how, &devices).map_err(PollError::Wait)?;
    let timeout = arguments
        .timeout
        .map(|time| Duration::from_millis(time.into()));
    let start = Instant::now();
    let mut output = io::stdout().lock();
    for _ in 0..arguments.count {
        let seen = waiter.wait(timeout).map_err(PollError::Wait)?;
        if seen.is_empty() {
            return Err(PollError::Late(arguments.timeout.unwrap_or(u32::MAX)));
        }
        let time = start.elapsed().as_secs_f64();
        for (device, flags) in seen {
            let index = device.index();
            let gone = flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
            let read = if gone {
                0
            } else {
                read(device, arguments.read)?
            };
            let names = names(flags);
            writeln!(
                output,
                "{time:.6} s  evgen{index}  {names}  {read} events read"
            )
            .map_err(PollError::Print)?;
            if gone {
                return Err(PollError::Gone(index));
            }
        }
    }
    Ok(())
}

/// Reads what is to be read, and gives the number of events.
fn read(device: &Device, what: Read) -> Result<usize, DeviceError> {
    if what == Read::None {
        return Ok(0);
    }
    let mut buffer = [[0; EVENT_SIZE]; 64];
    let room = if what == Read::One { 1 } else { buffer.len() };
    let mut total = 0;
    while let Some(events) = device.read(&mut buffer[..room])? {
        total += events.count();
        if what == Read::One {
            break;
        }
    }
    Ok(total)
}

/// The names of flags, as in <poll.h> without POLL.
fn names(flags: PollFlags) -> String {
    let names: Vec<_> = flags.iter_names().map(|(name, _)| name).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_the_names_of_the_manual() {
        for (flags, expected) in [
            (PollFlags::IN, "IN"),
            (PollFlags::IN | PollFlags::RDNORM, "IN RDNORM"),
            (PollFlags::HUP | PollFlags::ERR, "ERR HUP"),
        ] {
            assert_eq!(names(flags), expected);
        }
    }

    #[test]
    fn without_a_device_it_is_the_first() {
        let arguments = Arguments::try_parse_from(["test-poll", "epoll-edge"]);
        assert_eq!(arguments.unwrap().devices, [0]);
    }
}
