// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One run: quiet, hammering, quiet, judgement.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::exit_device::ExitDevice;
use evgen_stress::injected::Injected;
use evgen_stress::law::{Evidence, judge, rings};
use evgen_stress::log::Log;
use evgen_stress::report::Report;
use evgen_stress::status;
use evgen_stress::thousands::thousands;
use evgen_uapi::Counters;
use thiserror::Error;

use crate::injector::{self, Injector, InjectorError};
use crate::options::{Devices, Options};
use crate::quiet::{QuietError, settle};
use crate::reader::{self, Reader, ReaderError};
use crate::say;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum RunError {
    /// There is nothing to hammer.
    #[error(
        "there is no /dev/evgen0: is the driver loaded, and does the machine have evgen devices?"
    )]
    NoDevice,
    /// A device would have no reader.
    #[error("--readers {readers} is too few for {devices} devices: each device needs one")]
    TooFewReaders {
        /// Readers asked for.
        readers: usize,
        /// Devices to take.
        devices: usize,
    },
    /// A device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An injector failed.
    #[error(transparent)]
    Injector(#[from] InjectorError),
    /// A reader failed.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// It was not quiet in the beginning.
    #[error("before the start: {0}")]
    QuietBefore(#[source] QuietError),
    /// It did not fall quiet.
    #[error("after the end: {0}")]
    QuietAfter(#[source] QuietError),
    /// It was quiet for a while only.
    #[error(
        "evgen{device} made {events} more events after it had fallen quiet. Does a slow storm still run?"
    )]
    Restless {
        /// Number of the device.
        device: usize,
        /// How many events.
        events: u64,
    },
    /// The report cannot be put into words.
    #[error("cannot format the report")]
    Format(#[from] fmt::Error),
}

impl RunError {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::NoDevice => status::UNAVAILABLE,
            Self::TooFewReaders { .. } => status::USAGE,
            Self::Device(error) => error.status(),
            Self::Injector(error) => error.status(),
            Self::Reader(error) => error.status(),
            Self::QuietBefore(error) | Self::QuietAfter(error) => error.status(),
            Self::Restless { .. } => status::TIMEOUT,
            Self::Format(_) => status::FINDING,
        }
    }
}

/// Does everything that `options` ask for.
pub fn run(options: &Options) -> Result<Report, RunError> {
    let indices = match &options.devices {
        Devices::All => Device::all(),
        Devices::Some(indices) => indices.clone(),
    };
    if indices.is_empty() {
        return Err(RunError::NoDevice);
    }
    let readers = reader_count(options, indices.len())?;
    let open = |&index: &usize| Device::open(index, Mode::Nonblocking);
    let devices = indices.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let settle_limit = Duration::from_secs(options.settle);

    let mut logs = first_logs(&devices)?;
    let before = settle(&devices, settle_limit, || {
        devices
            .iter()
            .zip(&mut logs)
            .try_for_each(|(device, log)| reader::drain(device, log))
    })
    .map_err(RunError::QuietBefore)?;
    let logs: Vec<_> = logs.iter().map(Log::continued).collect();

    say(format_args!(
        "stress: injectors {}, readers {readers}, devices {}, seconds {}",
        options.injectors,
        devices.len(),
        options.seconds
    ));
    let start_reader = |number| {
        let (place, mode) = reader::part(number, indices.len());
        Reader::start(place, indices[place], mode, logs[place].clone())
    };
    let readers = (0..readers)
        .map(start_reader)
        .collect::<Result<Vec<_>, _>>()?;
    let injectors = injector::start(options.injectors.into(), &indices)?;
    tell_the_machine();
    hammer(options, &devices, &readers)?;

    finish(options, &devices, before, injectors, readers, logs)
}

fn reader_count(options: &Options, devices: usize) -> Result<usize, RunError> {
    match options.readers.map(usize::from) {
        None => Ok(devices.max(2)),
        Some(readers) if readers < devices => Err(RunError::TooFewReaders { readers, devices }),
        Some(readers) => Ok(readers),
    }
}

fn first_logs(devices: &[Device]) -> Result<Vec<Log>, DeviceError> {
    devices
        .iter()
        .map(|device| Ok(Log::new(rings(&device.counters()?))))
        .collect()
}

/// Puts the mark on the machine's timeline upon which it starts the storm that it was asked for.
fn tell_the_machine() {
    match ExitDevice::of_this_machine() {
        Ok(Some(machine)) => machine.mark("ready"),
        Ok(None) => {}
        Err(error) => eprintln!("stress: no storm will come from the host: {error}"),
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

fn finish(
    options: &Options,
    devices: &[Device],
    before: Vec<Counters>,
    injectors: Vec<Injector>,
    readers: Vec<Reader>,
    last_logs: Vec<Log>,
) -> Result<Report, RunError> {
    let limit = Duration::from_secs(options.settle);
    let mut injected: Vec<Injected> = injector::stop(injectors, devices.len(), limit)?;
    let quiet = settle(devices, limit, || Ok(())).map_err(RunError::QuietAfter)?;

    let added = |place: usize| injected[place].added += 1;
    let reader_logs = reader::stop(readers, devices, limit, added)?;
    let mut logs: Vec<Vec<Log>> = vec![Vec::new(); devices.len()];
    for (place, log) in reader_logs {
        logs[place].push(log);
    }

    let mut verdicts = Vec::new();
    for (place, device) in devices.iter().enumerate() {
        // Of the events that woke the readers some may be left.
        let mut log = last_logs[place].clone();
        reader::drain(device, &mut log)?;
        let after = device.counters()?;
        restless(device.index(), &quiet[place], &after)?;
        let readers = logs[place].len();
        logs[place].push(log);
        verdicts.push(judge(&Evidence {
            device: device.index(),
            before: before[place],
            waiting: quiet[place].pending,
            after,
            readers,
            logs: std::mem::take(&mut logs[place]),
            injected: injected[place],
        }));
    }
    Ok(Report {
        verdicts,
        delivered_at_least: options.min_delivered,
    })
}

fn restless(device: usize, quiet: &Counters, after: &Counters) -> Result<(), RunError> {
    let generated =
        |counters: &Counters| counters.ring.iter().map(|ring| ring.generated).sum::<u64>();
    match generated(after).saturating_sub(generated(quiet)) {
        0 => Ok(()),
        events => Err(RunError::Restless { device, events }),
    }
}
