// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One run: quiet, hammering, quiet, judgement.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::books::{Account, Books, BooksError};
use evgen_stress::device::{Device, DeviceError};
use evgen_stress::exit_device;
use evgen_stress::report::Report;
use evgen_stress::status;
use evgen_stress::thousands::thousands;
use thiserror::Error;

use crate::injector::{self, Injector, InjectorError};
use crate::options::Options;
use crate::reader::{self, Reader, ReaderError};
use crate::say;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum RunError {
    /// A device would have no reader.
    #[error("--readers {readers} is too few for {devices} devices: each device needs one")]
    TooFewReaders {
        /// Readers asked for.
        readers: usize,
        /// Devices to take.
        devices: usize,
    },
    /// No balance can be struck.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// A device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An injector failed.
    #[error(transparent)]
    Injector(#[from] InjectorError),
    /// A reader failed.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// The report cannot be put into words.
    #[error("cannot format the report")]
    Format(#[from] fmt::Error),
}

impl RunError {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::TooFewReaders { .. } => status::USAGE,
            Self::Books(error) => error.status(),
            Self::Device(error) => error.status(),
            Self::Injector(error) => error.status(),
            Self::Reader(error) => error.status(),
            Self::Format(_) => status::FINDING,
        }
    }
}

/// The devices of this run, with what `options` ask for.
pub struct Play<'a> {
    options: &'a Options,
    books: Books,
    /// Number of readers.
    readers: usize,
}

impl<'a> Play<'a> {
    /// Opens the devices that `options` name, takes all events that there are, and waits until
    /// nothing moves.
    pub fn new(options: &'a Options) -> Result<Self, RunError> {
        let indices = options.devices.indices();
        let readers = reader_count(options, indices.len())?;
        let books = Books::open(&indices, Duration::from_secs(options.settle))?;
        say(format_args!(
            "stress: injectors {}, readers {}, devices {}, seconds {}",
            options.injectors,
            readers,
            indices.len(),
            options.seconds
        ));
        Ok(Self {
            options,
            books,
            readers,
        })
    }

    /// Hammers, waits until all is quiet, and judges.
    pub fn round(&mut self) -> Result<Report, RunError> {
        let options = self.options;
        let devices = self.books.devices();
        let indices: Vec<_> = devices.iter().map(Device::index).collect();
        let start_reader = |number| {
            let (place, mode) = reader::part(number, indices.len());
            Reader::start(place, indices[place], mode, self.books.log(place))
        };
        let readers = (0..self.readers)
            .map(start_reader)
            .collect::<Result<Vec<_>, _>>()?;
        let injectors = injector::start(options.injectors.into(), &indices)?;
        exit_device::announce_ready("stress");
        hammer(options, devices, &readers)?;
        self.finish(injectors, readers)
    }

    fn finish(
        &mut self,
        injectors: Vec<Injector>,
        readers: Vec<Reader>,
    ) -> Result<Report, RunError> {
        let devices = self.books.devices();
        let limit = Duration::from_secs(self.options.settle);
        let injected = injector::stop(injectors, devices.len(), limit)?;
        let account = |injected| Account {
            injected,
            ..Account::default()
        };
        let mut accounts: Vec<_> = injected.into_iter().map(account).collect();
        let quiet = self.books.fall_quiet(&mut accounts)?;
        let added = |place: usize| accounts[place].injected.added += 1;
        for (place, log) in reader::stop(readers, devices, limit, added)? {
            accounts[place].logs.push(log);
        }
        Ok(Report {
            verdicts: self.books.judge(quiet, accounts)?,
            delivered_at_least: self.options.min_delivered,
        })
    }
}

fn reader_count(options: &Options, devices: usize) -> Result<usize, RunError> {
    match options.readers.map(usize::from) {
        None => Ok(devices.max(2)),
        Some(readers) if readers < devices => Err(RunError::TooFewReaders { readers, devices }),
        Some(readers) => Ok(readers),
    }
}

/// Lets everybody work for the time asked for, or until a reader fails.
fn hammer(options: &Options, devices: &[Device], readers: &[Reader]) -> Result<(), DeviceError> {
    let start = Instant::now();
    let mut last = figures(devices)?;
    for second in 1..=options.seconds {
        let next = Duration::from_secs(second);
        thread::sleep(next.saturating_sub(start.elapsed()));
        if readers.iter().any(Reader::failed) {
            break;
        }
        if options.live {
            let now = figures(devices)?;
            say(format_args!(
                "{second:>4} s: {} events generated, {} delivered, {} read in this second",
                thousands(now[0] - last[0]),
                thousands(now[1] - last[1]),
                thousands(now[2] - last[2])
            ));
            last = now;
        }
    }
    Ok(())
}

/// Generated, delivered, read; of all devices together.
fn figures(devices: &[Device]) -> Result<[i64; 3], DeviceError> {
    let mut sum = [0_u64; 3];
    for device in devices {
        let counters = device.counters()?;
        for ring in &counters.ring {
            sum[0] += ring.generated;
            sum[1] += ring.delivered;
        }
        sum[2] += counters.read;
    }
    Ok(sum.map(u64::cast_signed))
}
