// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What the driver refuses, and how.

use evgen_stress::device::{DeviceError, Mode};
use evgen_uapi::{
    ADD, AddEvent, COUNTERS, EVENT_SIZE, GET_EVENT, INJECT, INJECT_DEFERRED, SET_COALESCING,
    WAIT_DRAINED,
};
use rustix::fs::{OFlags, SeekFrom, fcntl_getfl, fcntl_setfl, seek};
use rustix::io::{Errno, read, write};

use crate::bench::{Bench, Failure, cannot, expect, expect_events};
use crate::calls::{self, NOWHERE};
use crate::sleeper::Sleeper;

/// `ioctl`s that there are not: of another number, letter, direction or size.
pub fn unknown_commands(bench: &mut Bench) -> Result<(), Failure> {
    for command in [
        0,
        0x0000_4500,
        0x0000_45ff,
        0x0000_5401,
        ADD ^ 0x8000,
        ADD | 0x8000_0000,
        COUNTERS + 0x0001_0000,
        GET_EVENT ^ 0x100,
        u32::MAX,
    ] {
        let answer = calls::ioctl_nowhere(&bench.device, command, 0);
        expect(&format!("ioctl {command:#x}"), answer, Err(Errno::NOTTY))?;
    }
    Ok(())
}

/// Arguments that point to where nothing is.
pub fn bad_pointers(bench: &mut Bench) -> Result<(), Failure> {
    let added = bench.add(1)?;
    for (name, command) in [
        ("ADD", ADD),
        ("INJECT", INJECT),
        ("COUNTERS", COUNTERS),
        ("GET_EVENT", GET_EVENT),
        ("WAIT_DRAINED", WAIT_DRAINED),
        ("INJECT_DEFERRED", INJECT_DEFERRED),
        ("SET_COALESCING", SET_COALESCING),
    ] {
        for nowhere in NOWHERE {
            let answer = calls::ioctl_nowhere(&bench.device, command, nowhere);
            expect(
                &format!("{name} at {nowhere:#x}"),
                answer,
                Err(Errno::FAULT),
            )?;
        }
    }
    expect_events("events afterwards", &bench.take_all()?, added)
}

/// Arguments that have no meaning.
pub fn bad_arguments(bench: &mut Bench) -> Result<(), Failure> {
    for reserved in [[1, 0, 0], [0, 1, 0], [0, 0, 0x8000]] {
        let event = AddEvent {
            reserved,
            ..AddEvent::default()
        };
        let answer = calls::add(&bench.device, event);
        expect(
            &format!("ADD with {reserved:x?}"),
            answer,
            Err(Errno::INVAL),
        )?;
    }
    let rings = bench.device.counters()?.rings as usize;
    for ring in [rings, u32::MAX as usize] {
        match bench.device.inject(ring) {
            Err(DeviceError::NoRing { .. }) => {}
            other => expect(&format!("INJECT of ring {ring}"), other.is_ok(), false)?,
        }
    }
    expect("events afterwards", bench.pending()?, 0)
}

/// Buffers without room for an event.
pub fn short_buffers(bench: &mut Bench) -> Result<(), Failure> {
    let blocking = bench.open(Mode::Blocking)?;
    let mut buffer = [0; EVENT_SIZE];
    let lengths = [0, 1, EVENT_SIZE - 1];
    // It does not wait first.
    for length in lengths {
        let answer = read(&blocking, &mut buffer[..length]);
        expect(
            &format!("read of {length} bytes"),
            answer,
            Err(Errno::INVAL),
        )?;
    }
    let added = bench.add(1)?;
    for length in lengths {
        let answer = read(&blocking, &mut buffer[..length]);
        expect(
            &format!("read of {length} bytes"),
            answer,
            Err(Errno::INVAL),
        )?;
    }
    expect_events("events afterwards", &bench.take_all()?, added)
}

/// Calls that would have to wait on a file that is not to.
pub fn nothing_there(bench: &mut Bench) -> Result<(), Failure> {
    let file = bench.open(Mode::Blocking)?;
    let mut buffer = [0; EVENT_SIZE];
    expect("GET_EVENT", file.get_event()?, None)?;
    let flags = fcntl_getfl(&file).map_err(cannot("see a file's flags"))?;
    let set = |flags| fcntl_setfl(&file, flags).map_err(cannot("set a file's flags"));
    set(flags | OFlags::NONBLOCK)?;
    expect("read", read(&file, &mut buffer), Err(Errno::AGAIN))?;
    set(flags)?;
    let reading = file.clone();
    let sleeper = Sleeper::asleep("a reader", move || read(&reading, &mut [0; EVENT_SIZE]))?;
    bench.add(1)?;
    expect("read that waits", sleeper.answer()?, Ok(EVENT_SIZE))
}

/// What can be done with other files.
pub fn other_calls(bench: &mut Bench) -> Result<(), Failure> {
    let answer = write(&bench.device, &[0; EVENT_SIZE]);
    expect("write", answer, Err(Errno::INVAL))?;
    let answer = seek(&bench.device, SeekFrom::Start(0));
    expect("lseek", answer, Err(Errno::SPIPE))
}
