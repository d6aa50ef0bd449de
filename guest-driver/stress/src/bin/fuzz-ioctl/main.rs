// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Calls the driver with random arguments from several threads, and checks that it answers as documented and
//! works afterwards.

mod arguments;
mod calls;
mod counters;
mod files;
mod fuzzer;
mod health;
mod memory;
mod rules;
mod system;
mod tally;

use std::ffi::CString;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::signals::{Interrupted, interrupt_on};
use evgen_stress::status;
use evgen_stress::thousands::thousands;
use evgen_uapi::Counters;
use fastrand::Rng;
use rustix::io::Errno;
use rustix::process::Signal;
use thiserror::Error;

use files::Files;
use fuzzer::{Done, Fuzzer, Shown};
use memory::{Memory, THREADS_MAX};

/// Fuzzes /dev/evgenN: every ioctl, ones that there are not, read and poll, with random arguments.
///
/// Arguments are right, wrong or extreme; their memory is good, unaligned, read-only, not there, not there
/// from the middle on, the kernel's, or freed by another thread meanwhile. Several threads use several
/// files of one device, which are doubled, closed, and set to block or not, while they are in use; and
/// signals interrupt the calls. Each answer must be a documented one, and fit what is known of the
/// argument. In the end events must go in and come out as ever, and the driver must have counted what was
/// done.
///
/// Nobody else may use the device meanwhile. Its events are read.
#[derive(Parser)]
#[command(
    name = "fuzz-ioctl",
    after_help = "Examples:
  fuzz-ioctl                             device 0 for 10 seconds
  fuzz-ioctl 1 --seconds 60 --threads 8
  fuzz-ioctl --seed 7 --threads 1        the same calls again. With more threads each makes the
                                         same calls, but when is not up to the seed

The table has, for each call, how often it was made, did well, and failed with which error.

Exit status: 0 all is well, 2 wrong arguments, 42 an answer that is not documented or does not fit, a
call that does not return, a driver that does not work any more, 69 no such device."
)]
struct Options {
    /// Number of the device: 0 for /dev/evgen0
    #[arg(value_name = "DEVICE", default_value_t = 0)]
    device: usize,
    /// How long to make calls
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// What the choices come from [default: a random one, which is printed]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Number of threads that make calls
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=THREADS_MAX as i64))]
    threads: u8,
}

/// Ends a call that waits, with `EINTR`.
const ENDING: Signal = Signal::USR1;
/// Has a call that waits made again, if it is one that can be.
const RESTARTING: Signal = Signal::USR2;
/// How long calls may take to return after the end, and the examination afterwards may take.
const END_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Error)]
enum FuzzError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("cannot open the device for all threads: {0}")]
    Open(Errno),
    #[error("cannot handle signals: {0}")]
    Signals(io::Error),
    #[error("cannot lay out memory: {0}")]
    Memory(Errno),
    #[error("a thread panicked")]
    Panic,
}

