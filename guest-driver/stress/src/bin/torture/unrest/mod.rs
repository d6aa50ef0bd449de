// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What is done to the actors, and to the machine, while they act: each by a thread of its own.

pub mod cpus;
mod onoff;
mod shuffle;
mod signals;
pub mod slab;
mod stutter;
mod unbind;

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Pid;
use thiserror::Error;

use crate::plan::Unrest;
use crate::stuck;

/// Making unrest failed.
#[derive(Debug, Error)]
pub enum UnrestError {
    /// The kernel refused.
    #[error("{name}: {source}")]
    Failed {
        /// Which one.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It does not end.
    #[error("{name} did not end within {} s\n{threads}", limit.as_secs())]
    Stuck {
        /// Which one.
        name: &'static str,
        /// How long it had.
        limit: Duration,
        /// What this program's threads are at.
        threads: String,
    },
}

/// The running threads.
pub struct Running(Vec<Trouble>);

struct Trouble {
    name: &'static str,
    end: Sender<()>,
    thread: JoinHandle<io::Result<u64>>,
}

/// How often each was done.
pub struct Done(Vec<(&'static str, u64)>);

/// What a thread does, and how often it did it, until told to end.
type Work = Box<dyn FnOnce(Rng, &Pause) -> io::Result<u64> + Send>;

/// The time between two strokes.
pub struct Pause(Receiver<()>);

impl Pause {
    /// Waits; false if it is time to end.
    fn wait(&self, time: Duration) -> bool {
        self.0.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
    }
}

/// Begins, with these actors, the first of which leads the group of all.
pub fn start(unrest: &Unrest, actors: Vec<Pid>) -> Running {
    let mut rng = Rng::with_seed(unrest.seed.into());
    let mut running = Vec::new();
    let mut add = |name, work: Option<Work>| {
        // Each has its own choices, whatever the others are.
        let rng = rng.fork();
        let Some(work) = work else {
            return;
        };
        let (end, ended) = channel();
        let thread = thread::spawn(move || work(rng, &Pause(ended)));
        running.push(Trouble { name, end, thread });
    };
    let group = actors[0];
    add(
        "pauses",
        unrest.stutter.map(|(go, pause)| -> Work {
            Box::new(move |_, until| stutter::stutter(group, go, pause, until))
        }),
    );
    let targets = actors.clone();
    add(
        "signals",
        unrest.signals.map(|interval| -> Work {
            Box::new(move |rng, pause| signals::interrupt(&targets, interval, rng, pause))
        }),
    );
    add(
        "shuffles",
        unrest.shuffle.map(|interval| -> Work {
            Box::new(move |rng, pause| shuffle::shuffle(&actors, interval, rng, pause))
        }),
    );
    add(
        "CPUs off and on",
        unrest.onoff.map(|interval| -> Work {
            Box::new(move |rng, pause| onoff::off_and_on(interval, rng, pause))
        }),
    );
    add(
        "allocations failed",
        unrest
            .slab
            .map(|percent| -> Work { Box::new(move |_, pause| slab::fail(percent, pause)) }),
    );
    add(
        "unbound",
        unrest.unbind.map(|interval| -> Work {
            Box::new(move |rng, pause| unbind::come_and_go(interval, rng, pause))
        }),
    );
    Running(running)
}

impl Running {
    /// Ends; everything is as it was before.
    pub fn end(self, limit: Duration) -> Result<Done, UnrestError> {
        let deadline = Instant::now() + limit;
        let told = self.0.into_iter().map(|Trouble { name, end, thread }| {
            drop(end);
            (name, thread)
        });
        let told: Vec<_> = told.collect();
        let mut done = Vec::new();
        for (name, thread) in told {
            while !thread.is_finished() {
                if Instant::now() > deadline {
                    let threads = stuck::threads(std::process::id());
                    let threads: Vec<_> = threads.iter().map(ToString::to_string).collect();
                    return Err(UnrestError::Stuck {
                        name,
                        limit,
                        threads: threads.join("\n"),
                    });
                }
                thread::sleep(Duration::from_millis(1));
            }
            // A panic aborts the program, so no thread ends in one.
            let count = thread.join().unwrap_or(Ok(0));
            done.push((
                name,
                count.map_err(|source| UnrestError::Failed { name, source })?,
            ));
        }
        Ok(Done(done))
    }
}

impl fmt::Display for Done {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self
            .0
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        text.write_str(&counts.join(", "))
    }
}
