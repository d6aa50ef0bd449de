// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The kernel arguments through which the virtual machine monitor talks to the guest's programs.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use thiserror::Error;

const RUN: &str = "lockstorm.run";
const DEVICES: &str = "lockstorm.devices";
const EXIT_PORT: &str = "lockstorm.exit_port";

/// A kernel argument that cannot be understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ArgumentError {
    /// Not a number in range.
    #[error("kernel argument {name}={value} is not a number from 0 to {max:#x}")]
    Number {
        /// Name of the argument.
        name: &'static str,
        /// What it says.
        value: String,
        /// Greatest number allowed.
        max: u32,
    },
    /// Not percent-encoded.
    #[error(
        "kernel argument {RUN} has a bad percent code at byte {at}: after % come two hexadecimal digits, and not 00"
    )]
    PercentCode {
        /// Where the `%` stands.
        at: usize,
    },
}

/// The kernel's command line. Of an argument given twice the last one counts.
#[derive(Debug)]
pub struct KernelArguments(String);

impl KernelArguments {
    /// Reads `/proc/cmdline`.
    pub fn of_this_kernel() -> io::Result<Self> {
        std::fs::read("/proc/cmdline").map(|line| Self::new(&line))
    }

    /// Takes the command line as it is in `/proc/cmdline`.
    pub fn new(line: &[u8]) -> Self {
        Self(String::from_utf8_lossy(line).into_owned())
    }

    /// `lockstorm.run`: the shell command to run instead of an interactive shell, decoded.
    pub fn run(&self) -> Result<Option<OsString>, ArgumentError> {
        self.value(RUN)
            .map(|value| percent_decode(value.as_bytes()).map(OsString::from_vec))
            .transpose()
    }

    /// `lockstorm.devices`: how many evgen devices the machine has; none if it does not say.
    pub fn devices(&self) -> Result<u16, ArgumentError> {
        Ok(self.number(DEVICES)?.unwrap_or(0))
    }

    /// `lockstorm.exit_port`: where the exit device is, if there is one.
    pub fn exit_port(&self) -> Result<Option<u16>, ArgumentError> {
        self.number(EXIT_PORT)
    }

    fn number(&self, name: &'static str) -> Result<Option<u16>, ArgumentError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let parsed = match value.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16),
            None => value.parse(),
        };
        parsed.map(Some).map_err(|_| ArgumentError::Number {
            name,
            value: value.to_owned(),
            max: u16::MAX.into(),
        })
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0
            .split_ascii_whitespace()
            .rev()
            .find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
    }
}

fn percent_decode(encoded: &[u8]) -> Result<Vec<u8>, ArgumentError> {
    let digit = |at: usize| {
        let digit = char::from(*encoded.get(at)?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut at = 0;
    while let Some(&byte) = encoded.get(at) {
        if byte != b'%' {
            decoded.push(byte);
            at += 1;
            continue;
        }
        match (digit(at + 1), digit(at + 2)) {
            // A zero byte cannot be part of a program's argument.
            (Some(high), Some(low)) if (high, low) != (0, 0) => decoded.push(high << 4 | low),
            _ => return Err(ArgumentError::PercentCode { at }),
        }
        at += 3;
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_decoded() {
        let bad = |at| Err(ArgumentError::PercentCode { at });
        for (line, expected) in [
            ("console=ttyS0 quiet\n", Ok(None)),
            ("lockstorm.run=true\n", Ok(Some("true"))),
            ("lockstorm.run=", Ok(Some(""))),
            (
                "quiet lockstorm.run=echo%20a%3Db%20%22c%22 x",
                Ok(Some("echo a=b \"c\"")),
            ),
            ("lockstorm.run=%c3%A9", Ok(Some("é"))),
            ("lockstorm.run=100%25", Ok(Some("100%"))),
            ("lockstorm.run=a lockstorm.run=b", Ok(Some("b"))),
            ("lockstorm.runs=a xlockstorm.run=b", Ok(None)),
            ("lockstorm.run=ab%2", bad(2)),
            ("lockstorm.run=%", bad(0)),
            ("lockstorm.run=%+1", bad(0)),
            ("lockstorm.run=%00", bad(0)),
        ] {
            let run = KernelArguments::new(line.as_bytes()).run();
            assert_eq!(run, expected.map(|run| run.map(OsString::from)), "{line}");
        }
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        for (line, expected) in [
            ("", Ok(None)),
            ("lockstorm.exit_port=0x600", Ok(Some(0x600))),
            ("lockstorm.exit_port=1536", Ok(Some(1536))),
            ("lockstorm.exit_port=0x10000", Err(())),
            ("lockstorm.exit_port=-1", Err(())),
            ("lockstorm.exit_port=", Err(())),
        ] {
            let port = KernelArguments::new(line.as_bytes()).exit_port();
            assert_eq!(port.map_err(drop), expected, "{line}");
        }
        assert_eq!(
            KernelArguments::new(b"lockstorm.devices=2").devices(),
            Ok(2)
        );
        assert_eq!(KernelArguments::new(b"quiet").devices(), Ok(0));
    }
}
