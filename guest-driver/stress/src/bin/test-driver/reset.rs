// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Resets that a program asks for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use evgen_stress::device::DeviceError;
use evgen_stress::ktap::Wrong;
use evgen_stress::signals::{Interrupted, interrupt_on};
use evgen_uapi::Counters;
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

use crate::bench::{Bench, Failure, cannot, expect, sum, wait_until};

pub fn loses_nothing(bench: &mut Bench) -> Result<(), Failure> {
    let before = bench.counters()?;
    let rings = bench.rings()?;
    for number in 0..200 {
        bench.device()?.inject(number % rings)?;
    }
    expect("reset", bench.device()?.reset()?, true)?;
    let after = bench.counters()?;
    let delivered = |counters: &Counters| sum(counters, |ring| ring.delivered);
    let received = |counters: &Counters| sum(counters, |ring| ring.received);
    expect(
        "received, of those delivered",
        received(&after) - received(&before),
        delivered(&after) - delivered(&before),
    )?;
    expect(
        "device restarts",
        after.faults.device_restarts - before.faults.device_restarts,
        1,
    )?;
    expect(
        "self resets",
        after.faults.self_resets,
        before.faults.self_resets,
    )?;
    let read = bench.take_all()?.len() as u64;
    expect(
        "read, of those received",
        read,
        received(&after) - received(&before),
    )?;
    for ring in 0..rings {
        bench.device()?.inject(ring)?;
    }
    wait_until("an event of each ring after the reset", || {
        Ok(received(&bench.counters()?) == received(&after) + rings as u64)
    })
}

pub fn shared(bench: &mut Bench) -> Result<(), Failure> {
    const CALLERS: u64 = 8;
    let before = bench.counters()?.faults.device_restarts;
    let devices = (0..CALLERS).map(|_| bench.another());
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        let callers: Vec<_> = devices
            .iter()
            .map(|device| scope.spawn(|| device.reset()))
            .collect();
        for caller in callers {
            let died = |_| Wrong("a caller died".to_owned());
            expect("reset", caller.join().map_err(died)??, true)?;
        }
        Ok::<_, Failure>(())
    })?;
    let restarts = bench.counters()?.faults.device_restarts - before;
    let good = (1..=CALLERS).contains(&restarts);
    expect(
        &format!("{restarts} restarts for {CALLERS} callers"),
        good,
        true,
    )?;
    bench.inject(1)
}

/// A signal ends the call, and the reset goes on.
pub fn ends_with_a_signal(bench: &mut Bench) -> Result<(), Failure> {
    const ATTEMPTS: usize = 50;
    interrupt_on(Signal::USR1, Interrupted::Restarts).map_err(cannot("handle signals"))?;
    for _ in 0..ATTEMPTS {
        let before = bench.counters()?.faults.device_restarts;
        let over = AtomicBool::new(false);
        // The main thread, which this is, gets the signals of the process.
        let done = thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(2));
                    let _ = kill_process(getpid(), Signal::USR1);
                }
            });
            let done = bench.device().and_then(|device| Ok(device.reset()?));
            over.store(true, Ordering::Relaxed);
            done
        })?;
        wait_until("the reset", || {
            Ok(bench.counters()?.faults.device_restarts > before)
        })?;
        if !done {
            return bench.inject(1);
        }
    }
    Err(Wrong(format!("no signal ended any of {ATTEMPTS} resets")).into())
}

pub fn ends_with_the_device(bench: &mut Bench) -> Result<(), Failure> {
    let device = bench.another()?;
    let errno = thread::scope(|scope| {
        let resetter = scope.spawn(|| {
            loop {
                if let Err(error) = device.reset() {
                    return error;
                }
            }
        });
        bench.rebind()?;
        let died = |_| Wrong("the caller died".to_owned());
        Ok::<Option<Errno>, Failure>(DeviceError::errno(&resetter.join().map_err(died)?))
    })?;
    expect("a reset while the device goes", errno, Some(Errno::NODEV))
}
