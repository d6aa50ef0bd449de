// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Prints the events of evgen devices as JSON.

use std::fmt::Write as _;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::poll::wait_readable;
use evgen_stress::status;
use evgen_uapi::{EVENT_SIZE, NO_RING, Record};
use rustix::event::PollFlags;
use rustix::io::Errno;
use serde::Serialize;
use thiserror::Error;

/// Reads the events of evgen devices as they come and prints each as a line of JSON.
///
/// It follows all devices named, or all that there are, until it has enough or is told to stop. An
/// event is gone from the driver's list once it is read. Those of one device come in their order; those
/// of different devices do not wait for each other.
#[derive(Parser)]
#[command(
    name = "evgen-cat",
    after_help = "Members of each line, as in the host's `storm.sh events --json` where that has them too:
  device     number of the device
  ring       ring that it came through; null if none
  source     0 added by a program, 1 doorbell, 2 injected by the host, 3 storm
  kind       what it is; its maker chose
  sequence   number among the events of the same ring and source, from 0
  timestamp  nanoseconds of the device's time; the kernel's monotonic time for source 0
  flags      bit 0: the handler acknowledged it
  payload    32 bytes as 64 hexadecimal digits
  intact     whether the checksum fits

Examples:
  evgen-cat                              all devices, until Ctrl-C
  evgen-cat 0 2 --count 100 >events      a hundred events of devices 0 and 2 together
  evgen-cat --timeout 0                  only what there is
  evgen-cat --timeout 3000               until 3 seconds after the last event of a storm
  evgen-cat | grep '\"source\":3'          only those of storms

Exit status: 0 done, 2 wrong arguments, 42 a wrong checksum or an unexpected error, 69 no such device,
or all of them are gone (ENODEV), 124 fewer events came than were to be counted, 130 Ctrl-C."
)]
struct Arguments {
    /// Numbers of the devices: 0 for /dev/evgen0 [default: all]
    #[arg(value_name = "N")]
    devices: Vec<usize>,
    /// Stop after this many events
    #[arg(short, long, value_name = "C")]
    count: Option<u64>,
    /// Stop when nothing came for this long
    #[arg(short, long, value_name = "MS")]
    timeout: Option<u32>,
}

#[derive(Debug, Error)]
enum CatError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("there is no /dev/evgen0: is the driver loaded?")]
    NoDevice,
    #[error("all devices are gone (ENODEV)")]
    Gone,
    #[error("cannot wait for events: {0}")]
    Wait(io::Error),
    #[error("cannot print an event: {0}")]
    Print(io::Error),
    #[error("{0} events had a wrong checksum")]
    Corrupt(u64),
    #[error("{missing} of {count} events did not come, and nothing came for {milliseconds} ms")]
    Late {
        missing: u64,
        count: u64,
        milliseconds: u32,
    },
}

impl CatError {
    fn status(&self) -> u8 {
        match self {
            Self::Device(error) => error.status(),
            Self::NoDevice | Self::Gone => status::UNAVAILABLE,
            Self::Wait(_) | Self::Print(_) | Self::Corrupt(_) => status::FINDING,
            Self::Late { .. } => status::TIMEOUT,
        }
    }
}

/// Events read at once.
const BATCH: usize = 64;

