// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Prints the events of an evgen device.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::status;
use evgen_uapi::{
    EVENT_SIZE, NO_RING, Record, SOURCE_DOORBELL, SOURCE_DRIVER, SOURCE_INJECT, SOURCE_STORM,
};
use thiserror::Error;

/// Reads events from /dev/evgenN and prints a line for each.
///
/// An event is gone from the driver's list once it is read.
#[derive(Parser)]
#[command(
    name = "test-read-events",
    after_help = "Examples:
  test-read-events nonblocking           whatever device 0 has now
  test-read-events blocking 1            device 1's events as they come, until Ctrl-C
  test-read-events blocking 0 -c 3       wait for three events

Exit status: 0 done, 2 wrong arguments, 42 a wrong checksum or an unexpected error,
69 no such device."
)]
struct Arguments {
    /// What to do when there is no event
    mode: Wait,
    /// Number of the device: 0 for /dev/evgen0
    #[arg(value_name = "N", default_value_t = 0)]
    device: usize,
    /// Stop after this many events
    #[arg(short, long, value_name = "C")]
    count: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Wait {
    /// Wait for the next one
    Blocking,
    /// Stop
    Nonblocking,
}

#[derive(Debug, Error)]
enum ReadError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("cannot print an event: {0}")]
    Print(#[from] io::Error),
    #[error("{0} events had a wrong checksum")]
    Corrupt(u64),
}

/// Events read at once.
const BATCH: usize = 64;

fn main() -> ExitCode {
    let error = match print_events(&Arguments::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(ReadError::Print(error)) if error.kind() == ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    eprintln!("test-read-events: {error}");
    ExitCode::from(match error {
        ReadError::Device(error) => error.status(),
        ReadError::Print(_) | ReadError::Corrupt(_) => status::FINDING,
    })
}

fn print_events(arguments: &Arguments) -> Result<(), ReadError> {
    let mode = match arguments.mode {
        Wait::Blocking => Mode::Blocking,
        Wait::Nonblocking => Mode::Nonblocking,
    };
    let device = Device::open(arguments.device, mode)?;
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut corrupt = 0;
    let mut buffer = [[0; EVENT_SIZE]; BATCH];
    let mut output = io::stdout().lock();
    while left > 0 {
        let batch = usize::try_from(left).unwrap_or(BATCH).min(BATCH);
        let Some(events) = device.read(&mut buffer[..batch])? else {
            eprintln!(
                "test-read-events: evgen{} has no more events (EAGAIN)",
                device.index()
            );
            break;
        };
        for event in events {
            left -= 1;
            corrupt += u64::from(!event.intact);
            writeln!(output, "{}", line(&event))?;
        }
    }
    match corrupt {
        0 => Ok(()),
        _ => Err(ReadError::Corrupt(corrupt)),
    }
}

fn line(event: &Record) -> String {
    let source = match event.source {
        SOURCE_DRIVER => "added".to_owned(),
        SOURCE_DOORBELL => "doorbell".to_owned(),
        SOURCE_INJECT => "inject".to_owned(),
        SOURCE_STORM => "storm".to_owned(),
        unknown => format!("source-{unknown}"),
    };
    let ring = match event.ring {
        NO_RING => "-".to_owned(),
        ring => ring.to_string(),
    };
    let (seconds, rest) = (
        event.timestamp / 1_000_000_000,
        event.timestamp % 1_000_000_000,
    );
    let mut line = format!(
        "{seconds}.{rest:09} s  ring {ring}  {source} {}  kind {}",
        event.sequence, event.kind
    );
    if event.payload.iter().any(|&byte| byte != 0) {
        let bytes: Vec<_> = event
            .payload
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        line = format!("{line}  payload {}", bytes.concat());
    }
    if !event.intact {
        line.push_str("  WRONG CHECKSUM");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_all_that_is_in_the_event() {
        let doorbell = Record {
            sequence: 12,
            timestamp: 1_000_000_007,
            source: SOURCE_DOORBELL,
            kind: 0,
            ring: 3,
            flags: 0,
            payload: [0; 32],
            intact: true,
        };
        let mut payload = [0; 32];
        payload[0] = 0xa5;
        let damaged = Record {
            source: 9,
            ring: NO_RING,
            kind: 7,
            payload,
            intact: false,
            ..doorbell
        };
        let zeros = "00".repeat(31);
        for (event, expected) in [
            (
                doorbell,
                "1.000000007 s  ring 3  doorbell 12  kind 0".to_owned(),
            ),
            (
                damaged,
                format!(
                    "1.000000007 s  ring -  source-9 12  kind 7  payload a5{zeros}  WRONG CHECKSUM"
                ),
            ),
        ] {
            assert_eq!(line(&event), expected);
        }
    }
}
