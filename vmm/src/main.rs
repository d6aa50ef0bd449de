// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The program `lockstorm`: reads the command line and tells how it went.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use clap::error::ErrorKind;
use tracing::Level;

use lockstorm::cli::{self, Cli, Command};
use lockstorm::console::tell;
use lockstorm::supervisor::{Ending, status};
use lockstorm::{completion, ctl, run, serve, storms, top};

/// Names the lowest level of log messages that are shown: error, warn, info, debug or trace.
const LOG_VARIABLE: &str = "LOCKSTORM_LOG";

fn main() -> ExitCode {
    let start = Instant::now();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage(&error)),
    };
    let level = std::env::var(LOG_VARIABLE)
        .ok()
        .and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level.unwrap_or(Level::WARN))
        .without_time()
        .with_target(false)
        // They would be printed where printing just failed, and that panics.
        .log_internal_errors(false)
        .init();
    ExitCode::from(match cli.command {
        Command::Boot(options) => {
            let ending =
                run::boot(&options, start).map_err(|error| (error.status(), error.to_string()));
            tell_ending(ending, &options.guest)
        }
        Command::Serve(options) => {
            let ending =
                serve::serve(&options, start).map_err(|error| (error.status(), error.to_string()));
            tell_ending(ending, &options.guest)
        }
        Command::Ctl(ctl) => ctl::run(ctl),
        Command::Top(top) => top::run(&top),
        Command::Storm(storm) => storms::run(&storm),
        Command::Completion(completion) => completion::run(&completion),
    })
}

/// Prints what clap has to say: help as it is, an error as one line.
fn usage(error: &clap::Error) -> u8 {
    let help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if help || !error.use_stderr() {
        // Whoever closes the output does not want to know.
        let _ = error.print();
        return if help { status::USAGE } else { status::OK };
    }
    let text = error.to_string();
    // After the message come an empty line, the usage and hints.
    let message = text.split("\n\n").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let words: Vec<_> = message.split_whitespace().collect();
    tell(format_args!("{} (see `lockstorm --help`)", words.join(" ")));
    status::USAGE
}

/// Tells how a run ended, or why it did not come about; gives the exit status.
fn tell_ending(ending: Result<Ending, (u8, String)>, guest: &cli::GuestOptions) -> u8 {
    let ending = match ending {
        Ok(ending) => ending,
        Err((status, error)) => {
            tell(error);
            return status;
        }
    };
    if let Some(message) = ending.message {
        tell(message);
    }
    if let (Some(log), 1..) = (&guest.console_log, ending.status) {
        tell(format_args!("the guest's console is in {}", log.display()));
    }
    ending.status
}
