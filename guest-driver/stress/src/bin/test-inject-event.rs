// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Makes one event, or some, for an evgen device.

use std::process::ExitCode;

use clap::Parser;
use evgen_stress::device::{Device, DeviceError, Mode};

/// Makes events for /dev/evgenN and says nothing if that went well.
///
/// An event comes from the device's doorbell: the device writes it to a ring and raises that ring's
/// interrupt, and the driver puts it into its list. With --add the driver puts an event of its own
/// into the list, and the device has no part in it.
#[derive(Parser)]
#[command(
    name = "test-inject-event",
    after_help = "Examples:
  test-inject-event 0                    one event through device 0, ring 0
  test-inject-event 1 --ring 2 -c 100    a hundred through device 1, ring 2
  test-inject-event 0 --add              one that only the driver knows of
  test-read-events nonblocking 0         see what came

Exit status: 0 all events made, 2 wrong arguments or no such ring, 42 the driver refused,
69 no such device."
)]
struct Arguments {
    /// Number of the device: 0 for /dev/evgen0
    #[arg(value_name = "N")]
    device: usize,
    /// How many events to make
    #[arg(short, long, value_name = "C", default_value_t = 1)]
    count: u64,
    /// Add events to the driver's list, past the device
    #[arg(short, long)]
    add: bool,
    /// Ring whose doorbell to ring
    #[arg(
        short,
        long,
        value_name = "R",
        default_value_t = 0,
        conflicts_with = "add"
    )]
    ring: usize,
}

fn main() -> ExitCode {
    match inject(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("test-inject-event: {error}");
            ExitCode::from(error.status())
        }
    }
}

fn inject(arguments: &Arguments) -> Result<(), DeviceError> {
    let device = Device::open(arguments.device, Mode::Blocking)?;
    for number in 0..arguments.count {
        if arguments.add {
            device.add(number)?;
        } else {
            device.inject(arguments.ring)?;
        }
    }
    Ok(())
}
