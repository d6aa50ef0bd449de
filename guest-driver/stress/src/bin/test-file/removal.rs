// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Devices that go while their files are open.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::ktap::Outcome;
use evgen_uapi::{ADD, AddEvent, COUNTERS, EVENT_SIZE, GET_EVENT, INJECT, WAIT_DRAINED};
use rustix::event::{PollFlags, epoll};
use rustix::io::{Errno, read};

use crate::bench::{Bench, Failure, PATIENCE, expect};
use crate::calls::{self, NOWHERE};
use crate::draining::waiter;
use crate::interrupted::{NO_PAGE_FAULTS, stuck_reader};
use crate::polling::{Watch, poll_for, poll_now};
use crate::sleeper::Sleeper;

const GONE: PollFlags = PollFlags::ERR.union(PollFlags::HUP);
const GONE_IN_EPOLL: epoll::EventFlags = epoll::EventFlags::ERR.union(epoll::EventFlags::HUP);

/// Takes the device from its driver, does `check`, and gives it back.
fn without_driver(
    bench: &Bench,
    check: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let unbound = bench.function.unbind()?;
    let result = check();
    unbound.bind()?;
    result
}

/// Whoever waits for an event is told that none will come.
pub fn sleepers_wake(bench: &mut Bench) -> Result<(), Failure> {
    let file = bench.open(Mode::Blocking)?;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let file = Arc::clone(&file);
        readers.push(Sleeper::asleep("a reader", move || {
            read(&file, &mut [0; EVENT_SIZE])
        })?);
    }
    let mut pollers = Vec::new();
    for flags in [PollFlags::IN, PollFlags::empty()] {
        let file = Arc::clone(&file);
        pollers.push(Sleeper::asleep("poll", move || poll_for(&file, flags))?);
    }
    let mut watches = Vec::new();
    for flags in [epoll::EventFlags::empty(), epoll::EventFlags::ET] {
        let watch = Watch::new(&file, flags)?;
        watches.push(Sleeper::asleep("epoll", move || watch.wait_for_ever())?);
    }
    without_driver(bench, || {
        for reader in readers {
            expect("read", reader.answer()?, Err(Errno::NODEV))?;
        }
        for poller in pollers {
            expect("poll", poller.answer()?, Ok(GONE))?;
        }
        for watch in watches {
            expect("epoll", watch.answer()?, Ok(GONE_IN_EPOLL))?;
        }
        Ok(())
    })
}

/// Whoever waits until every event was read is told that they will not be.
pub fn waiters_wake(bench: &mut Bench) -> Result<(), Failure> {
    bench.add(1)?;
    let mut waiters = Vec::new();
    for _ in 0..3 {
        let waiter = waiter(bench, u32::MAX)?;
        waiter.wait_until_asleep()?;
        waiters.push(waiter);
    }
    // What it knows of is no news to it.
    let watch = Watch::new(&bench.device, epoll::EventFlags::ET)?;
    expect("epoll", watch.now()?, epoll::EventFlags::IN)?;
    let watch = Sleeper::asleep("epoll", move || watch.wait_for_ever())?;
    without_driver(bench, || {
        for waiter in waiters {
            expect("WAIT_DRAINED", waiter.answer()?, Err(Errno::NODEV))?;
        }
        expect("epoll", watch.answer()?, Ok(GONE_IN_EPOLL))
    })
}

/// Nobody can hold up a removal: a reader in a page fault goes on when it can.
pub fn waits_for_no_page_fault(bench: &mut Bench) -> Result<Outcome, Failure> {
    bench.add(2)?;
    let Some(stuck) = stuck_reader(bench, 1)? else {
        return Ok(NO_PAGE_FAULTS);
    };
    // So that a driver that does wait is found out, and not waited for.
    let (late, start) = (Arc::clone(&stuck.page), Instant::now());
    thread::spawn(move || {
        thread::sleep(PATIENCE);
        late.provide();
    });
    without_driver(bench, || {
        expect("unbound in time", start.elapsed() < PATIENCE, true)?;
        expect("the reader sleeps", stuck.reader.sleeps()?, true)?;
        let answer = read(&bench.device, &mut [0; EVENT_SIZE]);
        expect("another read", answer, Err(Errno::NODEV))?;
        expect("INJECT", calls::inject(&bench.device), Err(Errno::NODEV))
    })?;
    // A driver has the device again, and the reader still has the old one.
    stuck.page.provide();
    expect("the stuck read", stuck.reader.answer()?, Ok(EVENT_SIZE))?;
    Ok(Outcome::Good)
}

/// Every call on a file whose device is gone says so at once, with events left and without; and the
/// next device in its place has nothing to do with it.
pub fn files_stay_gone(bench: &mut Bench) -> Result<(), Failure> {
    let file = bench.open(Mode::Blocking)?;
    let watch = Watch::new(&file, epoll::EventFlags::empty())?;
    for left in [0, 3] {
        let old = bench.open(Mode::Blocking)?;
        bench.add(left)?;
        without_driver(bench, || {
            expect_gone(&old)?;
            match bench.open(Mode::Blocking) {
                Err(Failure::Device(DeviceError::Missing { .. })) => Ok(()),
                other => expect("open", other.is_ok(), false),
            }
        })?;
        expect_gone(&old)?;
        bench.restore()?;
        let added = bench.add(1)?;
        bench.device.inject(0)?;
        expect(
            "events of the new device",
            bench.take_all()?.is_empty(),
            false,
        )?;
        expect("numbers of the new device", added, 0..1)?;
        expect_gone(&old)?;
    }
    expect_gone(&file)?;
    expect("epoll from before", watch.now()?, GONE_IN_EPOLL)?;
    let late = Watch::new(&file, epoll::EventFlags::ET)?;
    expect("epoll from now", late.now()?, GONE_IN_EPOLL)
}

fn expect_gone(file: &Device) -> Result<(), Failure> {
    let gone = Err(Errno::NODEV);
    for length in [0, 1, EVENT_SIZE] {
        let answer = read(file, &mut [0; EVENT_SIZE][..length]);
        expect("read, gone", answer, Err(Errno::NODEV))?;
    }
    for command in [ADD, INJECT, COUNTERS, GET_EVENT, WAIT_DRAINED, 0] {
        let answer = calls::ioctl_nowhere(file, command, NOWHERE[0]);
        expect(&format!("ioctl {command:#x}, gone"), answer, gone)?;
    }
    expect("ADD, gone", calls::add(file, AddEvent::default()), gone)?;
    expect("INJECT, gone", calls::inject(file), gone)?;
    expect("COUNTERS, gone", calls::counters(file), gone)?;
    expect("GET_EVENT, gone", calls::get_event(file), gone)?;
    expect(
        "WAIT_DRAINED, gone",
        calls::wait_drained(file, u32::MAX),
        gone,
    )?;
    expect("poll, gone", poll_now(file)?, GONE)
}
