// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Who uses a device while it goes.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use evgen_stress::device::{Device, Mode};
use evgen_uapi::EVENT_SIZE;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::trouble::Trouble;

/// What an actor does until the device is gone, or until it is told to end.
pub type Act = fn(&Device, &Told) -> Result<End, Trouble>;

/// Why an actor ended. A call that fails with `ENODEV` is an end too, but [`Trouble`] here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The device has gone.
    Gone,
    /// It was told to.
    Told,
}

/// What actors are told.
pub struct Told {
    /// To end.
    pub end: AtomicBool,
    /// How long they may sleep, if not for ever.
    pub patience: Option<Duration>,
}

/// All of them, by name, with the way in which they open the device.
pub const ACTORS: [(&str, Mode, Act); 8] = [
    ("reader", Mode::Blocking, read),
    ("poller", Mode::Nonblocking, poll_and_read),
    ("epoll waiter", Mode::Nonblocking, wait_for_edges),
    ("hang-up waiter", Mode::Nonblocking, wait_for_hang_up),
    ("drain waiter", Mode::Nonblocking, wait_drained),
    ("writer", Mode::Nonblocking, write),
    ("asker", Mode::Nonblocking, ask),
    ("browser", Mode::Nonblocking, browse),
];

/// Events that are read at a time: few, so that the readers meet.
const BATCH: usize = 8;
/// How long those rest who never sleep in the driver.
const REST: Duration = Duration::from_millis(4);
/// Reading all counters takes dozens of accesses to the device.
const LONG_REST: Duration = Duration::from_millis(60);
/// Of so many injections one is put off, until long after the device has gone.
const DEFERRED: u64 = 4;
const DEFERRED_MILLISECONDS: u32 = 60_000;

impl Told {
    fn to_end(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    fn timeout(&self) -> Option<Timespec> {
        self.patience.and_then(|patience| patience.try_into().ok())
    }
}

fn read(device: &Device, told: &Told) -> Result<End, Trouble> {
    let mut buffer = [[0; EVENT_SIZE]; BATCH];
    while !told.to_end() {
        check(device.read(&mut buffer)?.into_iter().flatten())?;
    }
    Ok(End::Told)
}

fn poll_and_read(device: &Device, told: &Told) -> Result<End, Trouble> {
    let mut buffer = [[0; EVENT_SIZE]; BATCH];
    while !told.to_end() {
        if is_hung_up(device, PollFlags::IN, told.timeout().as_ref())? {
            return Ok(End::Gone);
        }
        check(device.read(&mut buffer)?.into_iter().flatten())?;
    }
    Ok(End::Told)
}

fn wait_for_hang_up(device: &Device, told: &Told) -> Result<End, Trouble> {
    while !told.to_end() {
        if is_hung_up(device, PollFlags::empty(), told.timeout().as_ref())? {
            return Ok(End::Gone);
        }
    }
    Ok(End::Told)
}

fn wait_for_edges(device: &Device, told: &Told) -> Result<End, Trouble> {
    let system = |what| {
        move |error: Errno| Trouble::System {
            what,
            source: error.into(),
        }
    };
    let waiter = epoll::create(CreateFlags::CLOEXEC).map_err(system("make an epoll instance"))?;
    let flags = EventFlags::IN | EventFlags::ET;
    epoll::add(&waiter, device, EventData::new_u64(0), flags)
        .map_err(system("add the device to an epoll instance"))?;
    while !told.to_end() {
        let mut event = [Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        }];
        match epoll::wait(&waiter, &mut event, told.timeout().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(system("wait with epoll")(error)),
        }
        let [Event { flags, .. }] = event;
        if flags.contains(EventFlags::HUP) {
            return Ok(End::Gone);
        }
        while let Some(event) = device.get_event()? {
            check([event])?;
        }
    }
    Ok(End::Told)
}

fn wait_drained(device: &Device, told: &Told) -> Result<End, Trouble> {
    let patience = told
        .patience
        .map_or(u128::MAX, |patience| patience.as_millis());
    let milliseconds = u32::try_from(patience).unwrap_or(u32::MAX);
    while !told.to_end() {
        device.wait_drained(milliseconds)?;
        // It may be so all the time.
        thread::sleep(REST);
    }
    Ok(End::Told)
}

fn write(device: &Device, told: &Told) -> Result<End, Trouble> {
    for number in 0.. {
        if told.to_end() {
            break;
        }
        device.add(number)?;
        device.inject(0)?;
        if number % DEFERRED == 0 {
            device.inject_deferred(0, DEFERRED_MILLISECONDS)?;
        }
        thread::sleep(REST);
    }
    Ok(End::Told)
}

fn ask(device: &Device, told: &Told) -> Result<End, Trouble> {
    while !told.to_end() {
        device.counters()?;
        thread::sleep(LONG_REST);
    }
    Ok(End::Told)
}

/// Reads the files of debugfs, if there are any. They vanish when the device goes.
fn browse(device: &Device, told: &Told) -> Result<End, Trouble> {
    let folder = format!("/sys/kernel/debug/evgen/evgen{}", device.index());
    while !told.to_end() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let _ = fs::read(entry.path());
        }
        device.get_event()?;
        thread::sleep(REST);
    }
    Ok(End::Told)
}

/// Waits for `flags` or a hang-up; whether that came.
pub fn is_hung_up(
    device: &Device,
    flags: PollFlags,
    timeout: Option<&Timespec>,
) -> Result<bool, Trouble> {
    let mut files = [PollFd::new(device, flags)];
    match poll(&mut files, timeout) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => {
            return Err(Trouble::System {
                what: "poll the device",
                source: error.into(),
            });
        }
    }
    let found = files[0].revents();
    let both = PollFlags::HUP | PollFlags::ERR;
    if found.intersects(both) && !found.contains(both) {
        return Err(Trouble::wrong(
            "poll",
            format!("{found:?}, not both of {both:?}"),
        ));
    }
    Ok(found.contains(both))
}

fn check(events: impl IntoIterator<Item = evgen_uapi::Record>) -> Result<(), Trouble> {
    match events.into_iter().find(|event| !event.intact) {
        None => Ok(()),
        Some(event) => Err(Trouble::wrong("read", format!("a broken event: {event:?}"))),
    }
}
