// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Has an evgen device make events later.

use std::process::ExitCode;

use clap::Parser;
use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::status;
use evgen_uapi::{DEFERRED_MAX, DEFERRED_MILLISECONDS_MAX};
use rustix::io::Errno;
use thiserror::Error;

/// Has /dev/evgenN make an event after each of some times, and says nothing if that went well.
///
/// The driver rings the ring's doorbell from a timer when the time is over. This program does not wait
/// for that: the injections outlive it, and go on while the next ones are made. All times count from
/// the start.
#[derive(Parser)]
#[command(
    name = "test-inject-deferred-event",
    after_help = format!("Examples:
  test-inject-deferred-event 0 0 500         one event of device 0, ring 0, in half a second
  test-inject-deferred-event 0 1 100 50 0    three of ring 1; the last one comes first
  test-inject-deferred-event 0 0 2000; rmmod evgen
                                             the driver goes while its timer runs
  test-read-events blocking 0 -c 1           wait for what comes

At most {DEFERRED_MAX} injections of a device wait at a time.

Exit status: 0 all injections wait or are done, 2 wrong arguments or no such ring, 42 the driver refused,
69 no such device.")
)]
struct Arguments {
    /// Number of the device: 0 for /dev/evgen0
    #[arg(value_name = "DEVICE")]
    device: usize,
    /// Ring whose doorbell to ring
    #[arg(value_name = "RING")]
    ring: usize,
    /// Milliseconds from now, one or more
    #[arg(value_name = "MS", required = true, value_parser = clap::value_parser!(u32).range(..=i64::from(DEFERRED_MILLISECONDS_MAX)))]
    milliseconds: Vec<u32>,
}

#[derive(Debug, Error)]
enum InjectError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(
        "evgen{device}: {accepted} of {wanted} injections wait; there is no room or no memory for more (at most {DEFERRED_MAX} wait at a time)"
    )]
    Full {
        device: usize,
        accepted: usize,
        wanted: usize,
    },
}

fn main() -> ExitCode {
    let error = match inject(&Arguments::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    eprintln!("test-inject-deferred-event: {error}");
    ExitCode::from(match error {
        InjectError::Device(error) => error.status(),
        InjectError::Full { .. } => status::FINDING,
    })
}

fn inject(arguments: &Arguments) -> Result<(), InjectError> {
    let &Arguments { device, ring, .. } = arguments;
    let opened = Device::open(device, Mode::Blocking)?;
    for (accepted, &milliseconds) in arguments.milliseconds.iter().enumerate() {
        let waits = opened
            .inject_deferred(ring, milliseconds)
            .map_err(|error| match error.errno() {
                // The time is in range.
                Some(Errno::INVAL) => DeviceError::NoRing { device, ring },
                _ => error,
            })?;
        if !waits {
            let wanted = arguments.milliseconds.len();
            return Err(InjectError::Full {
                device,
                accepted,
                wanted,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_as_the_help_says() {
        for (line, expected) in [
            ("0 0 500", Some(vec![500])),
            ("0 1 100 50 0", Some(vec![100, 50, 0])),
            ("0 0 60000", Some(vec![60_000])),
            ("0 0 60001", None),
            ("0 0 -1", None),
            ("0 0", None),
        ] {
            let arguments = [""].into_iter().chain(line.split(' '));
            let times = Arguments::try_parse_from(arguments).map(|read| read.milliseconds);
            assert_eq!(times.ok(), expected, "{line}");
        }
    }
}
