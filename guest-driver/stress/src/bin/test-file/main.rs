// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Checks in a VM what `/dev/evgenN` promises to programs.

mod bench;
mod calls;
mod draining;
mod errors;
mod interrupted;
mod memory;
mod polling;
mod reading;
mod removal;
mod sharing;
mod sleeper;

use std::process::ExitCode;

use clap::Parser;
use evgen_stress::ktap::{self, Outcome};
use evgen_stress::status;

use bench::{Bench, Failure, cannot};

/// Checks what the driver's interface promises of /dev/evgenN, and prints a line of KTAP for each
/// promise.
///
/// Nothing else may use the device meanwhile. The driver is unbound and bound again, several times.
#[derive(Parser)]
#[command(
    name = "test-file",
    after_help = "Examples:
  test-file          device 0
  test-file 1        device 1

Exit status: 0 every promise is kept, 2 wrong arguments, 42 one is not, 69 no such device."
)]
struct Arguments {
    /// Number of the device: 0 for /dev/evgen0
    #[arg(value_name = "N", default_value_t = 0)]
    device: usize,
}

#[derive(Clone, Copy)]
enum Check {
    /// Can be done everywhere.
    Always(fn(&mut Bench) -> Result<(), Failure>),
    /// Says itself whether it can be done here.
    Maybe(fn(&mut Bench) -> Result<Outcome, Failure>),
}
use Check::{Always, Maybe};

const CHECKS: [(&str, Check); 34] = [
    ("unknown ioctls: ENOTTY", Always(errors::unknown_commands)),
    ("pointers to nowhere: EFAULT", Always(errors::bad_pointers)),
    ("bad arguments: EINVAL", Always(errors::bad_arguments)),
    ("short buffers: EINVAL", Always(errors::short_buffers)),
    (
        "nothing there, not to wait: EAGAIN",
        Always(errors::nothing_there),
    ),
    ("no writing, no seeking", Always(errors::other_calls)),
    (
        "read gives whole events, oldest first",
        Always(reading::whole_events),
    ),
    ("read into a buffer in pieces", Always(reading::scattered)),
    ("read that faults loses nothing", Always(reading::faults)),
    (
        "GET_EVENT gives one event, and loses none",
        Always(reading::one_event),
    ),
    ("an event wakes a reader", Always(reading::woken)),
    (
        "many readers share the events in order",
        Always(reading::many_readers),
    ),
    (
        "read restarts after a signal",
        Always(interrupted::restarted),
    ),
    ("read ends with a signal: EINTR", Always(interrupted::ended)),
    (
        "a reader ended by a signal steals nothing",
        Always(interrupted::steals_no_waking),
    ),
    (
        "signals end the wait for a stuck reader",
        Maybe(interrupted::behind_a_page_fault),
    ),
    (
        "an event given back wakes a reader",
        Maybe(interrupted::given_back),
    ),
    (
        "poll is level triggered",
        Always(polling::poll_is_level_triggered),
    ),
    (
        "an event wakes all who poll",
        Always(polling::all_are_woken),
    ),
    ("epoll, level triggered", Always(polling::epoll_level)),
    ("epoll, edge triggered", Always(polling::epoll_edge)),
    (
        "closing a file that epoll watches",
        Always(polling::closed_while_watched),
    ),
    ("WAIT_DRAINED without an event", Always(draining::at_once)),
    ("WAIT_DRAINED times out", Always(draining::times_out)),
    (
        "WAIT_DRAINED wakes all, each time anew",
        Always(draining::all_are_woken),
    ),
    (
        "WAIT_DRAINED ends with a signal: EINTR",
        Always(draining::ended_by_signals),
    ),
    (
        "WAIT_DRAINED counts what is not read yet",
        Maybe(draining::not_read_yet),
    ),
    ("children share a file", Always(sharing::children)),
    ("fdinfo tells of a file", Always(sharing::told_in_proc)),
    ("32-bit programs", Maybe(sharing::of_32_bits)),
    (
        "removal wakes who waits for an event",
        Always(removal::sleepers_wake),
    ),
    ("removal wakes WAIT_DRAINED", Always(removal::waiters_wake)),
    (
        "removal waits for no page fault",
        Maybe(removal::waits_for_no_page_fault),
    ),
    (
        "files stay gone, ENODEV, beside a new device",
        Always(removal::files_stay_gone),
    ),
];

fn main() -> ExitCode {
    let index = Arguments::parse().device;
    ExitCode::from(match check_all(index) {
        Ok(true) => status::OK,
        Ok(false) => status::FINDING,
        Err(error) => {
            eprintln!("test-file: {error}");
            error.status()
        }
    })
}

/// Whether all promises are kept.
fn check_all(index: usize) -> Result<bool, Failure> {
    sleeper::handle_signals().map_err(cannot("handle signals"))?;
    let mut bench = Bench::new(index)?;
    Ok(ktap::check_all(&CHECKS, |check| {
        bench.restore()?;
        match check {
            Always(check) => check(&mut bench).map(|()| Outcome::Good),
            Maybe(check) => check(&mut bench),
        }
    }))
}
