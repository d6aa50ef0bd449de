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

/// The devices of this run, and what is known of them between its rounds.
pub struct Play<'a> {
    options: &'a Options,
    devices: Vec<Device>,
    /// Number of readers.
    readers: usize,
    /// What was counted when all was quiet last.
    quiet: Vec<Counters>,
    /// By device, logs that those of the next readers go on after.
    logs: Vec<Log>,
}

impl<'a> Play<'a> {
    /// Opens the devices that `options` name, takes all events that there are, and waits until
    /// nothing moves.
    pub fn new(options: &'a Options) -> Result<Self, RunError> {
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

        let mut logs = first_logs(&devices)?;
        let limit = Duration::from_secs(options.settle);
        let quiet = settle(&devices, limit, || {
            devices
                .iter()
                .zip(&mut logs)
                .try_for_each(|(device, log)| reader::drain(device, log))
        })
        .map_err(RunError::QuietBefore)?;
        say(format_args!(
            "stress: injectors {}, readers {}, devices {}, seconds {}",
            options.injectors,
            readers,
            devices.len(),
            options.seconds
        ));
        let logs = quiet
            .iter()
            .zip(logs)
            .map(|(quiet, log)| Log::continued(rings(quiet), &[log]))
            .collect();
        Ok(Self {
            options,
            devices,
            readers,
            quiet,
            logs,
        })
    }

    /// Hammers, waits until all is quiet, and judges.
    pub fn round(&mut self) -> Result<Report, RunError> {
        let options = self.options;
        let indices: Vec<_> = self.devices.iter().map(Device::index).collect();
        let start_reader = |number| {
            let (place, mode) = reader::part(number, indices.len());
            Reader::start(place, indices[place], mode, self.logs[place].clone())
        };
        let readers = (0..self.readers)
            .map(start_reader)
            .collect::<Result<Vec<_>, _>>()?;
        let injectors = injector::start(options.injectors.into(), &indices)?;
        tell_the_machine();
        hammer(options, &self.devices, &readers)?;
        self.finish(injectors, readers)
    }

    fn finish(
        &mut self,
        injectors: Vec<Injector>,
        readers: Vec<Reader>,
    ) -> Result<Report, RunError> {
        let devices = &self.devices;
        let limit = Duration::from_secs(self.options.settle);
        let mut injected: Vec<Injected> = injector::stop(injectors, devices.len(), limit)?;
        let mut quiet = settle(devices, limit, || Ok(())).map_err(RunError::QuietAfter)?;
        let mut dead = vec![Vec::new(); devices.len()];
        if fault_came_about(&self.quiet, &quiet) {
            (quiet, dead) = prove_alive(devices, &quiet, &mut injected, limit)?;
        }

        let added = |place: usize| injected[place].added += 1;
        let reader_logs = reader::stop(readers, devices, limit, added)?;
        let mut logs: Vec<Vec<Log>> = vec![Vec::new(); devices.len()];
        for (place, log) in reader_logs {
            logs[place].push(log);
        }

        let mut verdicts = Vec::new();
        for (place, device) in devices.iter().enumerate() {
            // Of the events that woke the readers some may be left.
            let mut log = self.logs[place].clone();
            reader::drain(device, &mut log)?;
            let after = device.counters()?;
            restless(device.index(), &quiet[place], &after)?;
            let readers = logs[place].len();
            logs[place].push(log);
            let evidence = Evidence {
                device: device.index(),
                before: std::mem::replace(&mut self.quiet[place], after),
                waiting: quiet[place].pending,
                after,
                readers,
                logs: std::mem::take(&mut logs[place]),
                injected: injected[place],
                dead: std::mem::take(&mut dead[place]),
            };
            verdicts.push(judge(&evidence));
            self.logs[place] = Log::continued(rings(&after), &evidence.logs);
        }
        Ok(Report {
            verdicts,
            delivered_at_least: self.options.min_delivered,
        })
    }
}

fn fault_came_about(before: &[Counters], after: &[Counters]) -> bool {
    let mut both = before.iter().zip(after);
    both.any(|(before, after)| before.came_about != after.came_about)
}

/// Rings every doorbell once, when all is quiet: gives the counters when it is so again and, by
/// device, the rings through which no event came.
fn prove_alive(
    devices: &[Device],
    quiet: &[Counters],
    injected: &mut [Injected],
    limit: Duration,
) -> Result<(Vec<Counters>, Vec<Vec<usize>>), RunError> {
    for (place, device) in devices.iter().enumerate() {
        for ring in 0..rings(&quiet[place]) {
            device.inject(ring)?;
            injected[place].rung[ring] += 1;
        }
    }
    let after = settle(devices, limit, || Ok(())).map_err(RunError::QuietAfter)?;
    let dead = quiet.iter().zip(&after).map(|(before, after)| {
        (0..rings(after))
            .filter(|&ring| after.ring[ring].received == before.ring[ring].received)
            .collect()
    });
    let dead = dead.collect();
    Ok((after, dead))
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

fn restless(device: usize, quiet: &Counters, after: &Counters) -> Result<(), RunError> {
    let generated =
        |counters: &Counters| counters.ring.iter().map(|ring| ring.generated).sum::<u64>();
    match generated(after).saturating_sub(generated(quiet)) {
        0 => Ok(()),
        events => Err(RunError::Restless { device, events }),
    }
}
