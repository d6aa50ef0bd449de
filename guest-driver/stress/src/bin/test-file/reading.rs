// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `read` and `GET_EVENT`: what they give, and that nothing is lost.

use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc;

use evgen_stress::device::Mode;
use evgen_uapi::{EVENT_SIZE, SOURCE_DOORBELL};
use rustix::io::{Errno, read, readv};

use crate::bench::{Bench, Failure, PATIENCE, cannot, events_in, expect, expect_events};
use crate::memory::Edge;
use crate::sleeper::Sleeper;

/// A `read` gives as many whole events as fit, oldest first.
pub fn whole_events(bench: &mut Bench) -> Result<(), Failure> {
    let Range { start, end } = bench.add(5)?;
    let mut buffer = [0; 10 * EVENT_SIZE];
    let answer = read(&bench.device, &mut buffer[..3 * EVENT_SIZE - 1]);
    expect("read with room for 2.98", answer, Ok(2 * EVENT_SIZE))?;
    let events = events_in(&buffer[..2 * EVENT_SIZE]);
    expect_events("first read", &events, start..start + 2)?;
    let answer = read(&bench.device, &mut buffer);
    expect("read with room for 10", answer, Ok(3 * EVENT_SIZE))?;
    let events = events_in(&buffer[..3 * EVENT_SIZE]);
    expect_events("second read", &events, start + 2..end)
}

/// A buffer in pieces is filled like one that is not.
pub fn scattered(bench: &mut Bench) -> Result<(), Failure> {
    let added = bench.add(3)?;
    let (mut one, mut two, mut three) = ([0; 10], [0; 100], [0; 3 * EVENT_SIZE]);
    let mut pieces = [
        IoSliceMut::new(&mut one),
        IoSliceMut::new(&mut []),
        IoSliceMut::new(&mut two),
        IoSliceMut::new(&mut three),
    ];
    let answer = readv(&bench.device, &mut pieces);
    expect("readv", answer, Ok(3 * EVENT_SIZE))?;
    let mut whole = [&one[..], &two, &three].concat();
    whole.truncate(3 * EVENT_SIZE);
    expect_events("what was read", &events_in(&whole), added)
}

/// A `read` that cannot write all of its buffer gives what it can, and the rest stays.
pub fn faults(bench: &mut Bench) -> Result<(), Failure> {
    let edge = Edge::new().map_err(cannot("map memory"))?;
    // More than the driver takes out at a time.
    let Range { start, end } = bench.add(100)?;
    for room in [0, 1, EVENT_SIZE - 1] {
        let answer = edge.read(&bench.device, room, 2 * EVENT_SIZE);
        expect(
            &format!("read with {room} bytes"),
            answer,
            Err(Errno::FAULT),
        )?;
    }
    let mut next = start;
    for (count, more) in [(1, EVENT_SIZE / 2), (64, 0), (2, 1), (29, EVENT_SIZE - 1)] {
        let room = count * EVENT_SIZE + more;
        let answer = edge.read(&bench.device, room, room + 8 * EVENT_SIZE);
        expect(
            &format!("read with {room} bytes"),
            answer,
            Ok(count * EVENT_SIZE),
        )?;
        let events = events_in(&edge.bytes(room, count * EVENT_SIZE));
        expect_events("what was read", &events, next..next + count as u64)?;
        next += count as u64;
    }
    expect_events("events afterwards", &bench.take_all()?, next..end)
}

/// `GET_EVENT` gives the oldest event, whole or not at all.
pub fn one_event(bench: &mut Bench) -> Result<(), Failure> {
    let edge = Edge::new().map_err(cannot("map memory"))?;
    let Range { start, end } = bench.add(3)?;
    let first = bench.device.get_event()?;
    expect_events("first event", first.as_slice(), start..start + 1)?;
    for room in [0, 1, EVENT_SIZE - 1] {
        let answer = edge.get_event(&bench.device, room);
        expect(
            &format!("GET_EVENT with {room} bytes"),
            answer,
            Err(Errno::FAULT),
        )?;
    }
    expect(
        "GET_EVENT",
        edge.get_event(&bench.device, EVENT_SIZE),
        Ok(()),
    )?;
    let second = events_in(&edge.bytes(EVENT_SIZE, EVENT_SIZE));
    expect_events("second event", &second, start + 1..start + 2)?;
    expect_events("events afterwards", &bench.take_all()?, start + 2..end)
}

/// An event wakes who waits for one, wherever it comes from.
pub fn woken(bench: &mut Bench) -> Result<(), Failure> {
    let file = bench.open(Mode::Blocking)?;
    let reader = || {
        let file = file.clone();
        Sleeper::asleep("a reader", move || {
            let mut buffer = [0; EVENT_SIZE];
            read(&file, &mut buffer).map(|_| events_in(&buffer))
        })
    };
    let added = reader()?;
    let number = bench.add(1)?;
    let events = added.answer()?.map_err(cannot("read"))?;
    expect_events("added event", &events, number)?;

    let injected = reader()?;
    bench.device.inject(0)?;
    let events = injected.answer()?.map_err(cannot("read"))?;
    let sources: Vec<u16> = events.iter().map(|event| event.source).collect();
    expect("source of the event", sources, vec![SOURCE_DOORBELL])
}

/// Each event goes to one of many readers, and to each of them in order.
pub fn many_readers(bench: &mut Bench) -> Result<(), Failure> {
    const READERS: usize = 4;
    const EVENTS: u64 = 2000;
    let file = bench.open(Mode::Blocking)?;
    let (tell, told) = mpsc::channel();
    let mut readers = Vec::new();
    for index in 0..READERS {
        let (file, tell) = (Arc::clone(&file), tell.clone());
        readers.push(Sleeper::asleep("a reader", move || {
            loop {
                let mut buffer = [0; 3 * EVENT_SIZE];
                let count = read(&file, &mut buffer)?;
                for event in events_in(&buffer[..count]) {
                    if event.source == SOURCE_DOORBELL {
                        return Ok::<(), Errno>(());
                    }
                    // Whoever listens has given up.
                    let _ = tell.send((index, event.sequence));
                }
            }
        })?);
    }
    drop(tell);
    let added = bench.add(EVENTS)?;
    let mut numbers = Vec::new();
    while numbers.len() < EVENTS as usize {
        match told.recv_timeout(PATIENCE) {
            Ok(number) => numbers.push(number),
            Err(_) => break,
        }
    }
    for index in 0..READERS {
        let mine = numbers.iter().filter(|&&(reader, _)| reader == index);
        let in_order = mine.is_sorted_by_key(|&(_, number)| number);
        expect("a reader gets its events in order", in_order, true)?;
    }
    numbers.sort_unstable_by_key(|&(_, number)| number);
    let numbers: Vec<u64> = numbers.into_iter().map(|(_, number)| number).collect();
    expect(
        "each event is read once",
        numbers == added.collect::<Vec<_>>(),
        true,
    )?;
    // One of these ends a reader, and that takes three of them at most.
    for _ in 0..3 * READERS {
        bench.device.inject(0)?;
    }
    for reader in readers {
        reader.answer()?.map_err(cannot("read"))?;
    }
    Ok(())
}
