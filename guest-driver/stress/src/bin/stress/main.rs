// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Hammers the evgen devices from all sides and checks that no event is lost.

mod injector;
mod options;
mod reader;
mod run;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use evgen_stress::report::Report;
use evgen_stress::status;
use evgen_stress::thousands::thousands;

use options::{Options, Task};
use run::Play;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.task {
        Some(Task::Inject { devices }) => injector::inject_until_told(&devices)
            .map(|()| status::OK)
            .map_err(Into::into),
        None => judge(&options),
    };
    ExitCode::from(done.unwrap_or_else(|error: run::RunError| {
        eprintln!("stress: {error}");
        error.status()
    }))
}

/// Does all rounds, prints what there is to say of each, and gives the exit status. A round that goes
/// wrong does not keep the next one from its storm.
fn judge(options: &Options) -> Result<u8, run::RunError> {
    let mut play = Play::new(options)?;
    if options.rounds == 1 {
        let report = play.round()?;
        say(report.ktap()?);
        explain(&report)?;
        return Ok(status_of(report.holds()));
    }
    say(format_args!("KTAP version 1\n1..{}", options.rounds));
    let (mut good, mut total) = (0, (0_i64, 0_u64));
    for round in 1..=options.rounds {
        let report = play.round()?;
        let (holds, balance) = (report.holds(), report.balance());
        let result = if holds { "ok" } else { "not ok" };
        say(format_args!(
            "{result} {round} - round {round}: {}",
            report.faults()
        ));
        if holds {
            say(format_args!("# {}", report.conclusion()));
        } else {
            explain(&report)?;
        }
        good += u16::from(holds);
        total.0 = total.0.saturating_add(balance.0);
        total.1 = total.1.saturating_add(balance.1);
    }
    say(format_args!(
        "{good} of {} rounds good: {} events, {} unaccounted for",
        options.rounds,
        thousands(total.0),
        thousands(total.1.cast_signed())
    ));
    Ok(status_of(good == options.rounds))
}

/// Prints all that is known of a round.
fn explain(report: &Report) -> Result<(), run::RunError> {
    say(report.tables()?);
    for violation in report.violations() {
        say(format_args!("FAILED: {violation}"));
    }
    say(report.conclusion());
    Ok(())
}

fn status_of(good: bool) -> u8 {
    if good { status::OK } else { status::FINDING }
}

/// Prints a line. Whoever reads the output may go away; the verdict is in the exit status too.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
