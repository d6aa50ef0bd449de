// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The books of a run: what was counted when all was quiet last, which numbers the events had then,
//! and the balance that is struck when it is quiet again.

use std::time::Duration;

use evgen_uapi::{Counters, EVENT_SIZE};
use thiserror::Error;

use crate::device::{Device, DeviceError, Mode};
use crate::injected::Injected;
use crate::law::{Evidence, judge, rings};
use crate::log::Log;
use crate::quiet::{QuietError, settle};
use crate::status;
use crate::verdict::Verdict;

/// Events read at once.
const BATCH: usize = 64;

/// Why no balance can be struck.
#[derive(Debug, Error)]
pub enum BooksError {
    /// There is nothing to judge.
    #[error(
        "there is no /dev/evgen0: is the driver loaded, and does the machine have evgen devices?"
    )]
    NoDevice,
    /// A device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
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
}

impl BooksError {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::NoDevice => status::UNAVAILABLE,
            Self::Device(error) => error.status(),
            Self::QuietBefore(error) | Self::QuietAfter(error) => error.status(),
            Self::Restless { .. } => status::TIMEOUT,
        }
    }
}

/// The devices of a run, each at its place, and what is known of them between its rounds.
pub struct Books {
    devices: Vec<Device>,
    /// How long things may take to fall quiet.
    limit: Duration,
    /// What was counted when all was quiet last.
    quiet: Vec<Counters>,
    /// What the logs of the next readers go on after.
    logs: Vec<Log>,
}

/// What those who used one device tell of it.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// What they injected.
    pub injected: Injected,
    /// What each reader saw.
    pub logs: Vec<Log>,
    /// Answers to calls that were not what they should be.
    pub complaints: Vec<String>,
}

/// What is known of one device when nobody injects any more and all is quiet.
#[derive(Clone, Debug)]
pub struct Quiet {
    /// Its counters.
    counters: Counters,
    /// Rings through which no event came though a doorbell was rung.
    dead: Vec<usize>,
}

impl Books {
    /// Opens these devices, takes all events that there are, and waits until nothing moves.
    pub fn open(indices: &[usize], limit: Duration) -> Result<Self, BooksError> {
        if indices.is_empty() {
            return Err(BooksError::NoDevice);
        }
        let open = |&index: &usize| Device::open(index, Mode::Nonblocking);
        let devices = indices.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let mut logs = first_logs(&devices)?;
        let quiet = settle(&devices, limit, || {
            devices
                .iter()
                .zip(&mut logs)
                .try_for_each(|(device, log)| drain(device, log))
        })
        .map_err(BooksError::QuietBefore)?;
        let logs = quiet
            .iter()
            .zip(logs)
            .map(|(quiet, log)| Log::continued(rings(quiet), &[log]))
            .collect();
        Ok(Self {
            devices,
            limit,
            quiet,
            logs,
        })
    }

    /// The devices.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The empty log of a reader of the device at `place`, which takes only events that were not
    /// there before.
    pub fn log(&self, place: usize) -> Log {
        self.logs[place].clone()
    }

    /// Waits until all is quiet, with readers still there and nobody injecting any more. If a fault
    /// came about, rings every doorbell then, which `accounts` (by device) are told of, to see
    /// whether all rings work.
    pub fn fall_quiet(&self, accounts: &mut [Account]) -> Result<Vec<Quiet>, BooksError> {
        let quiet = self.settle()?;
        let mut both = self.quiet.iter().zip(&quiet);
        if both.all(|(before, after)| before.came_about == after.came_about) {
            let nothing_dead = |counters| Quiet {
                counters,
                dead: Vec::new(),
            };
            return Ok(quiet.into_iter().map(nothing_dead).collect());
        }
        for ((device, quiet), account) in self.devices.iter().zip(&quiet).zip(accounts) {
            for ring in 0..rings(quiet) {
                device.inject(ring)?;
                account.injected.rung[ring] += 1;
            }
        }
        Ok(deaths(&quiet, self.settle()?))
    }

