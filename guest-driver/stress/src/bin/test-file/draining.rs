// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `WAIT_DRAINED`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evgen_stress::device::{Device, Mode};
use evgen_stress::ktap::Outcome;
use evgen_uapi::EVENT_SIZE;
use rustix::io::{Errno, read};

use crate::bench::{Answer, Bench, Failure, expect};
use crate::calls::wait_drained;
use crate::interrupted::{NO_PAGE_FAULTS, stuck_reader};
use crate::signals::Signal;
use crate::sleeper::Sleeper;

/// Without an event it succeeds at once, whatever the time.
pub fn at_once(bench: &mut Bench) -> Result<(), Failure> {
    for milliseconds in [0, 1, u32::MAX] {
        let what = format!("WAIT_DRAINED for {milliseconds} ms");
        expect(&what, wait_drained(&bench.device, milliseconds), Ok(()))?;
    }
    Ok(())
}

/// With one it fails when the time is over, and not before.
pub fn times_out(bench: &mut Bench) -> Result<(), Failure> {
    bench.add(1)?;
    for milliseconds in [0, 1, 50] {
        let start = Instant::now();
        let what = format!("WAIT_DRAINED for {milliseconds} ms");
        let answer = wait_drained(&bench.device, milliseconds);
        expect(&what, answer, Err(Errno::TIMEDOUT))?;
        // A tick of 10 ms may be under way.
        let least = Duration::from_millis(milliseconds.saturating_sub(10).into());
        expect("it waits", start.elapsed() >= least, true)?;
    }
    Ok(())
}

/// The last event read wakes all who wait, each time anew; by `read` as by `GET_EVENT`.
pub fn all_are_woken(bench: &mut Bench) -> Result<(), Failure> {
    let by_read = |device: &Device| read(device, &mut [0; EVENT_SIZE]).is_ok();
    let by_get_event = |device: &Device| device.get_event().is_ok_and(|event| event.is_some());
    for take in [by_read, by_get_event, by_read] {
        bench.add(2)?;
        let waiters = [0, i32::MAX as u32, u32::MAX - 1, u32::MAX];
        let waiters = waiters.map(|milliseconds| waiter(bench, milliseconds));
        expect("an event is read", take(&bench.device), true)?;
        let mut sleeping = Vec::new();
        for (index, waiter) in waiters.into_iter().enumerate() {
            let waiter = waiter?;
            if index == 0 {
                // One that has gone takes nothing with it.
                expect("0 ms", waiter.answer()?, Err(Errno::TIMEDOUT))?;
            } else {
                waiter.wait_until_asleep()?;
                sleeping.push(waiter);
            }
        }
        expect("an event is read", take(&bench.device), true)?;
        for waiter in sleeping {
            expect("WAIT_DRAINED", waiter.answer()?, Ok(()))?;
        }
        bench.add(1)?;
        expect(
            "again",
            wait_drained(&bench.device, 0),
            Err(Errno::TIMEDOUT),
        )?;
        bench.device.get_event()?;
    }
    Ok(())
}

/// A signal ends it, even one after which other calls are made again.
pub fn ended_by_signals(bench: &mut Bench) -> Result<(), Failure> {
    bench.add(1)?;
    for signal in [Signal::Restarts, Signal::Ends] {
        let waiter = waiter(bench, u32::MAX)?;
        waiter.wait_until_asleep()?;
        waiter.signal(signal)?;
        expect(&format!("{signal:?}"), waiter.answer()?, Err(Errno::INTR))?;
    }
    Ok(())
}

/// An event that a reader has taken and cannot write yet is not read.
pub fn not_read_yet(bench: &mut Bench) -> Result<Outcome, Failure> {
    bench.add(1)?;
    let Some(stuck) = stuck_reader(bench, 1)? else {
        return Ok(NO_PAGE_FAULTS);
    };
    expect(
        "page fault",
        wait_drained(&bench.device, 1),
        Err(Errno::TIMEDOUT),
    )?;
    let waiter = waiter(bench, u32::MAX)?;
    waiter.wait_until_asleep()?;
    stuck.page.provide();
    expect("the stuck read", stuck.reader.answer()?, Ok(EVENT_SIZE))?;
    expect("WAIT_DRAINED", waiter.answer()?, Ok(()))?;
    Ok(Outcome::Good)
}

/// A thread that waits until every event was read.
pub fn waiter(bench: &Bench, milliseconds: u32) -> Result<Sleeper<Answer<()>>, Failure> {
    let file: Arc<Device> = bench.open(Mode::Nonblocking)?;
    Sleeper::start("WAIT_DRAINED", move || wait_drained(&file, milliseconds))
}
