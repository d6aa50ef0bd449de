// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Readers: blocking or not, with buffers of any size, one event at a time, and wrongly.

use evgen_stress::books::Account;
use evgen_stress::device::{Device, Mode, Reading};
use evgen_stress::log::Log;
use evgen_stress::signals::stopped;
use evgen_uapi::EVENT_SIZE;
use rustix::io::Errno;

use super::{Actor, Failure, take_note};
use crate::part::How;

impl Actor {
    /// Reads a device, with a buffer of so many bytes.
    pub(super) fn read(
        &mut self,
        device: usize,
        how: How,
        bytes: usize,
        pause: u32,
        account: &mut Account,
    ) -> Result<(), Failure> {
        let mode = match how {
            How::Block => Mode::Blocking,
            How::Try | How::One => Mode::Nonblocking,
        };
        let device = self.open(device, mode)?;
        let mut log = Self::log(&device)?;
        let read = self.read_until_stopped(&device, how, bytes, pause, &mut log);
        account.logs.push(log);
        read
    }

    fn read_until_stopped(
        &mut self,
        device: &Device,
        how: How,
        bytes: usize,
        pause: u32,
        log: &mut Log,
    ) -> Result<(), Failure> {
        // Written to, so that no page of it is missing when the driver writes there.
        let mut buffer = vec![1; bytes];
        while !stopped() {
            let some = match self.rng.u8(..64) {
                0 => self.read_too_little(device, &mut buffer)?,
                1 => self.read_nowhere(device)?,
                _ if how == How::One => self.get_one(device, log)?,
                _ => self.read_once(device, &mut buffer, log)? != Reading::Empty,
            };
            // A reader that has nothing to do must not keep others from theirs.
            let pause = if some { pause } else { pause.max(1000) };
            if how != How::Block || some {
                self.rest(pause);
            }
        }
        Ok(())
    }

    /// Reads once, and takes note of the events.
    pub(super) fn read_once(
        &mut self,
        device: &Device,
        buffer: &mut [u8],
        log: &mut Log,
    ) -> Result<Reading, Failure> {
        self.tally.calls += 1;
        let reading = device.read_once(buffer)?;
        match reading {
            Reading::Bytes(length) => take_note(log, &buffer[..length]),
            Reading::Empty => {}
            Reading::Interrupted => self.tally.interrupted += 1,
        }
        Ok(reading)
    }

    fn get_one(&mut self, device: &Device, log: &mut Log) -> Result<bool, Failure> {
        self.tally.calls += 1;
        let event = device.get_event()?;
        if let Some(event) = event {
            log.record(&event);
        }
        Ok(event.is_some())
    }

    /// A buffer for less than one event is refused, events or none.
    fn read_too_little(&mut self, device: &Device, buffer: &mut [u8]) -> Result<bool, Failure> {
        self.tally.calls += 1;
        let length = self.rng.usize(1..EVENT_SIZE);
        match device.read_once(&mut buffer[..length]) {
            Err(error) if error.errno() == Some(Errno::INVAL) => Ok(true),
            Err(error) => Err(error.into()),
            Ok(reading) => {
                let what = format!("read of {length} bytes gave {reading:?}, must be EINVAL");
                Err(Failure::answer(device, what))
            }
        }
    }

    /// Without an event it waits or not, as ever; with one it fails, and the event stays.
    pub(super) fn read_nowhere(&mut self, device: &Device) -> Result<bool, Failure> {
        self.tally.calls += 1;
        match device.read_nowhere() {
            Err(error) if error.errno() == Some(Errno::FAULT) => Ok(true),
            Err(error) => Err(error.into()),
            Ok(Reading::Empty) => Ok(false),
            Ok(Reading::Interrupted) => {
                self.tally.interrupted += 1;
                Ok(false)
            }
            Ok(Reading::Bytes(length)) => {
                let what = format!("read to nowhere gave {length} bytes, must be EFAULT");
                Err(Failure::answer(device, what))
            }
        }
    }
}
