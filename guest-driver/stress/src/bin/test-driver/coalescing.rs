// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Fewer interrupts than events.

use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use evgen_uapi::{COALESCING_EVENTS_MAX, COALESCING_MICROSECONDS_MAX};
use rustix::io::Errno;

use crate::bench::{Bench, Failure, expect, wait_until};

/// Events of one volley.
const VOLLEY: u64 = 16;

/// How many interrupts tell of a volley whose events come one after the other.
fn interrupts_of_a_volley(bench: &Bench) -> Result<u64, Failure> {
    let before = bench.counters()?;
    for _ in 0..VOLLEY {
        bench.device()?.inject(0)?;
        // So that the interrupts of these events do not all merge.
        thread::sleep(Duration::from_millis(5));
    }
    wait_until("the volley", || {
        Ok(bench.counters()?.ring[0].received == before.ring[0].received + VOLLEY)
    })?;
    let after = bench.counters()?;
    expect(
        "lost interrupts",
        after.faults.lost_interrupts,
        before.faults.lost_interrupts,
    )?;
    Ok(after.interrupts - before.interrupts)
}

/// A volley that is worth one interrupt makes at most so many; one whose every event is, more.
const FEW: u64 = VOLLEY / 4;

fn expect_interrupts(bench: &Bench, wanted: RangeInclusive<u64>) -> Result<(), Failure> {
    let interrupts = interrupts_of_a_volley(bench)?;
    let what = format!("{interrupts} interrupts for {VOLLEY} events are {wanted:?}");
    expect(&what, wanted.contains(&interrupts), true)
}

fn set_to_volley(bench: &Bench) -> Result<(), Failure> {
    let longest = COALESCING_MICROSECONDS_MAX;
    Ok(bench.device()?.set_coalescing(0, VOLLEY as u32, longest)?)
}

pub fn fewer_interrupts(bench: &mut Bench) -> Result<(), Failure> {
    set_to_volley(bench)?;
    expect_interrupts(bench, 1..=FEW)?;
    bench.device()?.set_coalescing(0, 1, 0)?;
    // On a slow machine some merge.
    expect_interrupts(bench, FEW + 1..=VOLLEY)
}

pub fn shown(bench: &mut Bench) -> Result<(), Failure> {
    set_to_volley(bench)?;
    let text = bench.files.read("rings")?;
    let ring: Vec<_> = text
        .lines()
        .take_while(|line| !line.starts_with("ring 1"))
        .filter(|line| line.contains("coalescing"))
        .map(str::trim)
        .collect();
    let wanted = vec!["coalescing_events 16", "coalescing_microseconds 1000000"];
    expect("debugfs, ring 0", ring, wanted)
}

pub fn outlasts_resets(bench: &mut Bench) -> Result<(), Failure> {
    set_to_volley(bench)?;
    expect("reset", bench.device()?.reset()?, true)?;
    expect_interrupts(bench, 1..=FEW)
}

/// Nobody takes an event that waits for others before its time is over.
pub fn waits_for_its_time(bench: &mut Bench) -> Result<(), Failure> {
    let longest = COALESCING_MICROSECONDS_MAX;
    bench
        .device()?
        .set_coalescing(0, COALESCING_EVENTS_MAX, longest)?;
    let before = bench.counters()?;
    let start = Instant::now();
    bench.device()?.inject(0)?;
    wait_until("the event", || {
        Ok(bench.counters()?.ring[0].received > before.ring[0].received)
    })?;
    // The device's clock and the guest's need not agree to the last millisecond.
    let waited = start.elapsed() >= Duration::from_micros(u64::from(longest) / 10 * 9);
    expect("it waited", waited, true)?;
    let lost = bench.counters()?.faults.lost_interrupts;
    expect("lost interrupts", lost, before.faults.lost_interrupts)
}

pub fn bad_arguments(bench: &mut Bench) -> Result<(), Failure> {
    let rings = bench.rings()?;
    for (ring, events, microseconds) in [
        (rings, 0, 0),
        (0, COALESCING_EVENTS_MAX + 1, 0),
        (0, 0, COALESCING_MICROSECONDS_MAX + 1),
    ] {
        let found = bench.device()?.set_coalescing(ring, events, microseconds);
        let what = format!("ring {ring}, {events} events, {microseconds} µs");
        expect(
            &what,
            found.map_err(|error| error.errno()),
            Err(Some(Errno::INVAL)),
        )?;
    }
    Ok(())
}
