// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Writers: added events, and doorbells now and later.

use std::thread;

use evgen_stress::books::Account;
use evgen_stress::device::{Device, Mode};
use evgen_stress::injected::Injected;
use evgen_stress::law::rings;
use evgen_stress::signals::stopped;
use fastrand::Rng;

use super::{Actor, Failure, rest};
use crate::record::Tally;

/// In how many milliseconds a doorbell may be rung.
const LATER: [u32; 7] = [0, 0, 1, 3, 20, 100, 400];

/// How a writer chooses.
#[derive(Clone, Copy)]
pub struct Chances {
    /// Most microseconds between two calls.
    pub pause: u32,
    /// Of a hundred calls, how many defer a doorbell.
    pub deferred: u8,
}

/// A device that is written to, with the number of its rings.
type Target = (Device, usize);

impl Actor {
    /// Writes to `devices` with so many threads that share the open files.
    pub(super) fn write(
        &mut self,
        devices: &[usize],
        threads: u8,
        chances: Chances,
        accounts: &mut [Account],
    ) -> Result<(), Failure> {
        let mut targets = Vec::new();
        for &device in devices {
            let device = self.open(device, Mode::Nonblocking)?;
            let rings = rings(&device.counters()?);
            targets.push((device, rings));
        }
        let rngs: Vec<_> = (0..threads).map(|_| self.rng.fork()).collect();
        let told = thread::scope(|scope| {
            let writers: Vec<_> = rngs
                .into_iter()
                .map(|rng| scope.spawn(|| write(&targets, rng, chances)))
                .collect();
            writers
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect::<Vec<_>>()
        });
        let mut first = None;
        for told in told {
            // A panic aborts the program, so no thread ends in one.
            let Ok((injected, tally, failure)) = told else {
                continue;
            };
            for (account, injected) in accounts.iter_mut().zip(injected) {
                account.injected.absorb(&injected);
            }
            self.tally.absorb(tally);
            first = first.or(failure);
        }
        first.map_or(Ok(()), Err)
    }
}

/// Writes until told to stop, or until something fails. What was injected comes by device.
fn write(
    targets: &[Target],
    mut rng: Rng,
    chances: Chances,
) -> (Vec<Injected>, Tally, Option<Failure>) {
    let mut injected = vec![Injected::default(); targets.len()];
    let mut tally = Tally::default();
    while !stopped() {
        let place = rng.usize(..targets.len());
        let done = write_once(
            &targets[place],
            &mut rng,
            chances.deferred,
            &mut injected[place],
        );
        tally.calls += 1;
        match done {
            Ok(done) => tally.refused += u64::from(!done),
            Err(failure) => return (injected, tally, Some(failure)),
        }
        rest(&mut rng, chances.pause);
    }
    (injected, tally, None)
}

/// Makes one call; false if there was no memory or no room for it.
fn write_once(
    (device, rings): &Target,
    rng: &mut Rng,
    deferred: u8,
    injected: &mut Injected,
) -> Result<bool, Failure> {
    let ring = rng.usize(..*rings);
    if rng.u8(..100) < deferred {
        let milliseconds = LATER[rng.usize(..LATER.len())];
        let done = device.inject_deferred(ring, milliseconds)?;
        injected.deferred[ring] += u64::from(done);
        return Ok(done);
    }
    if rng.bool() {
        let done = device.add(injected.added)?;
        injected.added += u64::from(done);
        return Ok(done);
    }
    device.inject(ring)?;
    injected.rung[ring] += 1;
    Ok(true)
}
