// SPDX-License-Identifier: Apache-2.0 OR MIT

//! From an event to the driver's handler: how long, how many, and how often the guest is left for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use lockstorm_bench::MARKER;
use lockstorm_bench::measurement::Measurement;

use crate::control::{Control, Counts};
use crate::monitors::Images;
use crate::terminal::Program;

const LIMIT: Duration = Duration::from_secs(90);
/// How long the guest may take for what it was given to do.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the counts. Each look takes time from the guest.
const PAUSE: Duration = Duration::from_millis(1);
/// The guest's own pause before it rings doorbells: with its output done, it shows what exits come
/// with time alone. The driver's watchdog reads a register ten times a second.
const DOORBELL_PAUSE: Duration = Duration::from_secs(5);
/// So long it is watched.
const IDLE: Duration = Duration::from_secs(3);
/// Between two looks while it rings them.
const DOORBELL_LOOK: Duration = Duration::from_millis(500);
const DOORBELLS: u32 = 5000;
/// Injected together: fewer than a ring holds, so that none is dropped.
const BATCH: u32 = 64;

/// A storm that any guest keeps up with, and one that none does: events per second and ring.
const STEADY: u32 = 1000;
const OVERLOAD: u32 = 200_000;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs for each way of sending interrupts.
    pub rounds: u32,
    /// Events injected one by one.
    pub singles: u32,
    /// Batches of them.
    pub batches: u32,
    /// Seconds of each storm.
    pub seconds: u32,
}

/// What one run gives, by quantity and unit.
type Results = Vec<(&'static str, &'static str, f64)>;

/// Measures with irqfds and with a request to KVM for each message, in turn.
pub fn measure(images: &Images, effort: Effort) -> Vec<Measurement> {
    let mut all: Vec<Measurement> = Vec::new();
    for round in 1..=effort.rounds {
        for way in ["irqfd", "signal"] {
            match run(images, way, effort) {
                Ok(results) => {
                    for (quantity, unit, value) in results {
                        eprintln!("interrupts {round}, {way}: {quantity} {value:.3} {unit}");
                        find(&mut all, quantity, way, unit).samples.push(value);
                    }
                }
                Err(error) => {
                    eprintln!("interrupts {round}, {way}: {error}");
                    // No quantity is complete without this run.
                    for (quantity, unit) in QUANTITIES {
                        find(&mut all, quantity, way, unit).failure = Some(error.clone());
                    }
                }
            }
        }
    }
    all
}

const QUANTITIES: [(&str, &str); 6] = [
    ("latency p50", "µs"),
    ("latency p99", "µs"),
    ("handled", "/s"),
    ("events", "/s"),
    ("exits per event", ""),
    ("exits per doorbell", ""),
];

fn find<'a>(
    all: &'a mut Vec<Measurement>,
    quantity: &str,
    way: &str,
    unit: &str,
) -> &'a mut Measurement {
    let found = all
        .iter()
        .position(|measurement| measurement.is(quantity, way));
    let index = found.unwrap_or(all.len());
    if found.is_none() {
        all.push(Measurement::new(quantity, way, unit));
    }
    &mut all[index]
}

fn run(images: &Images, way: &str, effort: Effort) -> Result<Results, String> {
    let socket = PathBuf::from(format!("/tmp/bench-{}.sock", std::process::id()));
    let results = run_with(images, way, effort, &socket);
    // lockstorm was killed, and left it.
    let _ = fs::remove_file(&socket);
    results
}

