// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Checks in a VM how the driver deals with the device: timers, coalescing, resets, room for events,
//! parameters, and what it shows to developers.

mod bench;
mod coalescing;
mod deferred;
mod kernel_files;
mod looking;
mod parameters;
mod pool;
mod reset;

use std::process::ExitCode;

use clap::Parser;
use evgen_stress::ktap::{self, Outcome};
use evgen_stress::status;

use bench::{Bench, Failure};

/// Checks how the driver deals with device N, and prints a line of KTAP for each check.
///
/// Nothing else may use any device meanwhile: the module is unloaded and loaded again, several times.
#[derive(Parser)]
#[command(
    name = "test-driver",
    after_help = "Examples:
  test-driver          device 0
  test-driver 1        device 1
  test-driver --only RESET

Exit status: 0 all is well, 2 wrong arguments, 42 something is not, 69 no such device."
)]
struct Arguments {
    /// Number of the device: 0 for /dev/evgen0
    #[arg(value_name = "N", default_value_t = 0)]
    device: usize,
    /// Only the checks whose names contain this
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    only: String,
}

#[derive(Clone, Copy)]
enum Check {
    /// Can be done everywhere.
    Always(fn(&mut Bench) -> Result<(), Failure>),
    /// Says itself whether it can be done here.
    Maybe(fn(&mut Bench) -> Result<Outcome, Failure>),
}
use Check::{Always, Maybe};

const CHECKS: [(&str, Check); 35] = [
    (
        "a deferred injection rings in time",
        Always(deferred::rings_in_time),
    ),
    (
        "deferred injections make one event each",
        Always(deferred::each_makes_one_event),
    ),
    (
        "deferred injections of many threads",
        Always(deferred::many_threads),
    ),
    (
        "too many deferred injections: EBUSY",
        Always(deferred::too_many),
    ),
    (
        "bad deferred injections: EINVAL",
        Always(deferred::bad_arguments),
    ),
    (
        "deferred injections of a device that is gone: ENODEV",
        Always(deferred::gone_device),
    ),
    (
        "unbind cancels deferred injections",
        Always(deferred::unbind_cancels),
    ),
    (
        "rmmod cancels deferred injections",
        Always(deferred::rmmod_cancels),
    ),
    (
        "unbind while timers expire",
        Always(deferred::unbind_races_with_timers),
    ),
    (
        "coalescing makes interrupts fewer",
        Always(coalescing::fewer_interrupts),
    ),
    (
        "coalescing outlasts resets",
        Always(coalescing::outlasts_resets),
    ),
    (
        "coalesced events wait for their time",
        Always(coalescing::waits_for_its_time),
    ),
    ("bad coalescing: EINVAL", Always(coalescing::bad_arguments)),
    ("RESET loses nothing", Always(reset::loses_nothing)),
    ("RESET by many at a time", Always(reset::shared)),
    (
        "RESET ends with a signal: EINTR",
        Always(reset::ends_with_a_signal),
    ),
    (
        "RESET ends with the device: ENODEV",
        Always(reset::ends_with_the_device),
    ),
    (
        "room for events grows to the bound",
        Always(pool::grows_to_the_bound),
    ),
    (
        "added events bring their room along",
        Always(pool::grows_with_added_events),
    ),
    ("a list of one event", Always(pool::of_one_event)),
    (
        "without memory events leave early, no more",
        Maybe(pool::survives_without_memory),
    ),
    (
        "bad parameters are refused, with the reason",
        Always(parameters::bad_ones_are_refused),
    ),
    (
        "handlers in hard-IRQ context",
        Always(parameters::hard_handlers),
    ),
    ("handlers in threads", Always(parameters::threaded_handlers)),
    (
        "rings of two descriptors",
        Always(parameters::smallest_rings),
    ),
    ("debugfs: counters", Always(looking::counters)),
    ("debugfs: rings", Always(looking::rings)),
    ("debugfs: coalescing", Always(coalescing::shown)),
    ("debugfs: locks", Always(looking::locks)),
    ("debugfs: the last troubles", Always(looking::troubles)),
    (
        "debugfs: gone after unbind",
        Always(looking::gone_after_unbind),
    ),
    (
        "debugfs: read while unbinding",
        Always(looking::read_while_unbinding),
    ),
    (
        "debugfs: open files keep the module",
        Always(looking::open_files_keep_the_module),
    ),
    ("tracepoints", Maybe(looking::tracepoints)),
    (
        "unbind while timers expire, handlers in threads",
        Always(deferred::unbind_races_with_threads),
    ),
];

fn main() -> ExitCode {
    ExitCode::from(match check_all(&Arguments::parse()) {
        Ok(true) => status::OK,
        Ok(false) => status::FINDING,
        Err(error) => {
            eprintln!("test-driver: {error}");
            error.status()
        }
    })
}

/// Whether all is well.
fn check_all(arguments: &Arguments) -> Result<bool, Failure> {
    let mut bench = Bench::new(arguments.device)?;
    let mut checks = CHECKS.to_vec();
    checks.retain(|(name, _)| name.contains(&arguments.only));
    let good = ktap::check_all(&checks, |check| {
        bench.restore()?;
        match check {
            Always(check) => check(&mut bench).map(|()| Outcome::Good),
            Maybe(check) => check(&mut bench),
        }
    });
    bench.restore()?;
    Ok(good)
}
