// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Open files in many processes, which end as they like.

use std::io;
use std::process;

use evgen_stress::books::Account;
use evgen_stress::device::{Device, Mode, Reading};
use evgen_stress::fork::fork;
use evgen_stress::signals::stopped;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid,
};

use super::{Actor, Failure};
use crate::record::{Record, Tally};

/// What a child does with the files that it has got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trick {
    /// Reads, and leaves a record.
    Read,
    /// Polls, for a few milliseconds at a time.
    Poll,
    /// Waits in all ways in which one can, until it is killed.
    Wait,
    /// Closes them, then ends.
    Close,
    /// Ends.
    Exit,
}

const TRICKS: [Trick; 6] = [
    Trick::Read,
    Trick::Read,
    Trick::Poll,
    Trick::Wait,
    Trick::Close,
    Trick::Exit,
];

/// The two ways in which the device is open.
struct Files {
    blocking: Device,
    nonblocking: Device,
}

impl Actor {
    /// Opens the device and forks, again and again. What the children saw is in records of their own.
    pub(super) fn fork(&mut self, device: usize) -> Result<(), Failure> {
        let mut children = 0;
        while !stopped() {
            let files = Files {
                blocking: self.open(device, Mode::Blocking)?,
                nonblocking: self.open(device, Mode::Nonblocking)?,
            };
            let mut brood = Vec::new();
            for _ in 0..self.rng.u8(1..=4) {
                let trick = TRICKS[self.rng.usize(..TRICKS.len())];
                let rng = self.rng.fork();
                children += 1;
                match fork().map_err(Failure::own("cannot fork"))? {
                    Some(child) => brood.push((child, trick)),
                    None => {
                        self.rng = rng;
                        self.record.set_extension(children.to_string());
                        self.be_a_child(files, trick);
                    }
                }
            }
            let files = self.rng.bool().then_some(files);
            self.rest(20_000);
            for (child, trick) in brood {
                bury(child, trick == Trick::Wait)?;
            }
            drop(files);
        }
        Ok(())
    }

    fn be_a_child(&mut self, files: Files, trick: Trick) -> ! {
        self.tally = Tally::default();
        let played = set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| Failure::own("cannot be a child")(error.into()))
            .and_then(|()| self.play_trick(files, trick));
        process::exit(match played {
            Ok(()) => 0,
            Err(failure) if self.unbind && failure.is_gone() => 0,
            Err(failure) => {
                eprintln!("torture: a forked child: {failure}");
                1
            }
        })
    }

    fn play_trick(&mut self, files: Files, trick: Trick) -> Result<(), Failure> {
        match trick {
            Trick::Read => return self.read_some(&files.nonblocking),
            Trick::Poll => {
                for _ in 0..self.rng.u8(1..=10) {
                    let milliseconds = self.rng.u8(..=20);
                    self.poll_once(&files.blocking, Some(milliseconds))?;
                }
            }
            Trick::Wait => loop {
                match self.rng.u8(..3) {
                    0 => drop(self.read_nowhere(&files.blocking)?),
                    1 => self.poll_once(&files.blocking, None)?,
                    _ => self.wait_drained(&files.blocking, 10_000)?,
                }
                self.rest(1000);
            },
            Trick::Close => drop(files),
            Trick::Exit => process::exit(0),
        }
        Ok(())
    }

    fn read_some(&mut self, device: &Device) -> Result<(), Failure> {
        let mut account = Account::default();
        let mut log = Self::log(device)?;
        let mut buffer = [1; 1000];
        let mut failed = None;
        for _ in 0..self.rng.u8(1..=50) {
            match self.read_once(device, &mut buffer, &mut log) {
                Ok(Reading::Bytes(_)) => {}
                Ok(Reading::Empty | Reading::Interrupted) => self.rest(1000),
                Err(failure) => {
                    failed = Some(failure);
                    break;
                }
            }
        }
        account.logs.push(log);
        let unexpected = failed.filter(|failure| !(self.unbind && failure.is_gone()));
        account
            .complaints
            .extend(unexpected.map(|failure| failure.to_string()));
        let record = Record {
            accounts: vec![(device.index(), account)],
            tally: self.tally,
        };
        self.leave(&record)
    }

    fn poll_once(&mut self, device: &Device, milliseconds: Option<u8>) -> Result<(), Failure> {
        let timeout = milliseconds.map(|milliseconds| Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(milliseconds) * 1_000_000,
        });
        match poll(&mut [PollFd::new(device, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(Failure::own("poll")(error.into())),
        }
    }
}

/// Waits until a child has ended, which must be well or, if it is to be killed, by that.
fn bury(child: Pid, kill: bool) -> Result<(), Failure> {
    let failed = |error: Errno| Failure::own("cannot bury a child")(error.into());
    if kill {
        kill_process(child, Signal::KILL).map_err(failed)?;
    }
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => break status,
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    };
    if status.exit_status() == Some(0) || kill && status.terminating_signal().is_some() {
        return Ok(());
    }
    let source = io::Error::other(format!("{status:?}"));
    Err(Failure::own("a forked child failed")(source))
}
