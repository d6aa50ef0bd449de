// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Injections that wait for their time.

use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::device::DeviceError;
use evgen_stress::ktap::Wrong;
use evgen_uapi::{
    Counters, DEFERRED_MAX, DEFERRED_MILLISECONDS_MAX, DeferredInjection, SOURCE_DOORBELL,
};
use rustix::io::Errno;

use crate::bench::{Bench, Failure, expect, sum, wait_until};

/// `deferred == deferred_rung + deferred_pending` in this snapshot.
fn expect_law(counters: &Counters) -> Result<(), Failure> {
    expect(
        "deferred injections that rang or wait",
        counters.deferred_rung + counters.deferred_pending,
        counters.deferred,
    )
}

pub fn rings_in_time(bench: &mut Bench) -> Result<(), Failure> {
    let before = bench.counters()?;
    let start = Instant::now();
    let delay = Duration::from_millis(50);
    expect("deferred", bench.device()?.inject_deferred(1, 50)?, true)?;
    let counters = bench.counters()?;
    expect_law(&counters)?;
    expect("deferred", counters.deferred, before.deferred + 1)?;
    let mut events = Vec::new();
    wait_until("the event", || {
        events.extend(bench.take_all()?);
        Ok(!events.is_empty())
    })?;
    expect("it came in time", start.elapsed() >= delay, true)?;
    let came: Vec<_> = events
        .iter()
        .map(|event| (event.source, event.ring))
        .collect();
    expect("source and ring", came, vec![(SOURCE_DOORBELL, 1)])?;
    wait_until("that is counted", || {
        Ok(bench.counters()?.deferred_rung == before.deferred_rung + 1)
    })
}

pub fn each_makes_one_event(bench: &mut Bench) -> Result<(), Failure> {
    let before = bench.counters()?;
    let rings = bench.rings()?;
    // The first that was deferred is the last to ring.
    for number in 0..DEFERRED_MAX {
        let (ring, delay) = (number as usize % rings, 2 * (DEFERRED_MAX - number));
        wait_until("room for one more", || {
            Ok(bench.device()?.inject_deferred(ring, delay)?)
        })?;
        expect_law(&bench.counters()?)?;
    }
    let all = u64::from(DEFERRED_MAX);
    wait_until("all doorbells", || {
        let counters = bench.counters()?;
        expect_law(&counters)?;
        Ok(counters.deferred_rung == before.deferred_rung + all)
    })?;
    wait_until("all events", || {
        let received = sum(&bench.counters()?, |ring| ring.received);
        Ok(received == sum(&before, |ring| ring.received) + all)
    })?;
    expect("events to read", bench.take_all()?.len() as u64, all)
}

pub fn many_threads(bench: &mut Bench) -> Result<(), Failure> {
    const THREADS: usize = 4;
    const EACH: u64 = 200;
    let before = bench.counters()?;
    let devices = (0..THREADS).map(|_| bench.another());
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        let threads: Vec<_> = devices
            .iter()
            .map(|device| {
                scope.spawn(move || {
                    let mut deferred = 0;
                    while deferred < EACH {
                        // Too many wait when those that rang were not counted yet.
                        deferred += u64::from(device.inject_deferred(0, deferred as u32 % 4)?);
                    }
                    Ok::<_, DeviceError>(())
                })
            })
            .collect();
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            expect_law(&bench.counters()?)?;
        }
        for thread in threads {
            let died = |_| Wrong("a thread died".to_owned());
            thread.join().map_err(died)??;
        }
        Ok::<_, Failure>(())
    })?;
    let all = THREADS as u64 * EACH;
    wait_until("an event for each", || {
        let counters = bench.counters()?;
        expect_law(&counters)?;
        let ring = &counters.ring[0];
        let made = ring.received - before.ring[0].received + ring.dropped - before.ring[0].dropped;
        Ok(made == all && counters.deferred_rung - before.deferred_rung == all)
    })
}