fn run_with(images: &Images, way: &str, effort: Effort, socket: &Path) -> Result<Results, String> {
    let mut command = images.lockstorm(&images.guest(), 1);
    let script = format!(
        "echo '{MARKER}'; sleep {}; test-inject-event 0 --count {DOORBELLS}; sleep 3600",
        DOORBELL_PAUSE.as_secs()
    );
    command.args(["--msi", way, "--run", &script]);
    command.arg("--control").arg(socket);
    let mut program = Program::start(&mut command).map_err(|error| error.to_string())?;
    program
        .wait_for(MARKER, LIMIT)
        .map_err(|error| error.to_string())?;
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut control = Control::connect(socket).map_err(failed("control socket"))?;
    let idle = idle(&mut control).map_err(failed("idle"))?;
    let per_doorbell = doorbells(&mut control, idle).map_err(failed("doorbells"))?;
    let (half, most) = latency(&mut control, effort.singles).map_err(failed("latency"))?;
    let handled = handled(&mut control, effort.batches).map_err(failed("rate"))?;
    let mut storm = |rate| -> Result<(Counts, Counts), String> {
        let token = token(images, rate, effort.seconds)?;
        through_storm(&mut control, &token).map_err(failed("storm"))
    };
    let (before, after) = storm(STEADY)?;
    let per_event = exits(before, after, idle) / (after.delivered - before.delivered);
    let (before, after) = storm(OVERLOAD)?;
    let seconds = (after.time - before.time) / 1e9;
    let events = (after.delivered - before.delivered) / seconds;
    let values = [
        half / 1e3,
        most / 1e3,
        handled,
        events,
        per_event,
        per_doorbell,
    ];
    let named = QUANTITIES.into_iter().zip(values);
    Ok(named
        .map(|((quantity, unit), value)| (quantity, unit, value))
        .collect())
}

/// Exits to lockstorm in a nanosecond of a guest that does nothing.
fn idle(control: &mut Control) -> std::io::Result<f64> {
    thread::sleep((DOORBELL_PAUSE - IDLE) / 4);
    let before = control.counts()?;
    thread::sleep(IDLE);
    let after = control.counts()?;
    Ok((after.exits - before.exits) / (after.time - before.time))
}

/// Exits between two looks that would not have come with time alone.
fn exits(before: Counts, after: Counts, idle: f64) -> f64 {
    let more = after.exits - before.exits - idle * (after.time - before.time);
    more.max(0.0)
}

/// Exits to lockstorm for each doorbell that the guest rings.
fn doorbells(control: &mut Control, idle: f64) -> std::io::Result<f64> {
    let before = control.counts()?;
    let goal = before.generated + f64::from(DOORBELLS);
    let after = wait_until(control, DOORBELL_LOOK, |counts| counts.generated >= goal)?;
    Ok(exits(before, after, idle) / (after.generated - before.generated))
}

/// Injects `count` events, each when the one before has been handled; how long half of them and
/// 99 % of them took at most, in nanoseconds.
fn latency(control: &mut Control, count: u32) -> std::io::Result<(f64, f64)> {
    let mut counts = control.counts()?;
    for _ in 0..count {
        let goal = counts.acknowledged + 1.0;
        control.inject(1)?;
        counts = wait_until(control, PAUSE, |counts| counts.acknowledged >= goal)?;
    }
    Ok((counts.half, counts.most))
}

/// Injects `batches` batches of events, each when the one before has been handled; how many are
/// handled in a second.
fn handled(control: &mut Control, batches: u32) -> std::io::Result<f64> {
    let before = control.counts()?;
    let start = Instant::now();
    for batch in 1..=batches {
        let goal = before.acknowledged + f64::from(batch * BATCH);
        control.inject(BATCH)?;
        wait_until(control, PAUSE, |counts| counts.acknowledged >= goal)?;
    }
    Ok(f64::from(batches * BATCH) / start.elapsed().as_secs_f64())
}

/// The counts before and after a storm.
fn through_storm(control: &mut Control, token: &str) -> std::io::Result<(Counts, Counts)> {
    let before = control.counts()?;
    control.start_storm(token)?;
    while control.storms()? {
        thread::sleep(Duration::from_millis(100));
    }
    Ok((before, control.counts()?))
}

/// Waits until the counts are as wanted.
fn wait_until(
    control: &mut Control,
    pause: Duration,
    wanted: impl Fn(&Counts) -> bool,
) -> std::io::Result<Counts> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        thread::sleep(pause);
        let counts = control.counts()?;
        if wanted(&counts) {
            return Ok(counts);
        }
        if Instant::now() > deadline {
            let seconds = PATIENCE.as_secs();
            return Err(std::io::Error::other(format!(
                "still not done after {seconds} s: {counts:?}"
            )));
        }
    }
}

/// The token of a storm of `rate` events per second and ring.
fn token(images: &Images, rate: u32, seconds: u32) -> Result<String, String> {
    let storm = format!("rate={rate},seconds={seconds}");
    let output = images.storm_token(&storm).output();
    let output = output.map_err(|error| format!("storm {storm}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().into())
    } else {
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!("storm {storm}: {}", error.trim()))
    }
}
