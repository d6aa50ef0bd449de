// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The actors of one round, from the moment they start until all have left their records.

use std::fmt::Write;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::signals::stopped;
use evgen_stress::status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use thiserror::Error;

use crate::actor::RUNNING;
use crate::part::Part;
use crate::record::{Collected, ParseError};
use crate::stuck;

/// How often an actor that has not stopped is told again: a signal may come just before it sleeps.
const AGAIN: Duration = Duration::from_millis(20);

/// An actor failed.
#[derive(Debug, Error)]
pub enum CastError {
    /// It cannot be started.
    #[error("cannot start an actor ({part}): {source}")]
    Start {
        /// What it was to do.
        part: String,
        /// Why.
        source: io::Error,
    },
    /// It ended before it was told to, or in failure.
    #[error("an actor failed ({status}), so what it did is not known: {part}")]
    Failed {
        /// What it was to do.
        part: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It does not get ready, or does not end.
    #[error("an actor {what} within {} s: {part}\n{threads}", limit.as_secs())]
    Stuck {
        /// What it was to do.
        part: String,
        /// What it did not.
        what: &'static str,
        /// How long it had.
        limit: Duration,
        /// What its threads are at.
        threads: String,
    },
    /// Somebody wants it to end.
    #[error("interrupted")]
    Interrupted,
    /// Files cannot be made or read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It wrote nonsense.
    #[error("{} has a line that no actor writes: {source}", path.display())]
    Nonsense {
        /// In this file.
        path: PathBuf,
        /// What was wrong.
        source: ParseError,
    },
}

impl CastError {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::Start { .. } | Self::File { .. } => status::UNAVAILABLE,
            Self::Stuck { .. } => status::TIMEOUT,
            Self::Failed { .. } | Self::Nonsense { .. } => status::FINDING,
            Self::Interrupted => status::INTERRUPTED,
        }
    }
}

/// The running actors. Those that are left when this goes are killed.
pub struct Cast {
    actors: Vec<Actor>,
    folder: PathBuf,
    limit: Duration,
}

struct Actor {
    part: Part,
    child: Child,
    stdout: BufReader<ChildStdout>,
    ended: bool,
}

impl Cast {
    /// Starts an actor for each part, and waits until all are ready. They leave their records in a
    /// folder that is made for that, and have `limit` to get ready and to stop.
    /// If devices will be unbound, the actors know it.
    pub fn start(
        folder: &Path,
        parts: &[Part],
        unbind: bool,
        limit: Duration,
    ) -> Result<Self, CastError> {
        fs::create_dir(folder).map_err(|source| CastError::File {
            path: folder.to_owned(),
            source,
        })?;
        let mut cast = Self {
            actors: Vec::new(),
            folder: folder.to_owned(),
            limit,
        };
        for (number, part) in parts.iter().enumerate() {
            let record = folder.join(format!("actor-{number}"));
            let group = cast.actors.first().map(Actor::pid);
            let actor =
                Actor::start(part, &record, unbind, group).map_err(|source| CastError::Start {
                    part: part.to_string(),
                    source,
                })?;
            cast.actors.push(actor);
        }
        let deadline = Instant::now() + limit;
        for actor in &mut cast.actors {
            actor.wait_until_ready(deadline, limit)?;
        }
        Ok(cast)
    }

    /// The processes of all actors. The first one leads the group of all and their children.
    pub fn processes(&self) -> Vec<Pid> {
        self.actors.iter().map(Actor::pid).collect()
    }

    /// Stops those actors whose part is such, and waits for them.
    pub fn stop(&mut self, which: impl Fn(&Part) -> bool) -> Result<(), CastError> {
        let deadline = Instant::now() + self.limit;
        loop {
            let mut left = None;
            for (place, actor) in self.actors.iter_mut().enumerate() {
                if which(&actor.part) && !actor.end()? {
                    left = Some(place);
                }
            }
            let Some(left) = left else {
                return Ok(());
            };
            if stopped() {
                return Err(CastError::Interrupted);
            }
            // Linux keeps a SIGSTOP for the child that a process is about to fork, and does not drop it
            // upon a SIGCONT that comes before the child does and that nobody handles
            // (__send_signal_locked in kernel/signal.c). Such a child is born stopped after a pause.
            self.signal(Signal::CONT);
            if Instant::now() > deadline {
                return Err(self.actors[left].stuck("did not stop", self.limit));
            }
            thread::sleep(AGAIN);
        }
    }

