// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Those who ask: whether all is read, what was counted, what debugfs shows.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use evgen_stress::device::{Device, Drained, Mode};
use evgen_stress::signals::stopped;
use evgen_uapi::Counters;
use rustix::io::Errno;

use super::{Actor, Failure};

/// What debugfs has of the driver.
pub const DEBUGFS: &str = "/sys/kernel/debug/evgen";

/// Most bytes read of one file: as good as endless.
const FILE_LIMIT: u64 = 1 << 20;

impl Actor {
    /// Waits until all is read, never for long.
    pub(super) fn drain(&mut self, device: usize) -> Result<(), Failure> {
        let device = self.open(device, Mode::Nonblocking)?;
        while !stopped() {
            let milliseconds = self.rng.u32(..=50);
            self.wait_drained(&device, milliseconds)?;
            self.rest(2000);
        }
        Ok(())
    }

    /// Waits until all is read, for so many milliseconds.
    pub(super) fn wait_drained(
        &mut self,
        device: &Device,
        milliseconds: u32,
    ) -> Result<(), Failure> {
        self.tally.calls += 1;
        match device.wait_drained(milliseconds) {
            Err(error) if error.errno() == Some(Errno::NOMEM) => self.tally.refused += 1,
            Ok(Drained::Interrupted) => self.tally.interrupted += 1,
            waited => drop(waited?),
        }
        Ok(())
    }

    /// Reads the counters, and compares each snapshot with itself and with the one before.
    pub(super) fn count(&mut self, device: usize) -> Result<(), Failure> {
        let device = self.open(device, Mode::Nonblocking)?;
        let mut before = self.snapshot(&device)?;
        while !stopped() {
            self.rest(2000);
            let now = self.snapshot(&device)?;
            if let Some(what) = backwards(&before, &now) {
                return Err(Failure::answer(&device, what));
            }
            before = now;
        }
        Ok(())
    }

    fn snapshot(&mut self, device: &Device) -> Result<Counters, Failure> {
        self.tally.calls += 1;
        let counters = device.counters()?;
        match inconsistent(&counters) {
            Some(what) => Err(Failure::answer(device, what)),
            None => Ok(counters),
        }
    }

    /// Reads all files that debugfs has of the driver.
    pub(super) fn browse(&mut self) -> Result<(), Failure> {
        while !stopped() {
            // Whatever is there now may be gone in a moment.
            for path in files(Path::new(DEBUGFS)).unwrap_or_default() {
                self.tally.calls += 1;
                let text = File::open(&path)
                    .and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut Vec::new()));
                match text {
                    Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                        self.tally.refused += 1;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        self.tally.interrupted += 1;
                    }
                    // It goes with its device.
                    Err(_) if self.unbind => {}
                    text => drop(text.map_err(Failure::own("cannot read a file in debugfs"))?),
                }
            }
            self.rest(10_000);
        }
        Ok(())
    }
}

/// All files in a folder and its folders.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// What is wrong with a snapshot, if it is.
fn inconsistent(counters: &Counters) -> Option<String> {
    let sum = |figure: fn(&evgen_uapi::RingCounters) -> u64| {
        counters.ring.iter().map(figure).fold(0, u64::wrapping_add)
    };
    let (received, evicted) = (
        sum(|ring| ring.received),
        sum(|ring| ring.evicted).wrapping_add(counters.added_evicted),
    );
    let came = received.wrapping_add(counters.added);
    let went = counters
        .read
        .wrapping_add(evicted)
        .wrapping_add(counters.pending);
    if came != went {
        return Some(format!(
            "a snapshot has received {received} + added {}, but read {} + evicted {evicted} + pending {}",
            counters.added, counters.read, counters.pending
        ));
    }
    let Counters {
        deferred,
        deferred_rung,
        deferred_pending,
        evicted_early,
        ..
    } = *counters;
    if deferred != deferred_rung.wrapping_add(deferred_pending) {
        return Some(format!(
            "a snapshot has deferred {deferred}, but rung {deferred_rung} + pending {deferred_pending}"
        ));
    }
    (evicted_early > evicted)
        .then(|| format!("a snapshot has evicted early {evicted_early}, but evicted {evicted}"))
}

/// What ran backwards from one snapshot to the next.
fn backwards(before: &Counters, after: &Counters) -> Option<String> {
    type Figure = fn(&Counters) -> u64;
    let figures: [(&str, Figure); 8] = [
        ("added", |counters| counters.added),
        ("read", |counters| counters.read),
        ("deferred_rung", |counters| counters.deferred_rung),
        ("evicted_early", |counters| counters.evicted_early),
        ("interrupts", |counters| counters.interrupts),
        ("device_restarts", |counters| {
            counters.faults.device_restarts
        }),
        ("generated", |counters| {
            counters.ring.iter().map(|ring| ring.generated).sum()
        }),
        ("received", |counters| {
            counters.ring.iter().map(|ring| ring.received).sum()
        }),
    ];
    figures.into_iter().find_map(|(name, figure)| {
        let (before, after) = (figure(before), figure(after));
        (after < before).then(|| format!("{name} went from {before} back to {after}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_cannot_be_is_found() {
        let mut good = Counters {
            added: 3,
            added_evicted: 1,
            read: 5,
            pending: 2,
            deferred: 4,
            deferred_rung: 3,
            deferred_pending: 1,
            evicted_early: 2,
            ..Counters::default()
        };
        (good.ring[7].received, good.ring[7].evicted) = (6, 1);
        assert_eq!(inconsistent(&good), None);
        for wrong in [
            Counters { read: 4, ..good },
            Counters { added: 4, ..good },
            Counters {
                deferred: 5,
                ..good
            },
            Counters {
                evicted_early: 3,
                ..good
            },
        ] {
            assert!(inconsistent(&wrong).is_some(), "{wrong:?}");
        }
        assert_eq!(backwards(&good, &good), None);
        let less = Counters { read: 4, ..good };
        assert_eq!(backwards(&less, &good), None);
        let what = backwards(&good, &less);
        assert_eq!(what.as_deref(), Some("read went from 5 back to 4"));
    }
}
