// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Reading threads. Each keeps a log of its own, so they share nothing but the device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use evgen_stress::books::read_batch;
use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::log::Log;
use evgen_stress::status;
use thiserror::Error;

/// How long a non-blocking reader sleeps when there is no event.
const PAUSE: Duration = Duration::from_millis(1);

/// A reader failed.
#[derive(Debug, Error)]
pub enum ReaderError {
    /// The device did.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It does not end.
    #[error("a {mode:?} reader of evgen{device} did not come back within {} s, though events came", limit.as_secs())]
    Stuck {
        /// Which device.
        device: usize,
        /// How it reads.
        mode: Mode,
        /// How long it had.
        limit: Duration,
    },
    /// It broke an assumption of this program.
    #[error("a reader of evgen{device} panicked")]
    Panicked {
        /// Which device.
        device: usize,
    },
}

impl ReaderError {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::Device(error) => error.status(),
            Self::Stuck { .. } => status::TIMEOUT,
            Self::Panicked { .. } => status::FINDING,
        }
    }
}

/// A reading thread.
pub struct Reader {
    /// Place of its device among those of this run.
    pub place: usize,
    device: usize,
    mode: Mode,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Log, DeviceError>>,
}

/// Device (by its place) and mode of reader `number`: readers go round the devices, and on each
/// device blocking and non-blocking ones take turns.
pub fn part(number: usize, devices: usize) -> (usize, Mode) {
    let (round, place) = (number / devices, number % devices);
    match (round + place) % 2 {
        0 => (place, Mode::Blocking),
        _ => (place, Mode::Nonblocking),
    }
}

impl Reader {
    /// Starts a reader of device `device`, the one at `place` in this run, that goes on after what
    /// is in `log`.
    pub fn start(
        place: usize,
        device: usize,
        mode: Mode,
        mut log: Log,
    ) -> Result<Self, DeviceError> {
        let file = Device::open(device, mode)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if !read_batch(&file, &mut log)? {
                    thread::sleep(PAUSE);
                }
            }
            Ok(log)
        });
        Ok(Self {
            place,
            device,
            mode,
            stop,
            thread,
        })
    }

    /// Whether the reader has given up, which it does only on an error.
    pub fn failed(&self) -> bool {
        self.thread.is_finished()
    }

    fn finish(self) -> Result<Log, ReaderError> {
        match self.thread.join() {
            Ok(log) => Ok(log?),
            Err(_) => Err(ReaderError::Panicked {
                device: self.device,
            }),
        }
    }
}

/// Stops the readers; their logs come with the place of their device. A blocking reader sleeps in
/// `read`, so events are added to wake it: `added` is called for each, with the device's place.
pub fn stop(
    readers: Vec<Reader>,
    devices: &[Device],
    limit: Duration,
    mut added: impl FnMut(usize),
) -> Result<Vec<(usize, Log)>, ReaderError> {
    for reader in &readers {
        reader.stop.store(true, Ordering::Relaxed);
    }
    let deadline = Instant::now() + limit;
    let mut wakes = 0..;
    loop {
        let running: Vec<_> = readers
            .iter()
            .filter(|reader| !reader.thread.is_finished())
            .collect();
        let Some(Reader { device, mode, .. }) = running.first() else {
            break;
        };
        if Instant::now() > deadline {
            let (device, mode) = (*device, *mode);
            return Err(ReaderError::Stuck {
                device,
                mode,
                limit,
            });
        }
        let sleepers = running
            .iter()
            .filter(|reader| reader.mode == Mode::Blocking);
        for (reader, number) in sleepers.zip(&mut wakes) {
            if devices[reader.place].add(number)? {
                added(reader.place);
            }
        }
        thread::sleep(PAUSE * 10);
    }
    readers
        .into_iter()
        .map(|reader| Ok((reader.place, reader.finish()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_readers_of_both_kinds_in_turn() {
        use Mode::{Blocking, Nonblocking};
        let parts = |readers, devices| {
            (0..readers)
                .map(|number| part(number, devices))
                .collect::<Vec<_>>()
        };
        assert_eq!(parts(2, 1), [(0, Blocking), (0, Nonblocking)]);
        assert_eq!(
            parts(4, 2),
            [
                (0, Blocking),
                (1, Nonblocking),
                (0, Nonblocking),
                (1, Blocking)
            ]
        );
    }
}
