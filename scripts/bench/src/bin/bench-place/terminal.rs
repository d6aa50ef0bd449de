// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A program with a terminal of its own as its console, and what it prints there.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

/// Output of which only the end is kept.
const KEPT: usize = 4096;

/// The running program. It is killed when this goes.
pub struct Program {
    child: Child,
    terminal: OwnedFd,
    started: Instant,
    output: Vec<u8>,
}

/// What the program did not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not start, or its terminal does not work.
    #[error("{0}")]
    Host(#[from] io::Error),
    /// It ended.
    #[error("it ended before it was there; the last it printed: {0}")]
    Ended(String),
    /// It takes too long.
    #[error("it was not there after {seconds} s; the last it printed: {output}")]
    Late {
        /// How long it had.
        seconds: u64,
        /// What it printed.
        output: String,
    },
}

impl Program {
    /// Starts `command`. Some of those that are measured want nothing but a terminal, so all get one.
    pub fn start(command: &mut Command) -> Result<Self, Error> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).map_err(io::Error::from)?;
        grantpt(&terminal).map_err(io::Error::from)?;
        unlockpt(&terminal).map_err(io::Error::from)?;
        let theirs = ioctl_tiocgptpeer(&terminal, flags).map_err(io::Error::from)?;
        command
            .stdin(theirs.try_clone()?)
            .stdout(theirs.try_clone()?)
            .stderr(theirs);
        let started = Instant::now();
        let child = command.spawn();
        // The terminal says that the program ended only when nobody else has its other end.
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let status = rustix::fs::fcntl_getfl(&terminal).map_err(io::Error::from)?;
        rustix::fs::fcntl_setfl(&terminal, status | OFlags::NONBLOCK).map_err(io::Error::from)?;
        Ok(Self {
            child: child?,
            terminal,
            started,
            output: Vec::new(),
        })
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has printed `text`, and gives the time from its start to then.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<Duration, Error> {
        let deadline = self.started + limit;
        let mut chunk = [0; 1024];
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Err(Error::Late {
                    seconds: limit.as_secs(),
                    output: self.last_words(),
                });
            }
            let left = deadline - now;
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut ready = [PollFd::new(&self.terminal, PollFlags::IN)];
            match poll(&mut ready, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Error::Host(error.into())),
            }
            let at = self.started.elapsed();
            match rustix::io::read(&self.terminal, &mut chunk) {
                Ok(0) | Err(Errno::IO) => return Err(Error::Ended(self.last_words())),
                Ok(count) => self.output.extend_from_slice(&chunk[..count]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(Error::Host(error.into())),
            }
            if contains(&self.output, text.as_bytes()) {
                return Ok(at);
            }
            let excess = self.output.len().saturating_sub(KEPT);
            self.output.drain(..excess);
        }
    }

    /// The last lines that it printed, as one line.
    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.output);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.trim_matches(|letter: char| letter.is_control() || letter == ' '))
            .filter(|line| !line.is_empty())
            .collect();
        let last = &lines[lines.len().saturating_sub(4)..];
        if last.is_empty() {
            "nothing".into()
        } else {
            last.join(" / ")
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn contains(output: &[u8], text: &[u8]) -> bool {
    output.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::start(Command::new("/bin/sh").args(["-c", script])).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_waited_for_is_found_on_a_terminal() {
        let mut program = shell("test -t 0 && test -t 1 && printf 'the '; printf mark; sleep 60");
        let took = program.wait_for("the mark", LONG).unwrap();
        assert!(took < LONG);
    }

    #[test]
    fn one_that_ends_or_hangs_is_told_with_its_last_words() {
        let mut program = shell("echo one; echo two");
        let error = program.wait_for("mark", LONG).unwrap_err().to_string();
        assert!(error.ends_with("one / two"), "{error}");
        let mut program = shell("exec sleep 60");
        let error = program.wait_for("mark", Duration::from_millis(50));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("not there after 0 s"), "{error}");
    }
}
