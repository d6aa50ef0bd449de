// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Runs the one program that the guest is for, and buries every process that dies meanwhile.

use std::ffi::OsStr;
use std::io;
use std::process::Command;

use evgen_stress::device::Device;
use evgen_stress::kernel_arguments::KernelArguments;
use evgen_stress::status;
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};

use crate::say;

const SHELL: &str = "/bin/sh";

/// Runs a shell command; gives the status that a shell would give, 128 + n for signal n.
pub fn command(command: &OsStr) -> u8 {
    supervise(Command::new(SHELL).arg("-c").arg(command))
}

/// Runs an interactive shell until it ends.
pub fn shell(arguments: &KernelArguments) {
    let devices = Device::all();
    let expected = arguments.devices().map_or(0, usize::from);
    say(format_args!(
        "{} of {expected} evgen devices are ready as /dev/evgenN.",
        devices.len()
    ));
    say("Try: test-inject-event 0; test-read-events nonblocking; evgen-cat --timeout 0; stress.");
    say("Also: test-inject-deferred-event, test-poll; each has a --help. exit ends the machine.");
    supervise(&mut Command::new(SHELL));
}

fn supervise(command: &mut Command) -> u8 {
    command
        .env_clear()
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .env("HOME", "/")
        .env("TERM", "vt100")
        .env("PS1", "guest# ");
    // `wait` below takes the place of the handle's own: it hears of every process that dies.
    let ended = command.spawn().and_then(|child| bury_until(child.id()));
    match ended {
        Ok(status) => exit_status(status),
        Err(error) => {
            say(format_args!("cannot run {SHELL}: {error}"));
            status::UNAVAILABLE
        }
    }
}

fn bury_until(process: u32) -> io::Result<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((dead, status))) if dead.as_raw_nonzero().get().cast_unsigned() == process => {
                return Ok(status);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit_status(status: WaitStatus) -> u8 {
    let code = match status.terminating_signal() {
        Some(signal) => signal.saturating_add(128),
        None => status.exit_status().unwrap_or(i32::from(status::FINDING)),
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_what_a_shell_gives() {
        for (script, expected) in [
            ("true", 0),
            ("exit 42", 42),
            ("exit 255", 255),
            ("kill -9 $$", 137),
            ("kill -15 $$", 143),
            ("sleep 0.01 & exit 3", 3),
        ] {
            assert_eq!(command(OsStr::new(script)), expected, "{script}");
        }
    }
}
