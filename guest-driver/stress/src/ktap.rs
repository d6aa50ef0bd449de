// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The report of a test program: KTAP, a line for each check.

use std::fmt::{Debug, Display};
use std::io::{self, Write};

use thiserror::Error;

/// What a check found to be wrong.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Wrong(pub String);

/// Says what is wrong if something is not as it must be.
pub fn expect<T: PartialEq + Debug>(what: &str, found: T, wanted: T) -> Result<(), Wrong> {
    if found == wanted {
        Ok(())
    } else {
        Err(Wrong(format!("{what}: {found:x?}, must be {wanted:x?}")))
    }
}

/// How a check ended that found nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is as it must be.
    Good,
    /// The machine lacks what it takes to tell.
    Skipped(&'static str),
}

/// Does `checks` one after the other, each with its name, and prints what `check` says of it; whether
/// nothing was wrong.
///
/// Whoever reads the output may go away: the verdict does not depend on it.
pub fn check_all<C: Copy, E: Display>(
    checks: &[(&str, C)],
    mut check: impl FnMut(C) -> Result<Outcome, E>,
) -> bool {
    let mut output = io::stdout();
    let _ = writeln!(output, "KTAP version 1\n1..{}", checks.len());
    let mut good = true;
    for (number, (name, what)) in (1..).zip(checks) {
        let _ = match check(*what) {
            Ok(Outcome::Good) => writeln!(output, "ok {number} {name}"),
            Ok(Outcome::Skipped(why)) => writeln!(output, "ok {number} {name} # SKIP {why}"),
            Err(failure) => {
                good = false;
                writeln!(output, "# {failure}\nnot ok {number} {name}")
            }
        };
    }
    good
}
