// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The kernel's command line.

use std::ffi::CString;
use std::fmt::Write;

use thiserror::Error;

/// x86 Linux reads this many bytes, the closing NUL counted (`COMMAND_LINE_SIZE`).
const LIMIT: usize = 2048;

/// Quiet because each byte on the console costs the guest an exit; a panic ends the run at once; on
/// hardware-reduced ACPI Linux tries EFI, then a BIOS, before it would use the reset register; the
/// self-tests of the crypto subsystem take longer than the rest of the boot.
const DEFAULT: &str = "console=ttyS0 quiet panic=-1 oops=panic reboot=acpi cryptomgr.notests";

/// Why the command line cannot be handed to the kernel.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// It is too long.
    #[error(
        "the kernel command line has {0} bytes, and Linux reads at most {max}: shorten --run or \
         --append, or put the commands into a script in the initramfs",
        max = LIMIT - 1
    )]
    TooLong(usize),
    /// It contains what a command line cannot.
    #[error("--append may only contain printable ASCII characters")]
    NotPrintable,
}

/// What the guest is told.
#[derive(Clone, Debug, Default)]
pub struct Arguments<'a> {
    /// The first port of the exit device.
    pub exit_port: u16,
    /// How many evgen devices to wait for.
    pub devices: u8,
    /// Shell command to run instead of an interactive shell.
    pub run: Option<&'a str>,
    /// More arguments, as they are.
    pub append: Option<&'a str>,
}

impl Arguments<'_> {
    /// The whole command line.
    pub fn command_line(&self) -> Result<CString, Error> {
        let mut line = String::from(DEFAULT);
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            " lockstorm.exit_port={:#x} lockstorm.devices={}",
            self.exit_port, self.devices
        );
        if let Some(run) = self.run {
            let _ = write!(line, " lockstorm.run={}", percent_encode(run));
        }
        // Last, so that it may override what comes before and may hand arguments to init (`--`).
        if let Some(append) = self.append {
            line.push(' ');
            line.push_str(append.trim());
        }
        if !line
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic())
        {
            return Err(Error::NotPrintable);
        }
        if line.len() >= LIMIT {
            return Err(Error::TooLong(line.len()));
        }
        CString::new(line).map_err(|_| Error::NotPrintable)
    }
}

/// Encodes everything but unreserved characters (RFC 3986 §2.3), so that neither the kernel's
/// parser nor a shell finds anything to split or to quote.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_encoded() {
        for (text, encoded) in [
            ("true", "true"),
            ("stress --seconds 5", "stress%20--seconds%205"),
            ("a\"b'c\\d", "a%22b%27c%5Cd"),
            ("100% ü\n", "100%25%20%C3%BC%0A"),
            ("", ""),
        ] {
            assert_eq!(percent_encode(text), encoded);
        }
    }

    #[test]
    fn arguments_reach_the_line_in_order() {
        let arguments = Arguments {
            exit_port: 0x600,
            devices: 2,
            run: Some("echo hi"),
            append: Some(" quiet=0 -- x "),
        };
        let line = arguments.command_line().unwrap().into_string().unwrap();
        let tail =
            " lockstorm.exit_port=0x600 lockstorm.devices=2 lockstorm.run=echo%20hi quiet=0 -- x";
        assert_eq!(line, format!("{DEFAULT}{tail}"));
    }

    #[test]
    fn limits_hold() {
        let used = Arguments::default()
            .command_line()
            .unwrap()
            .to_bytes()
            .len()
            + 1;
        for (append, expected) in [
            ("x".repeat(LIMIT - 1 - used), Ok(())),
            ("x".repeat(LIMIT - used), Err(Error::TooLong(LIMIT))),
            ("a\nb".into(), Err(Error::NotPrintable)),
            ("a\0b".into(), Err(Error::NotPrintable)),
            ("ü".into(), Err(Error::NotPrintable)),
        ] {
            let arguments = Arguments {
                append: Some(&append),
                ..Default::default()
            };
            assert_eq!(arguments.command_line().map(drop), expected);
        }
    }
}
