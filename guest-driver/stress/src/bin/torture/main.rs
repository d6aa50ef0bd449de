// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tortures the evgen driver for a while, and checks at every pause that no event is lost.

mod actor;
mod cast;
mod options;
mod part;
mod plan;
mod record;
mod round;
mod setting;
mod stuck;
mod unrest;

use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use evgen_stress::books::Books;
use evgen_stress::signals::stop_on;
use evgen_stress::status;
use evgen_stress::thousands::thousands;
use rustix::process::Signal;

use options::{Options, Task};
use plan::{Kind, Plan};
use round::{Outcome, RoundError};

fn main() -> ExitCode {
    let mut options = Options::parse();
    let status = match options.task.take() {
        Some(Task::Act(act)) => match actor::act(act) {
            Ok(()) => status::OK,
            Err(failure) => {
                eprintln!("torture: an actor: {failure}");
                status::FINDING
            }
        },
        None => torture(&options),
    };
    ExitCode::from(status)
}

/// What came out of all rounds so far.
#[derive(Default)]
struct Total {
    rounds: u32,
    good: u32,
    events: i64,
    unaccounted: u64,
}

/// Plays all rounds, prints what there is to say of each, and gives the exit status.
fn torture(options: &Options) -> u8 {
    let seed = options.seed.unwrap_or_else(new_seed);
    let mut total = Total::default();
    let played = play(options, seed, &mut total);
    let (word, status) = match &played {
        Ok(()) if total.good == total.rounds => ("SUCCESS", status::OK),
        Ok(()) => ("FAILURE", status::FINDING),
        Err(error) => {
            say(format_args!("Bail out! {error}"));
            (word(error), error.status())
        }
    };
    let Total {
        rounds,
        good,
        events,
        unaccounted,
    } = total;
    say(format_args!(
        "# End of test: {word}: {good} of {rounds} rounds good, {} events, {} unaccounted for; \
         again with: {}",
        thousands(events),
        thousands(unaccounted.cast_signed()),
        again(options, seed)
    ));
    status
}

fn word(error: &RoundError) -> &'static str {
    match error {
        RoundError::Interrupted => "INTERRUPTED",
        _ => "FAILURE",
    }
}

fn play(options: &Options, seed: u64, total: &mut Total) -> Result<(), RoundError> {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        // Without it, the actors die with this program all the same.
        let _ = stop_on(signal);
    }
    let limit = Duration::from_secs(options.settle);
    let devices = options.devices.indices();
    let mut books = Books::open(&devices, limit)?;
    let (rounds, length) = options.rounds();
    say(format_args!("KTAP version 1\n1..{rounds}"));
    say(format_args!(
        "# torture: seed {seed}, {rounds} rounds of {} ms, devices {}",
        length.as_millis(),
        devices.len()
    ));
    let left_out = left_out(options);
    let mut plan = Plan::new(seed, devices);
    for number in 1..=rounds {
        let mut round = plan.round();
        for &kind in &left_out {
            round = round.without(kind);
        }
        for line in round.to_string().lines() {
            say(format_args!("# round {number}: {line}"));
        }
        let folder = env::temp_dir().join(format!("torture-{}", std::process::id()));
        total.rounds = number;
        let played = round::play(&mut books, &round, length, &folder, limit);
        if played.is_err() {
            say(format_args!("not ok {number} - round {number}"));
        }
        tell(number, &played?, total)?;
    }
    Ok(())
}

/// What is not done: because the user says so, or because it cannot be done here.
fn left_out(options: &Options) -> Vec<Kind> {
    let mut kinds = options.without.clone();
    for (kind, why) in round::obstacles() {
        if !kinds.contains(&kind) {
            say(format_args!("# SKIP {}: {why}", name(kind)));
            kinds.push(kind);
        }
    }
    kinds
}

fn tell(number: u32, outcome: &Outcome, total: &mut Total) -> Result<(), RoundError> {
    let report = &outcome.report;
    let (events, unaccounted) = report.balance();
    let result = if report.holds() { "ok" } else { "not ok" };
    say(format_args!(
        "{result} {number} - round {number}: {} events, {}",
        thousands(events),
        report.faults()
    ));
    let tally = outcome.tally;
    say(format_args!(
        "# {} calls, {} interrupted, {} refused; {}",
        tally.calls, tally.interrupted, tally.refused, outcome.done
    ));
    if !report.holds() {
        say(report.tables()?);
        for violation in report.violations() {
            say(format_args!("FAILED: {violation}"));
        }
    }
    total.good += u32::from(report.holds());
    total.events = total.events.saturating_add(events);
    total.unaccounted = total.unaccounted.saturating_add(unaccounted);
    Ok(())
}

/// The command line that repeats this.
fn again(options: &Options, seed: u64) -> String {
    let Options {
        seconds,
        round,
        without,
        ..
    } = options;
    let devices: Vec<_> = options
        .devices
        .indices()
        .iter()
        .map(usize::to_string)
        .collect();
    let devices = devices.join(",");
    let mut line =
        format!("torture --seed {seed} --seconds {seconds} --round {round} --devices {devices}");
    if !without.is_empty() {
        let names: Vec<_> = without.iter().map(|&kind| name(kind)).collect();
        line += &format!(" --without {}", names.join(","));
    }
    line
}

fn name(kind: Kind) -> String {
    let value = kind.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Another one each time; short, so that it can be typed.
fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| u64::from(now.subsec_nanos()) ^ now.as_secs());
    (now ^ u64::from(std::process::id()) << 16) % 1_000_000
}

/// Prints a line. Whoever reads the output may go away; the verdict is in the exit status too.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
