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
    /// Resets asked for, whether or not their end was waited for.
    pub resets: u64,
    /// Doorbells rung, by ring.
    pub rung: [u64; MAX_RINGS],
    /// Doorbells to be rung later, by ring.
    pub deferred: [u64; MAX_RINGS],
}

impl Injected {
    /// Adds what another process injected into the same device.
    pub fn absorb(&mut self, other: &Self) {
        self.added += other.added;
        self.resets += other.resets;
        let mine = self.rung.iter_mut().chain(&mut self.deferred);
        for (mine, theirs) in mine.zip(other.rung.iter().chain(&other.deferred)) {
            *mine += theirs;
        }
    }
}

/// A line that no injecting process writes.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "an injector's count has the form \"added resets rung … deferred …\", the last two for each of \
     {MAX_RINGS} rings, not {0:?}"
)]
pub struct ParseError(String);

impl fmt::Display for Injected {
    fn fmt(&self, line: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(line, "{} {}", self.added, self.resets)?;
        let mut by_ring = self.rung.iter().chain(&self.deferred);
        by_ring.try_for_each(|count| write!(line, " {count}"))
    }
}

impl FromStr for Injected {
    type Err = ParseError;

    fn from_str(line: &str) -> Result<Self, ParseError> {
        let numbers: Result<Vec<u64>, _> = line.split_ascii_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok([added, resets, by_ring @ ..]) if by_ring.len() == 2 * MAX_RINGS => {
                let (rung, deferred) = by_ring.split_at(MAX_RINGS);
                let both = rung.try_into().ok().zip(deferred.try_into().ok());
                both.map(|(rung, deferred)| Self {
                    added: *added,
                    resets: *resets,
                    rung,
                    deferred,
                })
            }
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
            resets: 3,
            rung: [1, 2, 3, 4, 0, 0, 0, u64::MAX - 1],
            deferred: [5, 6, 7, 8, 0, 0, 0, 9],
        };
        injected.absorb(&Injected {
            added: 1,
            resets: 1,
            rung: [1; MAX_RINGS],
            deferred: [1; MAX_RINGS],
        });
        let line = "8 4 2 3 4 5 1 1 1 18446744073709551615 6 7 8 9 1 1 1 10";
        assert_eq!(injected.to_string(), line);
        assert_eq!(line.parse(), Ok(injected));
        for wrong in [
            "",
            "1 2",
            &line[2..],
            &format!("{line} 0"),
            &format!("{}x", line),
        ] {
            assert_eq!(wrong.parse::<Injected>(), Err(ParseError(wrong.to_owned())));
        }
    }
}
