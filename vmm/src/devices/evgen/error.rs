// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What can go wrong with the devices of a machine.

use std::io;

use lockstorm_device_model::{NoSuchRing, NoSuchVector, StormError};
use thiserror::Error;

use super::function::NewError;

/// What all devices share cannot be had.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is no eventfd for them.
    #[error("cannot make an eventfd for the devices: {0}; raise the limit of open files")]
    Eventfd(#[source] io::Error),
    /// Their thread cannot be started.
    #[error("cannot start the thread that serves evgen devices: {0}")]
    Worker(#[source] io::Error),
}

/// A device that cannot be made.
#[derive(Debug, Error)]
pub enum AddError {
    /// It cannot be as it is to be.
    #[error("cannot make evgen device {device}: {source}")]
    Device {
        /// Which one.
        device: usize,
        /// Why.
        source: NewError,
    },
    /// The thread that serves devices cannot be woken for it.
    #[error("cannot have the doorbells of an evgen device be served: {0}")]
    Worker(#[source] io::Error),
}

/// A command that cannot be done. Nothing has changed then.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// There never was such a device.
    #[error("there is no device {device}: the machine has {devices}", devices = listed(devices))]
    NoSuchDevice {
        /// What was asked for.
        device: usize,
        /// Those that there are.
        devices: Vec<usize>,
    },
    /// There was such a device.
    #[error("device {device} is gone: it was taken out of its slot")]
    Gone {
        /// Which one.
        device: usize,
    },
    /// The device has no such ring.
    #[error("device {device}: {source}")]
    NoSuchRing {
        /// Which device.
        device: usize,
        /// What it says.
        source: NoSuchRing,
    },
    /// The device has no such vector.
    #[error("device {device}: {source}")]
    NoSuchVector {
        /// Which device.
        device: usize,
        /// What it says.
        source: NoSuchVector,
    },
    /// The device does not start this storm.
    #[error("device {device}: {source}")]
    Storm {
        /// Which device.
        device: usize,
        /// What it says.
        source: StormError,
    },
    /// A command for some devices that names none.
    #[error("no device is named: leave `devices` out to mean all")]
    NoDevices,
}

/// Rising numbers as a text, in which those that follow each other are a range.
fn listed(numbers: &[usize]) -> String {
    let ranges = numbers.chunk_by(|number, next| number + 1 == *next);
    let ranges = ranges.filter_map(|range| match range {
        [] => None,
        [only] => Some(only.to_string()),
        [first, .., last] => Some(format!("{first} to {last}")),
    });
    let ranges: Vec<_> = ranges.collect();
    if ranges.is_empty() {
        "none".to_owned()
    } else {
        ranges.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_devices_that_there_are() {
        for (devices, text) in [
            (&[][..], "none"),
            (&[0], "0"),
            (&[0, 1], "0 to 1"),
            (&[0, 2, 3, 4, 9], "0, 2 to 4, 9"),
        ] {
            let devices = devices.to_vec();
            let error = CommandError::NoSuchDevice { device: 5, devices };
            let expected = format!("there is no device 5: the machine has {text}");
            assert_eq!(error.to_string(), expected);
        }
    }
}