    /// Takes in the records that were left, and removes them.
    pub fn collect(&self, collected: &mut Collected) -> Result<(), CastError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CastError::File { path, source }
        };
        for entry in fs::read_dir(&self.folder).map_err(failed(&self.folder))? {
            let path = entry.map_err(failed(&self.folder))?.path();
            let text = fs::read_to_string(&path).map_err(failed(&path))?;
            fs::remove_file(&path).map_err(failed(&path))?;
            collected
                .absorb(&text)
                .map_err(|source| CastError::Nonsense { path, source })?;
        }
        Ok(())
    }

    /// Sends a signal to all actors and their children.
    fn signal(&self, signal: Signal) {
        // The group is there as long as one of its processes was not waited for.
        if let Some(running) = self.actors.iter().find(|actor| !actor.ended) {
            let group = rustix::process::getpgid(Some(running.pid()));
            let _ = group.map(|group| kill_process_group(group, signal));
        }
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        for actor in self.actors.iter_mut().filter(|actor| !actor.ended) {
            // One that hangs in the kernel cannot be killed either.
            for _ in 0..50 {
                if !matches!(actor.child.try_wait(), Ok(None)) {
                    break;
                }
                thread::sleep(AGAIN);
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Actor {
    fn start(part: &Part, record: &Path, unbind: bool, group: Option<Pid>) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("act")
            .arg("--record")
            .arg(record)
            .args(unbind.then_some("--unbind"))
            .args(part.to_string().split(' '))
            .process_group(group.map_or(0, |group| group.as_raw_nonzero().get()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            part: part.clone(),
            child,
            stdout: BufReader::new(stdout),
            ended: false,
        })
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn wait_until_ready(&mut self, deadline: Instant, limit: Duration) -> Result<(), CastError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut line = String::new();
        let spoke = {
            let stdout = self.stdout.get_ref();
            let mut spoken = [PollFd::new(stdout, PollFlags::IN)];
            poll(&mut spoken, timeout.as_ref())
                .map_err(io::Error::from)
                .and_then(|ready| match ready {
                    0 => Ok(false),
                    _ => self.stdout.read_line(&mut line).map(|_| true),
                })
        };
        match spoke {
            Ok(true) if line.trim_end() == RUNNING => Ok(()),
            Ok(false) => Err(self.stuck("did not get ready", limit)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(CastError::Interrupted),
            spoke => {
                let part = self.part.to_string();
                let ended = spoke.and_then(|_| self.child.wait());
                self.ended = ended.is_ok();
                Err(match ended {
                    Ok(status) => CastError::Failed { part, status },
                    Err(source) => CastError::Start { part, source },
                })
            }
        }
    }

    /// Tells the actor to stop; true if it has.
    fn end(&mut self) -> Result<bool, CastError> {
        if self.ended {
            return Ok(true);
        }
        let part = || self.part.to_string();
        match self.child.try_wait() {
            Ok(None) => {
                // It is there: it was not waited for.
                let _ = kill_process(self.pid(), Signal::TERM);
                Ok(false)
            }
            Ok(Some(status)) => {
                self.ended = true;
                if status.success() {
                    return Ok(true);
                }
                Err(CastError::Failed {
                    part: part(),
                    status,
                })
            }
            Err(source) => Err(CastError::Start {
                part: part(),
                source,
            }),
        }
    }

    fn stuck(&self, what: &'static str, limit: Duration) -> CastError {
        let mut threads = String::new();
        for thread in stuck::threads(self.child.id()) {
            let _ = writeln!(threads, "{thread}");
        }
        CastError::Stuck {
            part: self.part.to_string(),
            what,
            limit,
            threads,
        }
    }
}
