// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Injecting processes: this program again, with the hidden task `inject`.
//!
//! A process says `running` when it has opened the devices, injects until its standard input ends
//! (so it never outlives whoever started it), and then tells in one line per device how much.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::injected::{Injected, ParseError};
use evgen_stress::law::rings;
use evgen_stress::status;
use thiserror::Error;

use crate::say;

const RUNNING: &str = "running";

/// An injecting process failed.
#[derive(Debug, Error)]
pub enum InjectorError {
    /// It cannot be started.
    #[error("cannot start injector {number}: {source}")]
    Start {
        /// Which one.
        number: usize,
        /// Why.
        source: io::Error,
    },
    /// It ended before it was told to, or in failure.
    #[error("injector {number} failed ({status}), so its counts are lost")]
    Failed {
        /// Which one.
        number: usize,
        /// How it ended.
        status: ExitStatus,
    },
    /// It does not end.
    #[error("injector {number} still runs {} s after it was told to stop: it hangs in the driver", limit.as_secs())]
    Stuck {
        /// Which one.
        number: usize,
        /// How long it had.
        limit: Duration,
    },
    /// Its pipe broke.
    #[error("cannot talk to injector {number}: {source}")]
    Talk {
        /// Which one.
        number: usize,
        /// Why.
        source: io::Error,
    },
    /// It said nonsense.
    #[error("injector {number}: {source}")]
    Nonsense {
        /// Which one.
        number: usize,
        /// What was wrong.
        source: ParseError,
    },
}

impl InjectorError {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::Start { .. } => status::UNAVAILABLE,
            Self::Stuck { .. } => status::TIMEOUT,
            Self::Failed { .. } | Self::Talk { .. } | Self::Nonsense { .. } => status::FINDING,
        }
    }
}

/// A running process.
pub struct Injector {
    number: usize,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Starts `count` processes that inject into `devices`, and waits until they all do.
pub fn start(count: usize, devices: &[usize]) -> Result<Vec<Injector>, InjectorError> {
    let mut injectors = (0..count)
        .map(|number| Injector::start(number, devices))
        .collect::<Result<Vec<_>, _>>()?;
    for injector in &mut injectors {
        if injector.line()? != RUNNING {
            return Err(injector.failed());
        }
    }
    Ok(injectors)
}

/// Stops the processes; what they injected comes by device, in the order in which they were named.
pub fn stop(
    injectors: Vec<Injector>,
    devices: usize,
    limit: Duration,
) -> Result<Vec<Injected>, InjectorError> {
    let deadline = Instant::now() + limit;
    // All are told before any is waited for.
    let told: Vec<_> = injectors
        .into_iter()
        .map(
            |Injector {
                 number,
                 child,
                 stdin,
                 stdout,
             }| {
                drop(stdin);
                (number, child, stdout)
            },
        )
        .collect();
    let mut total = vec![Injected::default(); devices];
    for (number, mut child, stdout) in told {
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() > deadline => {
                    return Err(InjectorError::Stuck { number, limit });
                }
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                Err(source) => return Err(InjectorError::Talk { number, source }),
            }
        };
        if !status.success() {
            return Err(InjectorError::Failed { number, status });
        }
        let mut lines = stdout.lines();
        for total in &mut total {
            let line = lines
                .next()
                .unwrap_or_else(|| Ok(String::new()))
                .map_err(|source| InjectorError::Talk { number, source })?;
            let injected = line
                .parse()
                .map_err(|source| InjectorError::Nonsense { number, source })?;
            total.absorb(&injected);
        }
    }
    Ok(total)
}

impl Injector {
    fn start(number: usize, devices: &[usize]) -> Result<Self, InjectorError> {
        let start = || {
            let mut child = Command::new("/proc/self/exe")
                .arg("inject")
                .args(devices.iter().map(usize::to_string))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            };
            Ok(Self {
                number,
                child,
                stdin,
                stdout: BufReader::new(stdout),
            })
        };
        start().map_err(|source| InjectorError::Start { number, source })
    }

    fn line(&mut self) -> Result<String, InjectorError> {
        let mut line = String::new();
        self.stdout
            .read_line(&mut line)
            .map_err(|source| InjectorError::Talk {
                number: self.number,
                source,
            })?;
        Ok(line.trim_end().to_owned())
    }

    fn failed(&mut self) -> InjectorError {
        let number = self.number;
        match self.child.wait() {
            Ok(status) => InjectorError::Failed { number, status },
            Err(source) => InjectorError::Talk { number, source },
        }
    }
}

/// What an injecting process does.
pub fn inject_until_told(devices: &[usize]) -> Result<(), DeviceError> {
    let mut targets = Vec::new();
    for &device in devices {
        let device = Device::open(device, Mode::Nonblocking)?;
        let rings = rings(&device.counters()?);
        targets.push((device, rings, Injected::default()));
    }
    say(RUNNING);

    let told = Arc::new(AtomicBool::new(false));
    let listener = Arc::clone(&told);
    thread::spawn(move || {
        // An error is an end as well.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        listener.store(true, Ordering::Relaxed);
    });
    while !told.load(Ordering::Relaxed) {
        for (device, rings, injected) in &mut targets {
            for ring in 0..*rings {
                device.inject(ring)?;
                injected.rung[ring] += 1;
                injected.added += u64::from(device.add(injected.added)?);
            }
        }
    }

    for (.., injected) in &targets {
        say(injected);
    }
    Ok(())
}
