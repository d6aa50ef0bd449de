// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `/dev/evgenN`, with the driver's `ioctl`s as safe functions.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr;

use evgen_uapi::{
    ADD, AddEvent, COUNTERS, Coalescing, Counters, DeferredInjection, EVENT_SIZE, GET_EVENT,
    INJECT, INJECT_DEFERRED, RESET, Record, SET_COALESCING, WAIT_DRAINED,
};
use rustix::fs::OFlags;
use rustix::io::{Errno, retry_on_intr};
use rustix::ioctl::{Getter, NoArg, Setter, ioctl};
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

    /// Why the system call failed, if that is what went wrong: `ENODEV` once the device is gone.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}

/// How [`Device::read_once`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// So many bytes were read: whole events.
    Bytes(usize),
    /// There is no event, and the device is open for non-blocking reading.
    Empty,
    /// A signal came first.
    Interrupted,
}

/// How [`Device::wait_drained`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// There was a moment without an event.
    Drained,
    /// The time was over first.
    TimedOut,
    /// A signal came first.
    Interrupted,
}

/// An open `/dev/evgenN`.
///
/// A call that a signal ends before it did anything is made again, where not said otherwise.
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
            match self.read_once(buffer.as_flattened_mut())? {
                Reading::Bytes(length) => break length,
                Reading::Empty => return Ok(None),
                Reading::Interrupted => {}
            }
        };
        let events = &buffer[..length / EVENT_SIZE];
        Ok(Some(events.iter().map(Record::parse)))
    }

    /// Reads as many events as there are and as fit in `buffer`. Is not made again after a signal.
    pub fn read_once(&self, buffer: &mut [u8]) -> Result<Reading, DeviceError> {
        match (&self.file).read(buffer) {
            Ok(length) if !(1..=buffer.len()).contains(&length) || length % EVENT_SIZE != 0 => {
                Err(DeviceError::Fragment {
                    device: self.index,
                    length,
                })
            }
            Ok(length) => Ok(Reading::Bytes(length)),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Reading::Interrupted),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Reading::Empty),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    /// Reads one event to where no memory is, which must fail with `EFAULT` and leave the event where
    /// it was. Is not made again after a signal.
    pub fn read_nowhere(&self) -> Result<Reading, DeviceError> {
        // SAFETY: no program here maps anything at address 0, so the kernel writes nothing.
        let length = unsafe { libc::read(self.file.as_raw_fd(), ptr::null_mut(), EVENT_SIZE) };
        if let Ok(length) = usize::try_from(length) {
            return Ok(Reading::Bytes(length));
        }
        match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::Interrupted => Ok(Reading::Interrupted),
            error if error.kind() == ErrorKind::WouldBlock => Ok(Reading::Empty),
            error => Err(self.failed("read to nowhere", error)),
        }
    }

    /// Adds event number `number` of this process to the driver's list, made by [`pattern`]; false
    /// if the kernel had no memory for it.
    pub fn add(&self, number: u64) -> Result<bool, DeviceError> {
        let event = pattern::added(std::process::id(), number);
        // SAFETY: the driver's interface says that `ADD` reads an `AddEvent` and writes nothing.
        let add = || unsafe { ioctl(&self.file, Setter::<ADD, AddEvent>::new(event)) };
        match retry_on_intr(add) {
            Ok(()) => Ok(true),
            Err(Errno::NOMEM) => Ok(false),
            Err(error) => Err(self.failed("add an event", error.into())),
        }
    }

    /// Rings the doorbell of ring `ring`, upon which the device makes an event.
    pub fn inject(&self, ring: usize) -> Result<(), DeviceError> {
        let number = self.ring_number(ring)?;
        // SAFETY: the driver's interface says that `INJECT` reads a `u32` and writes nothing.
        let inject = || unsafe { ioctl(&self.file, Setter::<INJECT, u32>::new(number)) };
        retry_on_intr(inject).map_err(|error| match error {
            Errno::INVAL => self.no_ring(ring),
            _ => self.failed("ring a doorbell", error.into()),
        })
    }

    /// Rings the doorbell of ring `ring` in so many milliseconds, at most
    /// [`evgen_uapi::DEFERRED_MILLISECONDS_MAX`]; false if no more injections can wait just now.
    pub fn inject_deferred(&self, ring: usize, milliseconds: u32) -> Result<bool, DeviceError> {
        let injection = DeferredInjection {
            ring: self.ring_number(ring)?,
            milliseconds,
        };
        // SAFETY: the driver's interface says that `INJECT_DEFERRED` reads a `DeferredInjection`
        // and writes nothing.
        let inject = || unsafe { ioctl(&self.file, Setter::<INJECT_DEFERRED, _>::new(injection)) };
        match retry_on_intr(inject) {
            Ok(()) => Ok(true),
            Err(Errno::BUSY | Errno::NOMEM) => Ok(false),
            Err(error) => Err(self.failed("ring a doorbell later", error.into())),
        }
    }

    /// Takes the oldest event, without waiting; `None` if there is none.
    pub fn get_event(&self) -> Result<Option<Record>, DeviceError> {
        // SAFETY: the driver's interface says that `GET_EVENT` fills in this many bytes.
        let get = || unsafe { ioctl(&self.file, Getter::<GET_EVENT, [u8; EVENT_SIZE]>::new()) };
        match retry_on_intr(get) {
            Ok(event) => Ok(Some(Record::parse(&event))),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(self.failed("get an event", error.into())),
        }
    }

    /// Waits, for so many milliseconds at most, until every event was read. Is not made again after
    /// a signal.
    pub fn wait_drained(&self, milliseconds: u32) -> Result<Drained, DeviceError> {
        // SAFETY: the driver's interface says that `WAIT_DRAINED` reads a `u32` and writes nothing.
        let wait = unsafe { ioctl(&self.file, Setter::<WAIT_DRAINED, u32>::new(milliseconds)) };
        match wait {
            Ok(()) => Ok(Drained::Drained),
            Err(Errno::TIMEDOUT) => Ok(Drained::TimedOut),
            Err(Errno::INTR) => Ok(Drained::Interrupted),
            Err(error) => Err(self.failed("wait until all is read", error.into())),
        }
    }

    /// Lets ring `ring` gather so many events, for so long at most, before it interrupts.
    pub fn set_coalescing(
        &self,
        ring: usize,
        events: u32,
        microseconds: u32,
    ) -> Result<(), DeviceError> {
        let coalescing = Coalescing {
            ring: self.ring_number(ring)?,
            events,
            microseconds,
            reserved: 0,
        };
        // SAFETY: the driver's interface says that `SET_COALESCING` reads a `Coalescing` and writes
        // nothing.
        let set = || unsafe { ioctl(&self.file, Setter::<SET_COALESCING, _>::new(coalescing)) };
        retry_on_intr(set).map_err(|error| self.failed("set coalescing", error.into()))
    }

    /// Resets the device and sets it up anew; false if a signal came before it ran again. Is not
    /// made again then.
    pub fn reset(&self) -> Result<bool, DeviceError> {
        // SAFETY: the driver's interface says that `RESET` neither reads nor writes memory.
        let reset = unsafe { ioctl(&self.file, NoArg::<RESET>::new()) };
        match reset {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(self.failed("reset", error.into())),
        }
    }

    /// What device and driver have counted.
    pub fn counters(&self) -> Result<Counters, DeviceError> {
        // SAFETY: the driver's interface says that `COUNTERS` fills in a whole `Counters`, a plain
        // struct of integers.
        let read = || unsafe { ioctl(&self.file, Getter::<COUNTERS, Counters>::new()) };
        retry_on_intr(read).map_err(|error| self.failed("read the counters", error.into()))
    }

    fn ring_number(&self, ring: usize) -> Result<u32, DeviceError> {
        u32::try_from(ring).map_err(|_| self.no_ring(ring))
    }

    fn no_ring(&self, ring: usize) -> DeviceError {
        DeviceError::NoRing {
            device: self.index,
            ring,
        }
    }

    fn failed(&self, what: &'static str, source: io::Error) -> DeviceError {
        DeviceError::Call {
            device: self.index,
            what,
            source,
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
