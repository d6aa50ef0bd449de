// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The user's side of the serial console: where the guest's output goes and its input comes from.

pub mod input;
pub mod output;
mod panic_scanner;
mod terminal;

use std::fmt::Display;
use std::io::{self, Write};

pub use terminal::restore as restore_terminal;

/// Prints a line of lockstorm's own on stderr, apart from the guest's output. Whoever closes stderr
/// does not want to know.
pub fn tell(line: impl Display) {
    let _ = writeln!(io::stderr(), "lockstorm: {line}");
}
