// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What an actor tells of its round: a file that it leaves behind.
//!
//! A line is about one device, which it begins with, or about the actor as a whole:
//!
//! ```text
//! DEVICE injected …      as Injected puts it
//! DEVICE log …           as Log puts it
//! DEVICE complaint …     in words
//! tally CALLS INTERRUPTED REFUSED
//! ```

use std::fmt;

use evgen_stress::books::Account;
use evgen_stress::log::Log;
use thiserror::Error;

/// What one actor has to tell.
#[derive(Debug, Default)]
pub struct Record {
    /// Devices with what it did to them.
    pub accounts: Vec<(usize, Account)>,
    /// How its calls went.
    pub tally: Tally,
}

/// How calls went, roughly: it is to be seen that they were tortured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that were made, and their ends noticed.
    pub calls: u64,
    /// Of these, the ones that a signal ended.
    pub interrupted: u64,
    /// Of these, the ones for which there was no memory, or no room.
    pub refused: u64,
}

/// A line that no actor writes.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:.200?}")]
pub struct ParseError(String);

impl Tally {
    /// Adds another one.
    pub fn absorb(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.interrupted = self.interrupted.saturating_add(other.interrupted);
        self.refused = self.refused.saturating_add(other.refused);
    }
}

impl fmt::Display for Record {
    fn fmt(&self, lines: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (device, account) in &self.accounts {
            writeln!(lines, "{device} injected {}", account.injected)?;
            for log in &account.logs {
                writeln!(lines, "{device} log {log}")?;
            }
            for complaint in &account.complaints {
                let complaint = complaint.replace('\n', " ");
                writeln!(lines, "{device} complaint {complaint}")?;
            }
        }
        let Tally {
            calls,
            interrupted,
            refused,
        } = self.tally;
        writeln!(lines, "tally {calls} {interrupted} {refused}")
    }
}

/// What all actors of a round have told so far.
pub struct Collected {
    devices: Vec<Base>,
    /// By device.
    pub accounts: Vec<Account>,
    /// Of all calls.
    pub tally: Tally,
}

/// A device, and what the logs of its readers go on after.
type Base = (usize, Log);

impl Collected {
    /// Nothing yet, of these devices.
    pub fn new(devices: Vec<Base>) -> Self {
        Self {
            accounts: vec![Account::default(); devices.len()],
            devices,
            tally: Tally::default(),
        }
    }

    /// Adds what a file tells.
    pub fn absorb(&mut self, text: &str) -> Result<(), ParseError> {
        text.lines().try_for_each(|line| {
            self.absorb_line(line)
                .ok_or_else(|| ParseError(line.to_owned()))
        })
    }

    fn absorb_line(&mut self, line: &str) -> Option<()> {
        if let Some(counts) = line.strip_prefix("tally ") {
            self.tally.absorb(parse_tally(counts)?);
            return Some(());
        }
        let (device, line) = line.split_once(' ')?;
        let device: usize = device.parse().ok()?;
        let place = self.devices.iter().position(|base| base.0 == device)?;
        let account = &mut self.accounts[place];
        match line.split_once(' ')? {
            ("injected", counts) => account.injected.absorb(&counts.parse().ok()?),
            ("log", line) => {
                let mut log = self.devices[place].1.clone();
                log.replay(line).ok()?;
                account.logs.push(log);
            }
            ("complaint", words) => account.complaints.push(words.to_owned()),
            _ => return None,
        }
        Some(())
    }
}

fn parse_tally(counts: &str) -> Option<Tally> {
    let counts: Option<Vec<u64>> = counts.split(' ').map(|count| count.parse().ok()).collect();
    match counts?.as_slice() {
        &[calls, interrupted, refused] => Some(Tally {
            calls,
            interrupted,
            refused,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use evgen_stress::injected::Injected;

    use super::*;

    #[test]
    fn what_actors_tell_adds_up_by_device() {
        let account = |added, complaint: &str| Account {
            injected: Injected {
                added,
                ..Injected::default()
            },
            logs: vec![Log::new(2)],
            complaints: vec![complaint.to_owned()],
        };
        let record = Record {
            accounts: vec![(7, account(1, "read gave\nnothing")), (3, account(2, "x"))],
            tally: Tally {
                calls: 5,
                interrupted: 2,
                refused: 1,
            },
        };
        let mut collected = Collected::new(vec![(3, Log::new(2)), (7, Log::new(2))]);
        for _ in 0..2 {
            collected.absorb(&record.to_string()).unwrap();
        }
        let added = collected
            .accounts
            .iter()
            .map(|account| account.injected.added);
        assert_eq!(added.collect::<Vec<_>>(), [4, 2]);
        assert_eq!(collected.accounts[1].logs.len(), 2);
        assert_eq!(collected.accounts[1].complaints, ["read gave nothing"; 2]);
        assert_eq!(collected.tally.calls, 10);
        for wrong in [
            "",
            "tally 1 2",
            "tally 1 2 x",
            "4 injected 1",
            "3 log",
            "3 fine x",
        ] {
            assert!(collected.absorb(&format!("{wrong}\n")).is_err(), "{wrong}");
        }
    }
}
