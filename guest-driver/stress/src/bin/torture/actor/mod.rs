// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What an actor does: a process that plays its part until it is told to stop, and leaves a record.
//!
//! It says `running` when it is ready for signals. SIGTERM tells it to stop, again and again until it
//! has; SIGUSR1 ends its system call, SIGUSR2 has it restarted. It dies with whoever started it.

mod ask;
mod change;
mod fork;
mod poll;
mod read;
mod write;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use evgen_stress::books::Account;
use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::law::rings;
use evgen_stress::log::Log;
use evgen_stress::signals::{Interrupted, interrupt_on, stop_on, stopped};
use evgen_uapi::{EVENT_SIZE, Record as Event};
use fastrand::Rng;
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use thiserror::Error;

use crate::part::{Part, Role};
pub use ask::DEBUGFS;

use crate::record::{Record, Tally};
use crate::say;

/// What an actor says when it is ready.
pub const RUNNING: &str = "running";

/// How long to wait before a device that could not be opened is tried again.
const AGAIN: Duration = Duration::from_millis(5);

/// What an actor is told.
#[derive(Clone, Debug, Args)]
pub struct Act {
    /// File that it leaves behind
    #[arg(long)]
    pub record: PathBuf,
    /// Devices may go, and come again
    #[arg(long)]
    pub unbind: bool,
    /// What it does.
    #[command(flatten)]
    pub part: Part,
}

/// Why an actor gave up.
#[derive(Debug, Error)]
pub enum Failure {
    /// A call failed that must not.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A call gave what it must not.
    #[error("evgen{device}: {what}")]
    Answer {
        /// Number of the device.
        device: usize,
        /// What it gave.
        what: String,
    },
    /// This program cannot go on, through no fault of the device's.
    #[error("{what}: {source}")]
    Own {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Failure {
    /// Whether it is because there is no such device, or not any more.
    fn is_gone(&self) -> bool {
        let errno = match self {
            Self::Device(DeviceError::Missing { .. }) => Some(Errno::NODEV),
            Self::Device(error) => error.errno(),
            Self::Answer { .. } => None,
            Self::Own { source, .. } => Errno::from_io_error(source),
        };
        matches!(errno, Some(Errno::NODEV | Errno::NOENT | Errno::NXIO))
    }

    fn own(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Own { what, source }
    }

    fn answer(device: &Device, what: impl Into<String>) -> Self {
        let (device, what) = (device.index(), what.into());
        Self::Answer { device, what }
    }
}

/// An actor's own things.
struct Actor {
    rng: Rng,
    tally: Tally,
    record: PathBuf,
    unbind: bool,
}

/// Plays the part.
pub fn act(act: Act) -> Result<(), Failure> {
    ready().map_err(Failure::own("cannot take signals"))?;
    let mut actor = Actor {
        rng: Rng::with_seed(act.part.seed.into()),
        tally: Tally::default(),
        record: act.record,
        unbind: act.unbind,
    };
    let mut accounts = vec![Account::default(); act.part.devices.len()];
    say(RUNNING);
    while let Err(failure) = actor.play(&act.part, &mut accounts) {
        if !(act.unbind && failure.is_gone()) {
            accounts[0].complaints.push(failure.to_string());
            break;
        }
        if stopped() {
            break;
        }
        thread::sleep(AGAIN);
    }
    let record = Record {
        accounts: act.part.devices.into_iter().zip(accounts).collect(),
        tally: actor.tally,
    };
    actor.leave(&record)
}

/// From now on signals do what they are to do here.
fn ready() -> io::Result<()> {
    stop_on(Signal::TERM)?;
    interrupt_on(Signal::USR1, Interrupted::Fails)?;
    interrupt_on(Signal::USR2, Interrupted::Restarts)?;
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

impl Actor {
    fn play(&mut self, part: &Part, accounts: &mut [Account]) -> Result<(), Failure> {
        let device = part.devices[0];
        let account = &mut accounts[0];
        match part.role {
            Role::Write {
                threads,
                pause,
                deferred,
            } => {
                let chances = write::Chances { pause, deferred };
                self.write(&part.devices, threads, chances, accounts)
            }
            Role::Read { how, bytes, pause } => self.read(device, how, bytes, pause, account),
            Role::Poll { by, bytes } => self.poll(device, by, bytes, account),
            Role::Drain => self.drain(device),
            Role::Count => self.count(device),
            Role::Browse => self.browse(),
            Role::Coalesce => self.coalesce(device),
            Role::Reset => self.reset(device, &mut account.injected),
            Role::Fork => self.fork(device),
        }
    }

    /// Leaves a record behind.
    fn leave(&self, record: &Record) -> Result<(), Failure> {
        fs::write(&self.record, record.to_string()).map_err(Failure::own("cannot write the record"))
    }

    /// Opens a device, until the kernel has memory for that.
    fn open(&mut self, device: usize, mode: Mode) -> Result<Device, Failure> {
        loop {
            self.tally.calls += 1;
            match Device::open(device, mode) {
                Err(error) if error.errno() == Some(Errno::NOMEM) && !stopped() => {
                    self.tally.refused += 1;
                    thread::sleep(AGAIN);
                }
                opened => return Ok(opened?),
            }
        }
    }

    /// A log of events of `device`.
    fn log(device: &Device) -> Result<Log, Failure> {
        Ok(Log::new(rings(&device.counters()?)))
    }

    /// Rests for a while, at most so many microseconds.
    fn rest(&mut self, microseconds: u32) {
        rest(&mut self.rng, microseconds);
    }
}

fn rest(rng: &mut Rng, microseconds: u32) {
    if microseconds > 0 {
        let microseconds = rng.u32(..=microseconds);
        thread::sleep(Duration::from_micros(microseconds.into()));
    }
}

/// Takes note of the whole events that were read.
fn take_note(log: &mut Log, bytes: &[u8]) {
    for event in bytes.as_chunks::<EVENT_SIZE>().0 {
        log.record(&Event::parse(event));
    }
}
