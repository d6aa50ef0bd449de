// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `/dev/evgenN`, with the driver's `ioctl`s as safe functions.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use evgen_uapi::{ADD, AddEvent, COUNTERS, Counters, EVENT_SIZE, INJECT, Record};
use rustix::fs::OFlags;
use rustix::ioctl::{Getter, Setter, ioctl};
use thiserror::Error;

use crate::{pattern, status};

/// What `read` does when there is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It sleeps.
    Blocking,
    /// It says so.
    Nonblocking,
}

/// A device that did not do what it was asked to.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// There is no such device.
    #[error(
        "there is no /dev/evgen{device}: is the driver loaded, and does the machine have that many devices?"
    )]
    Missing {
        /// Number of the device.
        device: usize,
    },
    /// A system call failed.
    #[error("evgen{device}: {what}: {source}")]
    Call {
        /// Number of the device.
        device: usize,
        /// What was to be done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// There is no such ring.
    #[error("evgen{device} has no ring {ring}")]
    NoRing {
        /// Number of the device.
        device: usize,
        /// Number of the ring.
        ring: usize,
    },
    /// `read` gave something else than whole events.
    #[error(
        "evgen{device}: read gave {length} bytes; it must give a multiple of {EVENT_SIZE}, and not 0"
    )]
    Fragment {
        /// Number of the device.
        device: usize,
        /// What it gave.
        length: usize,
    },
}

impl DeviceError {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::Missing { .. } => status::UNAVAILABLE,
            Self::NoRing { .. } => status::USAGE,
            Self::Call { .. } | Self::Fragment { .. } => status::FINDING,
        }
    }
}

/// An open `/dev/evgenN`.
#[derive(Debug)]
pub struct Device {
    index: usize,
    file: File,
}

impl Device {
    /// Path of device `index`.
    pub fn path(index: usize) -> PathBuf {
        Path::new("/dev").join(format!("evgen{index}"))
    }

    /// Numbers of the devices that there are.
    pub fn all() -> Vec<usize> {
        (0..)
            .take_while(|&index| Self::path(index).exists())
            .collect()
    }

    /// Opens device `index`.
    pub fn open(index: usize, mode: Mode) -> Result<Self, DeviceError> {
        let flags = match mode {
            Mode::Blocking => OFlags::empty(),
            Mode::Nonblocking => OFlags::NONBLOCK,
        };
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(Self::path(index))
            .map(|file| Self { index, file })
            .map_err(|source| match source.kind() {
                ErrorKind::NotFound => DeviceError::Missing { device: index },
                _ => DeviceError::Call {
                    device: index,
                    what: "open",
                    source,
                },
            })
    }

    /// Number of the device.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Reads as many events as there are and as fit in `buffer`; `None` if there is none and the
    /// device is open for non-blocking reading.
    pub fn read<'buffer>(
        &self,
        buffer: &'buffer mut [[u8; EVENT_SIZE]],
    ) -> Result<Option<impl Iterator<Item = Record> + use<'buffer>>, DeviceError> {
        let length = loop {
            match (&self.file).read(buffer.as_flattened_mut()) {
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(self.failed("read", error)),
            }
        };
        match buffer.get(..length / EVENT_SIZE) {
            Some(events) if length > 0 && length % EVENT_SIZE == 0 => {
                Ok(Some(events.iter().map(Record::parse)))
            }
            _ => Err(DeviceError::Fragment {
                device: self.index,
                length,
            }),
        }
    }

    /// Adds event number `number` of this process to the driver's list, made by [`pattern`]; false
    /// if the kernel had no memory for it.
    pub fn add(&self, number: u64) -> Result<bool, DeviceError> {
        let event = pattern::added(std::process::id(), number);
        // SAFETY: the driver's interface says that `ADD` reads an `AddEvent` and writes nothing.
        let result = unsafe { ioctl(&self.file, Setter::<ADD, AddEvent>::new(event)) };
        match result {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::NOMEM) => Ok(false),
            Err(error) => Err(self.failed("add an event", error.into())),
        }
    }

    /// Rings the doorbell of ring `ring`, upon which the device makes an event.
    pub fn inject(&self, ring: usize) -> Result<(), DeviceError> {
        let no_ring = || DeviceError::NoRing {
            device: self.index,
            ring,
        };
        let number = u32::try_from(ring).map_err(|_| no_ring())?;
        // SAFETY: the driver's interface says that `INJECT` reads a `u32` and writes nothing.
        let result = unsafe { ioctl(&self.file, Setter::<INJECT, u32>::new(number)) };
        result.map_err(|error| match error {
            rustix::io::Errno::INVAL => no_ring(),
            _ => self.failed("ring a doorbell", error.into()),
        })
    }

    /// What device and driver have counted.
    pub fn counters(&self) -> Result<Counters, DeviceError> {
        // SAFETY: the driver's interface says that `COUNTERS` fills in a whole `Counters`, a plain
        // struct of integers.
        let result = unsafe { ioctl(&self.file, Getter::<COUNTERS, Counters>::new()) };
        result.map_err(|error| self.failed("read the counters", error.into()))
    }

    fn failed(&self, what: &'static str, source: io::Error) -> DeviceError {
        DeviceError::Call {
            device: self.index,
            what,
            source,
        }
    }
}
