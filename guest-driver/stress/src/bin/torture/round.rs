// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One round: all act, all stop, all is quiet, the balance is struck.

use std::fmt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::books::{Books, BooksError};
use evgen_stress::device::{Device, DeviceError};
use evgen_stress::exit_device;
use evgen_stress::law::rings;
use evgen_stress::report::Report;
use evgen_stress::signals::stopped;
use evgen_stress::status;
use evgen_stress::verdict::Verdict;
use thiserror::Error;

use crate::cast::{Cast, CastError};
use crate::plan::{self, Kind};
use crate::record::{Collected, Tally};
use crate::unrest::{self, Done, UnrestError};

/// Why there is no balance.
#[derive(Debug, Error)]
pub enum RoundError {
    /// None can be struck.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// A device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An actor failed.
    #[error(transparent)]
    Cast(#[from] CastError),
    /// Making unrest did.
    #[error(transparent)]
    Unrest(#[from] UnrestError),
    /// The report cannot be put into words.
    #[error("cannot format the report")]
    Format(#[from] fmt::Error),
    /// Somebody wants it to end.
    #[error("interrupted")]
    Interrupted,
}

impl RoundError {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::Books(error) => error.status(),
            Self::Device(error) => error.status(),
            Self::Cast(error) => error.status(),
            Self::Unrest(UnrestError::Failed { .. }) | Self::Format(_) => status::FINDING,
            Self::Unrest(UnrestError::Stuck { .. }) => status::TIMEOUT,
            Self::Interrupted => status::INTERRUPTED,
        }
    }
}

/// What there is to say of a round.
pub struct Outcome {
    /// The balance.
    pub report: Report,
    /// How the actors' calls went.
    pub tally: Tally,
    /// What was done to them.
    pub done: Done,
}

/// Plays a round of such length. What actors leave is in `folder` meanwhile; everyone has `limit`
/// to stop and to fall quiet.
pub fn play(
    books: &mut Books,
    round: &plan::Round,
    length: Duration,
    folder: &Path,
    limit: Duration,
) -> Result<Outcome, RoundError> {
    let unbind = round.unrest.unbind.is_some();
    let cast = Cast::start(folder, &round.parts, unbind, limit)?;
    exit_device::announce_ready("torture");
    let done = act(&cast, &round.unrest, length, limit)?;
    let mut collected = Collected::new(
        books
            .devices()
            .iter()
            .enumerate()
            .map(|(place, device)| (device.index(), books.log(place)))
            .collect(),
    );
    let verdicts = if unbind {
        begin_anew(cast, books, &mut collected, limit)?
    } else {
        finish(cast, books, &mut collected)?
    };
    Ok(Outcome {
        report: Report {
            verdicts,
            delivered_at_least: None,
        },
        tally: collected.tally,
        done,
    })
}

/// Waits until all is quiet, and strikes the balance.
fn finish(
    mut cast: Cast,
    books: &mut Books,
    collected: &mut Collected,
) -> Result<Vec<Verdict>, RoundError> {
    cast.stop(|part| !part.role.consumes())?;
    cast.collect(collected)?;
    books.devices().iter().try_for_each(gather_no_more)?;
    let quiet = books.fall_quiet(&mut collected.accounts)?;
    cast.stop(|_| true)?;
    cast.collect(collected)?;
    drop(cast);
    Ok(books.judge(quiet, std::mem::take(&mut collected.accounts))?)
}

/// What became of an event of a device that went is not known, nor who had it. So the books begin
/// anew, and the balance is that of a few events of this program's own.
fn begin_anew(
    mut cast: Cast,
    books: &mut Books,
    collected: &mut Collected,
    limit: Duration,
) -> Result<Vec<Verdict>, RoundError> {
    cast.stop(|_| true)?;
    cast.collect(collected)?;
    drop(cast);
    let devices: Vec<_> = books.devices().iter().map(Device::index).collect();
    *books = Books::open(&devices, limit)?;
    let complaints = collected.accounts.iter_mut();
    let complaints = complaints.map(|account| std::mem::take(&mut account.complaints));
    Ok(books.prove(complaints.collect())?)
}

/// Lets the actors act, in unrest, until the time is over.
fn act(
    cast: &Cast,
    unrest: &plan::Unrest,
    length: Duration,
    limit: Duration,
) -> Result<Done, RoundError> {
    let end = Instant::now() + length;
    let running = unrest::start(unrest, cast.processes());
    while Instant::now() < end && !stopped() {
        let left = end.saturating_duration_since(Instant::now());
        thread::sleep(left.min(Duration::from_millis(100)));
    }
    let done = running.end(limit)?;
    if stopped() {
        return Err(RoundError::Interrupted);
    }
    Ok(done)
}

/// Puts coalescing back to what it is at first, so that no event waits for others.
fn gather_no_more(device: &Device) -> Result<(), DeviceError> {
    let rings = rings(&device.counters()?);
    (0..rings).try_for_each(|ring| device.set_coalescing(ring, 0, 0))
}

/// What cannot be done here, and why.
pub fn obstacles() -> Vec<(Kind, String)> {
    let mut obstacles = Vec::new();
    if unrest::cpus::present().len() < 2 {
        obstacles.push((Kind::Shuffle, "there is only one CPU".to_owned()));
    }
    if unrest::cpus::switches().is_empty() {
        let what = "no /sys/devices/system/cpu/cpuN/online";
        obstacles.push((Kind::Onoff, what.to_owned()));
    }
    obstacles.extend(unrest::slab::obstacle().map(|what| (Kind::Slab, what)));
    let debugfs = Path::new(crate::actor::DEBUGFS);
    if !debugfs.exists() {
        obstacles.push((Kind::Browse, format!("there is no {}", debugfs.display())));
    }
    obstacles
}