pub fn too_many(bench: &mut Bench) -> Result<(), Failure> {
    for number in 0..DEFERRED_MAX {
        let room = bench
            .device()?
            .inject_deferred(0, DEFERRED_MILLISECONDS_MAX)?;
        expect(&format!("room for number {number}"), room, true)?;
    }
    let counters = bench.counters()?;
    expect(
        "room for more",
        bench.device()?.inject_deferred(0, 0)?,
        false,
    )?;
    expect("waiting", counters.deferred_pending, DEFERRED_MAX.into())?;
    expect(
        "counters changed",
        bench.counters()?.deferred,
        counters.deferred,
    )
}

pub fn bad_arguments(bench: &mut Bench) -> Result<(), Failure> {
    let rings = bench.rings()?;
    for (ring, milliseconds) in [
        (rings, 0),
        (u32::MAX as usize, 0),
        (0, DEFERRED_MILLISECONDS_MAX + 1),
        (0, u32::MAX),
    ] {
        let found = bench.device()?.inject_deferred(ring, milliseconds);
        let what = format!(
            "{:?}",
            DeferredInjection {
                ring: ring as u32,
                milliseconds,
            }
        );
        expect(
            &what,
            found.map_err(|error| error.errno()),
            Err(Some(Errno::INVAL)),
        )?;
    }
    expect("waiting", bench.counters()?.deferred_pending, 0)
}

/// Lets the device go, calls the function while it is gone, and brings the device back.
type Removal = fn(&mut Bench, &mut dyn FnMut()) -> Result<(), Failure>;

/// Injections that wait when the device goes ring no doorbell.
fn are_cancelled(bench: &mut Bench, removal: Removal) -> Result<(), Failure> {
    const LONGEST: Duration = Duration::from_secs(16);
    let mut delay = Duration::from_millis(500);
    while delay <= LONGEST {
        let before = sum(&bench.counters()?, |ring| ring.generated);
        let start = Instant::now();
        for _ in 0..DEFERRED_MAX {
            let room = bench
                .device()?
                .inject_deferred(0, delay.as_millis() as u32)?;
            expect("room", room, true)?;
        }
        let mut in_time = false;
        removal(bench, &mut || {
            in_time = start.elapsed() < delay;
            if in_time {
                thread::sleep(delay * 2);
            }
        })?;
        if in_time {
            let after = sum(&bench.counters()?, |ring| ring.generated);
            return expect("doorbells rung", after - before, 0);
        }
        // Some rang before the device went, as they should.
        delay *= 2;
    }
    let seconds = LONGEST.as_secs();
    Err(Wrong(format!("the device did not go within {seconds} s")).into())
}

pub fn unbind_cancels(bench: &mut Bench) -> Result<(), Failure> {
    are_cancelled(bench, |bench, while_gone| {
        bench.close();
        let unbound = bench.function.unbind()?;
        while_gone();
        unbound.bind()?;
        bench.open()
    })
}

pub fn rmmod_cancels(bench: &mut Bench) -> Result<(), Failure> {
    are_cancelled(bench, |bench, while_gone| {
        bench.unload()?;
        while_gone();
        bench.load("")
    })
}

pub fn unbind_races_with_threads(bench: &mut Bench) -> Result<(), Failure> {
    bench.load("threaded_handlers=1")?;
    unbind_races_with_timers(bench)
}

/// Timers that expire just when the device goes.
pub fn unbind_races_with_timers(bench: &mut Bench) -> Result<(), Failure> {
    for round in 0..4 {
        for delay in 0..DEFERRED_MAX {
            bench.device()?.inject_deferred(0, delay / 4)?;
        }
        thread::sleep(Duration::from_millis(round % 10));
        bench.rebind()?;
    }
    bench.inject(1)
}

/// An open file goes on being refused when the device is gone.
pub fn gone_device(bench: &mut Bench) -> Result<(), Failure> {
    let old = bench.another()?;
    expect("room", old.inject_deferred(0, 1000)?, true)?;
    bench.rebind()?;
    let found = old.inject_deferred(0, 0).map_err(|error| error.errno());
    expect(
        "a file of a device that is gone",
        found,
        Err(Some(Errno::NODEV)),
    )
}
