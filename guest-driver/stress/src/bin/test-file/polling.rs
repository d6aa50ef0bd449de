// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `poll` and `epoll`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use evgen_stress::device::{Device, Mode};
use evgen_uapi::EVENT_SIZE;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::read;

use crate::bench::{Answer, Bench, Failure, cannot, expect};
use crate::sleeper::Sleeper;

/// What `poll` says now, asked for everything.
pub fn poll_now(device: &Device) -> Result<PollFlags, Failure> {
    const NOW: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut files = [PollFd::new(device, PollFlags::all())];
    poll(&mut files, Some(&NOW)).map_err(cannot("poll"))?;
    Ok(files[0].revents())
}

/// Waits in `poll`, asked for `flags`.
pub fn poll_for(device: &Device, flags: PollFlags) -> Answer<PollFlags> {
    let mut files = [PollFd::new(device, flags)];
    poll(&mut files, None)?;
    Ok(files[0].revents())
}

/// An epoll instance that watches one file.
pub struct Watch(OwnedFd);

impl Watch {
    /// Watches `file` for input, with these `flags` too.
    pub fn new(file: impl AsFd, flags: epoll::EventFlags) -> Result<Self, Failure> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(cannot("use epoll"))?;
        let flags = flags | epoll::EventFlags::IN;
        epoll::add(&watch, file, epoll::EventData::new_u64(0), flags)
            .map_err(cannot("add a file to epoll"))?;
        Ok(Self(watch))
    }

    /// What there is now, or nothing.
    pub fn now(&self) -> Result<epoll::EventFlags, Failure> {
        const NOW: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        self.wait(Some(&NOW)).map_err(cannot("epoll_wait"))
    }

    /// Waits until there is something.
    pub fn wait_for_ever(&self) -> Answer<epoll::EventFlags> {
        self.wait(None)
    }

    fn wait(&self, timeout: Option<&Timespec>) -> Answer<epoll::EventFlags> {
        let mut events = Vec::with_capacity(1);
        epoll::wait(
            &self.0,
            rustix::buffer::spare_capacity(&mut events),
            timeout,
        )?;
        let flags = events.first().map(|event: &epoll::Event| event.flags);
        Ok(flags.unwrap_or(epoll::EventFlags::empty()))
    }
}

const LEVEL: epoll::EventFlags = epoll::EventFlags::empty();
const EDGE: epoll::EventFlags = epoll::EventFlags::ET;
const NOTHING: epoll::EventFlags = epoll::EventFlags::empty();
const INPUT: epoll::EventFlags = epoll::EventFlags::IN;

/// `poll` says that there is something to read as long as there is.
pub fn poll_is_level_triggered(bench: &mut Bench) -> Result<(), Failure> {
    let readable = PollFlags::IN | PollFlags::RDNORM;
    expect(
        "poll, no event",
        poll_now(&bench.device)?,
        PollFlags::empty(),
    )?;
    bench.add(2)?;
    for what in ["poll, two events", "poll, still two"] {
        expect(what, poll_now(&bench.device)?, readable)?;
    }
    bench.device.get_event()?;
    expect("poll, one event", poll_now(&bench.device)?, readable)?;
    bench.device.get_event()?;
    expect(
        "poll, all read",
        poll_now(&bench.device)?,
        PollFlags::empty(),
    )
}

/// An event wakes all who poll, in any way, and a reader beside them.
pub fn all_are_woken(bench: &mut Bench) -> Result<(), Failure> {
    let file = bench.open(Mode::Blocking)?;
    for number in 0..2 {
        let add = |bench: &Bench| match number {
            0 => bench.add(1).map(drop),
            _ => Ok(bench.device.inject(0)?),
        };
        let polled = Arc::clone(&file);
        let poller = Sleeper::asleep("poll", move || poll_for(&polled, PollFlags::IN))?;
        let watched = |what, flags| {
            let watch = Watch::new(&file, flags)?;
            Sleeper::asleep(what, move || watch.wait_for_ever())
        };
        let level = watched("epoll, level", LEVEL)?;
        let edge = watched("epoll, edge", EDGE)?;
        add(bench)?;
        expect("poll", poller.answer()?, Ok(PollFlags::IN))?;
        expect("epoll, level", level.answer()?, Ok(INPUT))?;
        expect("epoll, edge", edge.answer()?, Ok(INPUT))?;
        expect("read", read(&file, &mut [0; EVENT_SIZE]), Ok(EVENT_SIZE))?;
    }
    Ok(())
}

/// Level triggered, `epoll` says that there is something to read as long as there is.
pub fn epoll_level(bench: &mut Bench) -> Result<(), Failure> {
    let watch = Watch::new(&bench.device, LEVEL)?;
    expect("no event", watch.now()?, NOTHING)?;
    bench.add(2)?;
    expect("two events", watch.now()?, INPUT)?;
    expect("still two", watch.now()?, INPUT)?;
    bench.device.get_event()?;
    expect("one event", watch.now()?, INPUT)?;
    bench.device.get_event()?;
    expect("all read", watch.now()?, NOTHING)
}

/// Edge triggered, `epoll` says so once for each time that something came, and at first if there was
/// something already.
pub fn epoll_edge(bench: &mut Bench) -> Result<(), Failure> {
    let watch = Watch::new(&bench.device, EDGE)?;
    expect("no event", watch.now()?, NOTHING)?;
    bench.add(1)?;
    expect("an event", watch.now()?, INPUT)?;
    expect("the same", watch.now()?, NOTHING)?;
    bench.add(1)?;
    expect("another", watch.now()?, INPUT)?;
    bench.device.get_event()?;
    expect("one left", watch.now()?, NOTHING)?;
    let late = Watch::new(&bench.device, EDGE)?;
    expect("one there already", late.now()?, INPUT)?;
    bench.device.get_event()?;
    expect("all read", watch.now()?, NOTHING)?;
    bench.add(1)?;
    bench.device.get_event()?;
    expect("read before the look", watch.now()?, NOTHING)?;
    bench.add(1)?;
    expect("one more", watch.now()?, INPUT)
}

/// A file that is closed leaves `epoll`, and the events find nobody there.
pub fn closed_while_watched(bench: &mut Bench) -> Result<(), Failure> {
    let file = bench.open(Mode::Nonblocking)?;
    let watches = [Watch::new(&file, LEVEL)?, Watch::new(&file, EDGE)?];
    drop(file);
    bench.add(1)?;
    for watch in watches {
        expect("epoll, file closed", watch.now()?, NOTHING)?;
    }
    Ok(())
}
