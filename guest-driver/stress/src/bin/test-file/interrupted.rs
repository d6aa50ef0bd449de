// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Signals that come while a call waits.

use std::fs;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use evgen_stress::device::{Device, Mode};
use evgen_stress::ktap::Outcome;
use evgen_stress::signals::Interrupted;
use evgen_uapi::{AddEvent, EVENT_SIZE};
use rustix::io::{Errno, read};

use crate::bench::{Answer, Bench, Failure, cannot, events_in, expect, expect_events};
use crate::calls;
use crate::memory::Absent;
use crate::sleeper::Sleeper;

type Call = fn(&Device) -> Answer<()>;

/// A `read` that waits is made again by itself after a signal whose handler allows that, and the
/// program does not notice.
pub fn restarted(bench: &mut Bench) -> Result<(), Failure> {
    let reader = reader(&bench.open(Mode::Blocking)?)?;
    for _ in 0..3 {
        reader.interrupt(Interrupted::Restarts)?;
        reader.wait_until_asleep()?;
    }
    let added = bench.add(1)?;
    let bytes = reader.answer()?.map_err(cannot("read"))?;
    expect_events("event after signals", &events_in(&bytes), added)
}

/// A `read` that waits fails with `EINTR` after a signal whose handler does not.
pub fn ended(bench: &mut Bench) -> Result<(), Failure> {
    let reader = reader(&bench.open(Mode::Blocking)?)?;
    reader.interrupt(Interrupted::Fails)?;
    expect("read", reader.answer()?, Err(Errno::INTR))
}

/// A reader that a signal ends leaves the event, and the waking, to the others.
pub fn steals_no_waking(bench: &mut Bench) -> Result<(), Failure> {
    let file = bench.open(Mode::Blocking)?;
    for round in 0..30 {
        let (one, other) = (reader(&file)?, reader(&file)?);
        // As close together as possible, in either order.
        if round % 2 == 0 {
            one.send(Interrupted::Fails)?;
        }
        let added = bench.add(1)?;
        if round % 2 == 1 {
            one.send(Interrupted::Fails)?;
        }
        match one.answer()? {
            Err(Errno::INTR) => {
                let bytes = other.answer()?.map_err(cannot("read"))?;
                expect_events("event of the other", &events_in(&bytes), added)?;
            }
            first => {
                let bytes = first.map_err(cannot("read"))?;
                expect_events("event of the signalled", &events_in(&bytes), added)?;
                let added = bench.add(1)?;
                let bytes = other.answer()?.map_err(cannot("read"))?;
                expect_events("second event", &events_in(&bytes), added)?;
            }
        }
    }
    Ok(())
}

/// While a reader is stuck in a page fault, others wait for it, and a signal ends that. Nothing is
/// lost.
pub fn behind_a_page_fault(bench: &mut Bench) -> Result<Outcome, Failure> {
    let Range { start, end } = bench.add(2)?;
    let Some(stuck) = stuck_reader(bench, 1)? else {
        return Ok(NO_PAGE_FAULTS);
    };
    let file = bench.open(Mode::Blocking)?;
    let waits: [(&'static str, Call); 5] = [
        ("read", |file| read(file, &mut [0; EVENT_SIZE]).map(drop)),
        ("ADD", |file| calls::add(file, AddEvent::default())),
        ("INJECT", calls::inject),
        ("GET_EVENT", calls::get_event),
        ("COUNTERS", calls::counters),
    ];
    for (name, call) in waits {
        let file = Arc::clone(&file);
        let sleeper = Sleeper::asleep(name, move || call(&file))?;
        sleeper.interrupt(Interrupted::Restarts)?;
        sleeper.wait_until_asleep()?;
        sleeper.interrupt(Interrupted::Fails)?;
        expect(name, sleeper.answer()?, Err(Errno::INTR))?;
    }
    // Who only looks waits for nobody.
    let looks = bench.debugfs_files()?;
    let looker = Sleeper::start("a look at debugfs", move || {
        let texts: io::Result<Vec<_>> = looks.into_iter().map(fs::read).collect();
        texts
    })?;
    looker.answer()?.map_err(cannot("read debugfs"))?;
    stuck.page.provide();
    expect("the stuck read", stuck.reader.answer()?, Ok(EVENT_SIZE))?;
    expect_events(
        "its event",
        &events_in(&stuck.page.event()),
        start..start + 1,
    )?;
    expect_events("events afterwards", &bench.take_all()?, start + 1..end)?;
    Ok(Outcome::Good)
}

/// A reader that has taken all events and cannot write them gives them back, and wakes all who have
/// found nothing meanwhile.
pub fn given_back(bench: &mut Bench) -> Result<Outcome, Failure> {
    const EVENTS: usize = 3;
    let added = bench.add(EVENTS as u64)?;
    let Some(stuck) = stuck_reader(bench, EVENTS)? else {
        return Ok(NO_PAGE_FAULTS);
    };
    let file = bench.open(Mode::Blocking)?;
    let others: Result<Vec<_>, _> = (0..EVENTS).map(|_| reader(&file)).collect();
    stuck.page.forbid().map_err(cannot("forbid a page"))?;
    expect("the stuck read", stuck.reader.answer()?, Err(Errno::FAULT))?;
    let mut events = Vec::new();
    for other in others? {
        let bytes = other.answer()?.map_err(cannot("read"))?;
        events.extend(events_in(&bytes));
    }
    events.sort_by_key(|event| event.sequence);
    expect_events("events of the others", &events, added)?;
    Ok(Outcome::Good)
}

/// A reader that waits for an event.
fn reader(file: &Arc<Device>) -> Result<Sleeper<Answer<Vec<u8>>>, Failure> {
    let file = Arc::clone(file);
    Sleeper::asleep("a reader", move || {
        let mut buffer = [0; EVENT_SIZE];
        read(&file, &mut buffer)?;
        Ok(buffer.to_vec())
    })
}

/// Why a check is not done.
pub const NO_PAGE_FAULTS: Outcome = Outcome::Skipped("this kernel has no userfaultfd");

/// A reader that has taken events, and sleeps because its buffer's page is not there.
pub struct Stuck {
    /// The page. Is there at the latest when this is dropped, so that nobody else hangs.
    pub page: Arc<Absent>,
    /// The reader.
    pub reader: Sleeper<Answer<usize>>,
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.page.provide();
    }
}

/// A reader that is stuck with `count` events, of which there must be as many. `None` if the kernel
/// cannot hold up page faults.
pub fn stuck_reader(bench: &Bench, count: usize) -> Result<Option<Stuck>, Failure> {
    let Some(page) = Absent::new().map_err(cannot("hold up page faults"))? else {
        return Ok(None);
    };
    let (page, file) = (Arc::new(page), bench.open(Mode::Blocking)?);
    let buffer = Arc::clone(&page);
    let read = move || buffer.read(&file, count);
    let reader = Sleeper::asleep("a reader in a page fault", read)?;
    Ok(Some(Stuck { page, reader }))
}
