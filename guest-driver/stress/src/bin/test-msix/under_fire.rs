// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Changes to the table while events come in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::bench::{Bench, Failure, expect, wait_until};
use crate::reset::AfterReset;

/// Times that a vector is masked right behind an interrupt.
const MASKINGS: u32 = 100;
/// Bursts of events into a vector that is masked and unmasked all the time, and events in each.
const BURSTS: u32 = 200;
const BURST: u32 = 5;

pub fn masking_is_final(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    for _ in 0..MASKINGS {
        bench.inject(0, 1)?;
        bench.mask(0, true)?;
        // What came before the mask is in here.
        let before = bench.interrupts()?;
        bench.inject(0, 1)?;
        expect("pending vectors", bench.pending()?, vec![0])?;
        expect(
            "runs of the handler while masked",
            bench.interrupts()?,
            before,
        )?;
        bench.mask(0, false)?;
        let sent = wait_until(|| Ok(bench.counters()?.interrupts > before))?;
        expect("sent when unmasked", sent, true)?;
    }
    Ok(())
}

/// Each burst must bring a run of the handler, or be taken by one that was under way. If only the
/// driver's watchdog finds it, which counts that, its interrupt is lost.
pub fn updates(bench: &mut Bench, _: &AfterReset) -> Result<(), Failure> {
    let first = bench.counters()?;
    let stop = AtomicBool::new(false);
    let bench: &Bench = bench;
    thread::scope(|scope| {
        let updates = scope.spawn(|| update_until(bench, &stop));
        let bursts = (0..BURSTS).try_for_each(|_| burst(bench));
        stop.store(true, Ordering::Relaxed);
        let updates = updates
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        bursts.and(updates)
    })?;
    bench.mask(0, false)?;
    let events = u64::from(BURSTS * BURST);
    let received = |counters: &evgen_uapi::Counters| counters.ring[0].received;
    wait_until(|| Ok(received(&bench.counters()?) >= received(&first) + events))?;
    let interrupts = bench.interrupts()?;
    let last = bench.counters()?;
    expect(
        "events received",
        received(&last) - received(&first),
        events,
    )?;
    let dropped = last.ring[0].dropped - first.ring[0].dropped;
    expect("events dropped", dropped, 0)?;
    let no_more = interrupts - first.interrupts <= events;
    expect("no more interrupts than events", no_more, true)?;
    expect("pending vectors", bench.pending()?, vec![])
}

fn burst(bench: &Bench) -> Result<(), Failure> {
    let interrupts = bench.interrupts()?;
    let before = bench.counters()?;
    bench.inject(0, BURST)?;
    let told = wait_until(|| {
        let now = bench.counters()?;
        let taken = now.ring[0].received >= before.ring[0].received + u64::from(BURST);
        let found = now.faults.lost_interrupts > before.faults.lost_interrupts;
        Ok(taken && (now.interrupts > interrupts || !found))
    })?;
    expect("an interrupt told of each burst", told, true)
}

/// Masks vector 0, writes its message anew in all ways there are, and unmasks it, again and again.
fn update_until(bench: &Bench, stop: &AtomicBool) -> Result<(), Failure> {
    let entry = bench.entry(0)?;
    let (address, data): (u64, u32) = (bench.read(entry)?, bench.read(entry + 8)?);
    while !stop.load(Ordering::Relaxed) {
        bench.write(entry + 12, 1_u32)?;
        bench.write(entry, 0_u64)?;
        bench.write(entry + 8, 0_u32)?;
        bench.write(entry, address as u32)?;
        bench.write(entry + 4, (address >> 32) as u32)?;
        bench.write(entry + 8, data)?;
        bench.write(entry + 12, 0_u32)?;
        bench.write(entry + 8, u64::from(data) | 1 << 32)?;
        bench.write(entry, !address)?;
        bench.write(entry, address)?;
        bench.write(entry + 8, u64::from(data))?;
        // Not masked all the time.
        thread::yield_now();
    }
    Ok(())
}
