// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Hammers the evgen devices from all sides and checks that no event is lost.

mod injector;
mod options;
mod quiet;
mod reader;
mod run;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use evgen_stress::report::Report;
use evgen_stress::status;

use options::{Options, Task};

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.task {
        Some(Task::Inject { devices }) => injector::inject_until_told(&devices)
            .map(|()| status::OK)
            .map_err(Into::into),
        None => run::run(&options).and_then(|report| print(&report)),
    };
    ExitCode::from(done.unwrap_or_else(|error: run::RunError| {
        eprintln!("stress: {error}");
        error.status()
    }))
}

fn print(report: &Report) -> Result<u8, run::RunError> {
    say(report.ktap()?);
    say(report.tables()?);
    for violation in report.violations() {
        say(format_args!("FAILED: {violation}"));
    }
    say(report.conclusion());
    Ok(if report.holds() {
        status::OK
    } else {
        status::FINDING
    })
}

/// Prints a line. Whoever reads the output may go away; the verdict is in the exit status too.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
