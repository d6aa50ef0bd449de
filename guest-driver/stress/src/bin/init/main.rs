// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Process 1 of the guest: loads the driver, runs the command that the machine was started with, or
//! a shell, and tells the machine how it went.
//!
//! It never ends by itself, since a kernel whose process 1 ends panics, and a panic must mean that
//! something is wrong with the kernel or the driver.

mod boot;
mod complaints;
mod splats;
mod supervise;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use evgen_stress::exit_device::ExitDevice;
use evgen_stress::kernel_arguments::{ArgumentError, KernelArguments};
use evgen_stress::status;
use rustix::system::{RebootCommand, reboot};
use rustix::termios::tcdrain;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        say("this is process 1 of a guest and does nothing elsewhere");
        return ExitCode::from(status::USAGE);
    }
    init()
}

fn init() -> ! {
    let booted = boot::file_systems();
    // The console is there even if a mount failed, and the message is to be seen.
    boot::console();
    let machine = ExitDevice::of_this_machine().unwrap_or_else(|error| {
        say(error);
        None
    });
    let mark = |name| {
        if let Some(machine) = &machine {
            machine.mark(name);
        }
    };
    mark("init");

    let arguments = KernelArguments::of_this_kernel().unwrap_or_else(|error| {
        say(format_args!("cannot read /proc/cmdline: {error}"));
        KernelArguments::new(b"")
    });
    let driver = booted.and_then(|()| boot::driver(&arguments));
    match &driver {
        Ok(()) => mark("driver"),
        Err(error) => say(error),
    }
    match arguments.run() {
        Ok(None) => {
            supervise::shell(&arguments);
            complaints::warn();
            mark("done");
        }
        run => {
            let status = match driver {
                Ok(()) => run_command(run),
                Err(error) => error.status(),
            };
            mark("done");
            // What was printed may still wait in the terminal, and the end comes at once.
            let _ = tcdrain(io::stderr());
            match &machine {
                Some(machine) => machine.exit(status),
                None => say(format_args!(
                    "the machine has no exit device to take the status {status}"
                )),
            }
        }
    }
    power_off()
}

fn run_command(command: Result<Option<OsString>, ArgumentError>) -> u8 {
    let command = match command {
        Ok(command) => command.unwrap_or_default(),
        Err(error) => {
            say(error);
            return status::USAGE;
        }
    };
    let status = supervise::command(&command);
    if complaints::warn() && status == status::OK {
        return status::FINDING;
    }
    status
}

fn power_off() -> ! {
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        say(format_args!("cannot power off: {error}"));
    }
    loop {
        thread::sleep(Duration::MAX);
    }
}

/// Prints a line. Process 1 must live on even if the console does not take it.
fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "init: {line}");
}
