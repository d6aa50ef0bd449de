// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What can go wrong with the devices of a machine.

use std::io;

use lockstorm_device_model::{NoSuchRing, NoSuchVector, StormError};
use thiserror::Error;

use super::function::NewError;

/// Devices that cannot be made.
#[derive(Debug, Error)]
pub enum StartError {
    /// One of them cannot.
    #[error("cannot make evgen device {device}: {source}")]
    Device {
        /// Which one.
        device: usize,
        /// Why.
        source: NewError,
    },
    /// There is no eventfd for what they tell.
    #[error("cannot make an eventfd for the devices' events: {0}; raise the limit of open files")]
    Feed(#[source] io::Error),
    /// Their thread cannot.
    #[error("cannot start the thread that serves evgen devices: {0}")]
    Worker(#[source] io::Error),
}

/// A command that cannot be done. Nothing has changed then.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// There is no such device.
    #[error("there is no device {device}: the machine has {devices}, counted from 0")]
    NoSuchDevice {
        /// What was asked for.
        device: usize,
        /// How many there are.
        devices: usize,
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
