// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A device under load, until it is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::device::{Device, Mode};
use evgen_stress::slot::Slot;

use crate::actors::{ACTORS, Act, End, Told};
use crate::gone;
use crate::trouble::Trouble;

const PROGRAM: &str = "cat";

/// Those who use one device.
pub struct Load {
    told: Arc<Told>,
    /// Names of the threads that have not ended.
    running: Vec<&'static str>,
    ends: Receiver<(&'static str, Result<Ended, Trouble>)>,
    /// A program that got a file opened by this one.
    program: Child,
    /// To wake those who sleep until something comes.
    device: Device,
}

/// How an actor ended.
enum Ended {
    Told,
    Gone { at: Instant, calls: u64 },
}

/// Those who came back from a device that was gone, and what came instead of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Back {
    /// How many.
    pub sleepers: u64,
    /// How long the slowest took.
    pub slowest: Duration,
    /// Calls on old files that gave `ENODEV`.
    pub calls: u64,
    /// Devices that the host has put in.
    pub plugged: u64,
}

impl Back {
    /// These and others.
    pub fn absorb(&mut self, other: &Self) {
        self.sleepers += other.sleepers;
        self.slowest = self.slowest.max(other.slowest);
        self.calls += other.calls;
        self.plugged += other.plugged;
    }
}

impl Load {
    /// Puts the device in `slot` under load. Those who sleep do so for ever, or with `patience`.
    pub fn start(slot: &Slot, patience: Option<Duration>) -> Result<Self, Trouble> {
        let told = Arc::new(Told {
            end: AtomicBool::new(false),
            patience,
        });
        let missing = || Trouble::wrong("open", format!("{} has no file", slot.address()));
        let device = slot.open(Mode::Nonblocking)?.ok_or_else(missing)?;
        let index = device.index();
        let open = |mode| slot.open_numbered(index, mode)?.ok_or_else(missing);
        let program = start_program(&open(Mode::Blocking)?)?;
        let (sender, ends) = mpsc::channel();
        let mut load = Self {
            told,
            running: Vec::new(),
            ends,
            program,
            device,
        };
        for (name, mode, act) in ACTORS {
            let device = open(mode)?;
            let (told, sender) = (Arc::clone(&load.told), sender.clone());
            thread::spawn(move || sender.send((name, play(act, &device, &told))));
            load.running.push(name);
        }
        Ok(load)
    }

    /// Waits until everybody has noticed that the device is gone since `gone`, and has checked that
    /// nothing can be done with it any more.
    pub fn come_back(mut self, gone: Instant, limit: Duration) -> Result<Back, Trouble> {
        let deadline = Instant::now() + limit;
        let mut back = Back::default();
        while !self.running.is_empty() {
            let (name, ended) = self.next(deadline, limit)?;
            match ended? {
                Ended::Gone { at, calls } => back.absorb(&Back {
                    sleepers: 1,
                    slowest: at.saturating_duration_since(gone),
                    calls,
                    plugged: 0,
                }),
                Ended::Told => return Err(Trouble::wrong(name, "ended, though nobody told it")),
            }
        }
        self.end_program(deadline, limit)?;
        back.sleepers += 1;
        back.calls += gone::check(&self.device)?;
        Ok(back)
    }

    /// Ends the load on a device that is there; all its files are closed then.
    pub fn end(mut self, limit: Duration) -> Result<(), Trouble> {
        let deadline = Instant::now() + limit;
        self.told.end.store(true, Ordering::Relaxed);
        let _ = self.program.kill();
        while !self.running.is_empty() {
            // For those who sleep until something comes, and others may be faster.
            self.device.add(0)?;
            let soon = (Instant::now() + Duration::from_millis(20)).min(deadline);
            match self.next(soon, limit) {
                Ok((_, ended)) => {
                    ended?;
                }
                Err(_) if Instant::now() < deadline => {}
                Err(stuck) => return Err(stuck),
            }
        }
        Ok(())
    }

    fn next(
        &mut self,
        deadline: Instant,
        limit: Duration,
    ) -> Result<(&'static str, Result<Ended, Trouble>), Trouble> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (name, ended) = self.ends.recv_timeout(left).map_err(|_| Trouble::Stuck {
            who: self.running.clone(),
            limit,
        })?;
        self.running.retain(|running| *running != name);
        Ok((name, ended))
    }

    fn end_program(&mut self, deadline: Instant, limit: Duration) -> Result<(), Trouble> {
        loop {
            match self.program.try_wait() {
                // It says that it cannot read.
                Ok(Some(status)) if status.code() == Some(1) => return Ok(()),
                Ok(Some(status)) => {
                    return Err(Trouble::wrong(PROGRAM, format!("{status}, must be 1")));
                }
                Ok(None) if Instant::now() > deadline => {
                    let who = vec![PROGRAM];
                    return Err(Trouble::Stuck { who, limit });
                }
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                Err(source) => {
                    let what = "wait for a program";
                    return Err(Trouble::System { what, source });
                }
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.told.end.store(true, Ordering::Relaxed);
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Starts a program that reads what this one has opened.
fn start_program(device: &Device) -> Result<Child, Trouble> {
    let start = || {
        let file: OwnedFd = device.as_fd().try_clone_to_owned()?;
        Command::new(PROGRAM)
            .stdin(Stdio::from(file))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    };
    start().map_err(|source| Trouble::System {
        what: "start a program",
        source,
    })
}

fn play(act: Act, device: &Device, told: &Told) -> Result<Ended, Trouble> {
    let end = match act(device, told) {
        Err(trouble) if trouble.is_gone() => End::Gone,
        end => end?,
    };
    let at = Instant::now();
    match end {
        End::Told => Ok(Ended::Told),
        End::Gone => gone::check(device).map(|calls| Ended::Gone { at, calls }),
    }
}