fn main() -> ExitCode {
    let error = match follow(&Arguments::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(CatError::Print(error)) if error.kind() == ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    eprintln!("evgen-cat: {error}");
    ExitCode::from(error.status())
}

fn follow(arguments: &Arguments) -> Result<(), CatError> {
    let mut devices = open(&arguments.devices)?;
    let timeout = arguments
        .timeout
        .map(|time| Duration::from_millis(time.into()));
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut corrupt = 0;
    let mut output = BufWriter::new(io::stdout().lock());
    while left > 0 {
        let ready = wait_readable(&devices, timeout).map_err(CatError::Wait)?;
        if ready.iter().all(|flags| flags.is_empty()) {
            break;
        }
        let mut ready = ready.into_iter();
        let mut gone = Vec::new();
        for device in devices
            .iter()
            .filter(|_| ready.next() != Some(PollFlags::empty()))
        {
            match print_events(device, &mut left, &mut output) {
                Ok(wrong) => corrupt += wrong,
                Err(CatError::Device(error)) if error.errno() == Some(Errno::NODEV) => {
                    eprintln!("evgen-cat: evgen{} is gone (ENODEV)", device.index());
                    gone.push(device.index());
                }
                Err(error) => return Err(error),
            }
        }
        devices.retain(|device| !gone.contains(&device.index()));
        if devices.is_empty() && left > 0 {
            return Err(CatError::Gone);
        }
    }
    match (arguments.count, arguments.timeout) {
        _ if corrupt > 0 => Err(CatError::Corrupt(corrupt)),
        (Some(count), Some(milliseconds)) if left > 0 => Err(CatError::Late {
            missing: left,
            count,
            milliseconds,
        }),
        _ => Ok(()),
    }
}

fn open(numbers: &[usize]) -> Result<Vec<Device>, CatError> {
    let mut numbers = match numbers {
        [] => Device::all(),
        numbers => numbers.to_vec(),
    };
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.is_empty() {
        return Err(CatError::NoDevice);
    }
    let open = |number| Device::open(number, Mode::Nonblocking).map_err(CatError::Device);
    numbers.into_iter().map(open).collect()
}

/// Prints what the device has now, but only so much that others have their turn, and counts down how
/// many events are `left` to print. Gives how many had a wrong checksum.
fn print_events(device: &Device, left: &mut u64, output: &mut impl Write) -> Result<u64, CatError> {
    let mut buffer = [[0; EVENT_SIZE]; BATCH];
    let batch = usize::try_from(*left).unwrap_or(BATCH).min(BATCH);
    let mut corrupt = 0;
    let Some(events) = device.read(&mut buffer[..batch])? else {
        return Ok(0);
    };
    for event in events {
        *left -= 1;
        corrupt += u64::from(!event.intact);
        let line = serde_json::to_string(&Line::new(device.index(), &event));
        let line = line.map_err(|error| CatError::Print(error.into()))?;
        writeln!(output, "{line}").map_err(CatError::Print)?;
    }
    output.flush().map_err(CatError::Print)?;
    Ok(corrupt)
}

/// One line of output; the help says what its members mean.
#[derive(Serialize)]
struct Line {
    device: usize,
    ring: Option<u16>,
    source: u16,
    kind: u16,
    sequence: u64,
    timestamp: u64,
    flags: u16,
    payload: String,
    intact: bool,
}

impl Line {
    fn new(device: usize, event: &Record) -> Self {
        let mut payload = String::new();
        for byte in event.payload {
            // A `String` takes everything.
            let _ = write!(payload, "{byte:02x}");
        }
        Self {
            device,
            ring: (event.ring != NO_RING).then_some(event.ring),
            source: event.source,
            kind: event.kind,
            sequence: event.sequence,
            timestamp: event.timestamp,
            flags: event.flags,
            payload,
            intact: event.intact,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_line_has_all_that_is_in_the_event() {
        let mut payload = [0; 32];
        (payload[0], payload[31]) = (0xa5, 0x0f);
        let stormed = Record {
            sequence: 41,
            timestamp: u64::MAX,
            source: 3,
            kind: 7,
            ring: 1,
            flags: 1,
            payload,
            intact: true,
        };
        let added = Record {
            source: 0,
            ring: NO_RING,
            intact: false,
            ..stormed
        };
        let payload = format!("a5{}0f", "0".repeat(60));
        for (event, expected) in [
            (
                stormed,
                format!(
                    r#"{{"device":2,"ring":1,"source":3,"kind":7,"sequence":41,"timestamp":18446744073709551615,"flags":1,"payload":"{payload}","intact":true}}"#
                ),
            ),
            (
                added,
                format!(
                    r#"{{"device":2,"ring":null,"source":0,"kind":7,"sequence":41,"timestamp":18446744073709551615,"flags":1,"payload":"{payload}","intact":false}}"#
                ),
            ),
        ] {
            assert_eq!(
                serde_json::to_string(&Line::new(2, &event)).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn the_help_tells_of_each_member() {
        let help = Arguments::command().render_help().to_string();
        let event = Record::parse(&[0; EVENT_SIZE]);
        let line = serde_json::to_value(Line::new(0, &event)).unwrap();
        for member in line.as_object().unwrap().keys() {
            assert!(help.contains(&format!("\n  {member} ")), "{member}");
        }
    }
}