    /// Rings each doorbell and adds an event to each list, with nobody else there, and judges what
    /// became of that and of what calls answered before (by device).
    pub fn prove(&mut self, complaints: Vec<Vec<String>>) -> Result<Vec<Verdict>, BooksError> {
        let mut accounts = Vec::new();
        for ((place, device), complaints) in self.devices.iter().enumerate().zip(complaints) {
            let mut injected = Injected {
                added: u64::from(device.add(0)?),
                ..Injected::default()
            };
            for ring in 0..rings(&self.quiet[place]) {
                device.inject(ring)?;
                injected.rung[ring] += 1;
            }
            accounts.push(Account {
                injected,
                logs: vec![self.log(place)],
                complaints,
            });
        }
        let quiet = settle(&self.devices, self.limit, || {
            let logs = accounts.iter_mut().flat_map(|account| &mut account.logs);
            let mut both = self.devices.iter().zip(logs);
            both.try_for_each(|(device, log)| drain(device, log))
        })
        .map_err(BooksError::QuietAfter)?;
        let quiet = deaths(&self.quiet, quiet);
        self.judge(quiet, accounts)
    }

    fn settle(&self) -> Result<Vec<Counters>, BooksError> {
        settle(&self.devices, self.limit, || Ok(())).map_err(BooksError::QuietAfter)
    }

    /// Judges what became of all events, when readers are gone too; both by device.
    pub fn judge(
        &mut self,
        quiet: Vec<Quiet>,
        accounts: Vec<Account>,
    ) -> Result<Vec<Verdict>, BooksError> {
        let by_device = quiet.into_iter().zip(accounts).enumerate();
        by_device
            .map(|(place, (quiet, account))| self.judge_device(place, quiet, account))
            .collect()
    }

    fn judge_device(
        &mut self,
        place: usize,
        quiet: Quiet,
        account: Account,
    ) -> Result<Verdict, BooksError> {
        let Account {
            injected,
            mut logs,
            complaints,
        } = account;
        let device = &self.devices[place];
        // Whatever ended the readers may have left events.
        let mut log = self.logs[place].clone();
        drain(device, &mut log)?;
        let after = device.counters()?;
        restless(device.index(), &quiet.counters, &after)?;
        let readers = logs.len();
        logs.push(log);
        let evidence = Evidence {
            device: device.index(),
            before: std::mem::replace(&mut self.quiet[place], after),
            waiting: quiet.counters.pending,
            after,
            readers,
            logs,
            injected,
            complaints,
            dead: quiet.dead,
        };
        self.logs[place] = Log::continued(rings(&after), &evidence.logs);
        Ok(judge(&evidence))
    }
}

/// Finds the rings through which nothing came from one moment to another, though each doorbell was
/// rung.
fn deaths(before: &[Counters], after: Vec<Counters>) -> Vec<Quiet> {
    let both = before.iter().zip(after);
    both.map(|(before, counters)| Quiet {
        counters,
        dead: (0..rings(&counters))
            .filter(|&ring| counters.ring[ring].received == before.ring[ring].received)
            .collect(),
    })
    .collect()
}

fn first_logs(devices: &[Device]) -> Result<Vec<Log>, DeviceError> {
    devices
        .iter()
        .map(|device| Ok(Log::new(rings(&device.counters()?))))
        .collect()
}

/// Reads once; false if there was nothing to read.
pub fn read_batch(device: &Device, log: &mut Log) -> Result<bool, DeviceError> {
    let mut buffer = [[0; EVENT_SIZE]; BATCH];
    let Some(events) = device.read(&mut buffer)? else {
        return Ok(false);
    };
    events.for_each(|event| log.record(&event));
    Ok(true)
}

/// Reads what there is; `device` must be open for non-blocking reading.
fn drain(device: &Device, log: &mut Log) -> Result<(), DeviceError> {
    while read_batch(device, log)? {}
    Ok(())
}

fn restless(device: usize, quiet: &Counters, after: &Counters) -> Result<(), BooksError> {
    let generated =
        |counters: &Counters| counters.ring.iter().map(|ring| ring.generated).sum::<u64>();
    match generated(after).saturating_sub(generated(quiet)) {
        0 => Ok(()),
        events => Err(BooksError::Restless { device, events }),
    }
}
