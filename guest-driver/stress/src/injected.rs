// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What an injecting process counts, and the line in which it tells so when it ends.

use std::fmt;
use std::str::FromStr;

use evgen_uapi::MAX_RINGS;
use thiserror::Error;

/// What was injected into one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Events added to the driver's list.
    pub added: u64,
    /// Doorbells rung, by ring.
    pub rung: [u64; MAX_RINGS],
}

impl Injected {
    /// Adds what another process injected into the same device.
    pub fn absorb(&mut self, other: &Self) {
        self.added += other.added;
        for (mine, theirs) in self.rung.iter_mut().zip(other.rung) {
            *mine += theirs;
        }
    }
}

/// A line that no injecting process writes.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an injector's count has the form \"added rung rung …\" with {MAX_RINGS} rings, not {0:?}")]
pub struct ParseError(String);

impl fmt::Display for Injected {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(line, "{}", self.added)?;
        self.rung
            .iter()
            .try_for_each(|rung| write!(line, " {rung}"))
    }
}

impl FromStr for Injected {
    type Err = ParseError;

    fn from_str(line: &str) -> Result<Self, ParseError> {
        let numbers: Result<Vec<u64>, _> = line.split_ascii_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok([added, rung @ ..]) => rung.try_into().ok().map(|rung| Self {
                added: *added,
                rung,
            }),
            _ => None,
        }
        .ok_or_else(|| ParseError(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_survives_the_pipe() {
        let mut injected = Injected {
            added: 7,
            rung: [1, 2, 3, 4, 0, 0, 0, u64::MAX - 1],
        };
        injected.absorb(&Injected {
            added: 1,
            rung: [1; MAX_RINGS],
        });
        assert_eq!(injected.to_string().parse(), Ok(injected));
        for wrong in [
            "",
            "1",
            "1 2 3",
            "1 2 3 4 5 6 7 8 x",
            "1 2 3 4 5 6 7 8 9 10",
        ] {
            assert_eq!(wrong.parse::<Injected>(), Err(ParseError(wrong.to_owned())));
        }
    }
}