impl FuzzError {
    fn status(&self) -> u8 {
        match self {
            Self::Device(error) => error.status(),
            Self::Open(_) | Self::Panic => status::FINDING,
            Self::Signals(_) | Self::Memory(_) => status::UNAVAILABLE,
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    ExitCode::from(fuzz(&options).unwrap_or_else(|error| {
        eprintln!("fuzz-ioctl: {error}");
        error.status()
    }))
}

/// Gives the exit status.
fn fuzz(options: &Options) -> Result<u8, FuzzError> {
    let device = Device::open(options.device, Mode::Nonblocking)?;
    let before = device.counters()?;
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    say(format_args!(
        "fuzz-ioctl: evgen{}, {} threads, {} s; --seed {seed} makes the same choices again",
        options.device, options.threads, options.seconds
    ));
    let done = make_calls(options, seed, before.rings)?;
    say(&done.tally);
    let mut findings: Vec<_> = done
        .findings
        .iter()
        .map(|(finding, number)| format!("{finding} (first in call {number} of a thread)"))
        .collect();
    let calls = thousands(done.tally.calls().cast_signed());
    findings.extend(examine(device, before, done));
    for finding in &findings {
        say(format_args!("FAILED: {finding}"));
    }
    let (verdict, status) = match findings.len() {
        0 => ("; the driver works", status::OK),
        _ => ("", status::FINDING),
    };
    say(format_args!(
        "fuzz-ioctl: {calls} calls, {} findings{verdict}",
        findings.len()
    ));
    Ok(status)
}

/// Has all threads make calls until the time is over, and gives what came of all of them.
fn make_calls(options: &Options, seed: u64, rings: u32) -> Result<Done, FuzzError> {
    interrupt_on(ENDING, Interrupted::Fails).map_err(FuzzError::Signals)?;
    interrupt_on(RESTARTING, Interrupted::Restarts).map_err(FuzzError::Signals)?;
    let path = Device::path(options.device);
    let path =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| FuzzError::Open(Errno::INVAL))?;
    let files = Files::new(path).map_err(FuzzError::Open)?;
    let shown: Vec<_> = (0..options.threads).map(|_| Shown::default()).collect();
    let stop = AtomicBool::new(false);
    let mut seeds = Rng::with_seed(seed);
    let memories: Vec<_> = (0..shown.len())
        .map(Memory::new)
        .collect::<Result<_, _>>()
        .map_err(FuzzError::Memory)?;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (memory, shown) in memories.into_iter().zip(&shown) {
            let fuzzer = Fuzzer {
                random: seeds.fork(),
                memory,
                files: &files,
                rings,
                done: Done::default(),
            };
            let stop = &stop;
            threads.push(scope.spawn(move || fuzzer.run(shown, stop)));
        }
        let random = seeds.fork();
        let vanisher = scope.spawn(|| memory::vanish(random, &stop));
        interrupt_until_end(&mut seeds, options.seconds, &shown, &stop);
        vanisher
            .join()
            .map_err(|_| FuzzError::Panic)?
            .map_err(FuzzError::Memory)?;
        let mut done = Done::default();
        for thread in threads {
            done.add(thread.join().map_err(|_| FuzzError::Panic)?);
        }
        files.close_all();
        Ok(done)
    })
}

/// Sends signals to the threads until the time is over, and then until all of them have ended. Ends the
/// program if one does not.
fn interrupt_until_end(random: &mut Rng, seconds: u64, shown: &[Shown], stop: &AtomicBool) {
    let start = Instant::now();
    let end = Duration::from_secs(seconds);
    while shown.iter().any(Shown::runs) {
        let over = start.elapsed() >= end;
        stop.store(over, Ordering::Relaxed);
        if over {
            shown.iter().for_each(|thread| thread.interrupt(ENDING));
        } else {
            let signal = if random.bool() { ENDING } else { RESTARTING };
            shown[random.usize(0..shown.len())].interrupt(signal);
        }
        thread::sleep(Duration::from_micros(random.u64(0..4000)));
        if start.elapsed() > end + END_LIMIT {
            for thread in shown.iter().filter(|thread| thread.runs()) {
                say(format_args!(
                    "FAILED: {} does not return",
                    thread.call().name()
                ));
            }
            std::process::exit(status::FINDING.into());
        }
    }
}

/// Examines the driver. One that does not answer is a finding too.
fn examine(device: Device, before: Counters, done: Done) -> Vec<String> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(health::examine(&device, &before, &done)));
    match told.recv_timeout(END_LIMIT) {
        Ok(Ok(wrong)) => wrong,
        Ok(Err(error)) => vec![format!("the driver does not work any more: {error}")],
        Err(_) => vec!["the driver does not answer any more".to_owned()],
    }
}

/// Prints a line. Whoever reads the output may go away; the verdict is in the exit status too.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
