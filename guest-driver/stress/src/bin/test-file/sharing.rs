// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Files that several programs have, and programs of another kind.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use evgen_stress::device::{Device, Mode};
use evgen_stress::ktap::{Outcome, Wrong};
use evgen_uapi::{COUNTERS, Counters, EVENT_SIZE, GET_EVENT};
use rustix::io::read;

use crate::bench::{Bench, Failure, cannot, events_in, expect, expect_events, wait_until};
use crate::memory::Low;
use crate::sleeper::Sleeper;

/// A child reads from the file that it inherited, after its parent has closed its own; and one that is
/// killed there leaves the events to others.
pub fn children(bench: &mut Bench) -> Result<(), Failure> {
    let file = bench.open(Mode::Blocking)?;
    let (mut killed, reads) = (child(&file)?, child(&file)?);
    drop(file);
    let sleeps = |child: &Child| {
        let path = format!("/proc/{}/syscall", child.id());
        let in_read = format!("{} ", libc::SYS_read);
        wait_until("a child reads", || {
            Ok(fs::read_to_string(&path).is_ok_and(|text| text.starts_with(&in_read)))
        })
    };
    sleeps(&killed)?;
    sleeps(&reads)?;
    killed.kill().map_err(cannot("kill a child"))?;
    killed.wait().map_err(cannot("wait for a child"))?;
    let added = bench.add(1)?;
    let output = reads.wait_with_output();
    let output = output.map_err(cannot("wait for a child"))?;
    expect_events("what the child read", &events_in(&output.stdout), added)
}

/// A child that copies one event from the file to a pipe.
fn child(file: &Arc<Device>) -> Result<Child, Failure> {
    let inherited = file.as_fd().try_clone_to_owned();
    Command::new("dd")
        .args([&format!("bs={EVENT_SIZE}"), "count=1"])
        .stdin(inherited.map_err(cannot("duplicate a file"))?)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(cannot("run dd"))
}

/// `/proc/PID/fdinfo` tells what was done with a file, whoever did it, and nothing of other files.
pub fn told_in_proc(bench: &mut Bench) -> Result<(), Failure> {
    let (one, other) = (bench.open(Mode::Blocking)?, bench.open(Mode::Blocking)?);
    let figures = |file: &Device| {
        let read = figure(file, "evgen-events-read")?;
        Ok::<_, Failure>((read, figure(file, "evgen-sleeps")?))
    };
    expect("a new file", figures(&one)?, (0, 0))?;
    let reading = Arc::clone(&one);
    let reader = Sleeper::asleep("a reader", move || read(&reading, &mut [0; EVENT_SIZE]))?;
    expect("a file with a reader asleep", figures(&one)?, (0, 1))?;
    bench.add(1)?;
    expect("read", reader.answer()?, Ok(EVENT_SIZE))?;
    bench.add(3)?;
    one.get_event()?;
    let duplicate = one.as_fd().try_clone_to_owned();
    let duplicate = duplicate.map_err(cannot("duplicate a file"))?;
    let answer = read(&duplicate, &mut [0; 2 * EVENT_SIZE]);
    expect("read from a duplicate", answer, Ok(2 * EVENT_SIZE))?;
    let (read, _) = figures(&one)?;
    expect("events read from a file", read, 4)?;
    expect("the other file", figures(&other)?, (0, 0))
}

/// A figure of a file's `fdinfo`.
fn figure(file: &Device, name: &str) -> Result<u64, Failure> {
    let path = format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd());
    let text = fs::read_to_string(path).map_err(cannot::<io::Error>("read fdinfo"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    let figure = line.and_then(|figure| figure.parse().ok());
    figure.ok_or_else(|| Wrong(format!("no figure {name} in {text:?}")).into())
}

/// 32-bit programs get the same answers.
pub fn of_32_bits(bench: &mut Bench) -> Result<Outcome, Failure> {
    let low = Low::new().map_err(cannot("map memory"))?;
    let added = bench.add(1)?;
    let Some(answer) = low.ioctl(&bench.device, GET_EVENT) else {
        return Ok(Outcome::Skipped("this kernel runs no 32-bit programs"));
    };
    expect("GET_EVENT", answer, Ok(()))?;
    let event = events_in(&low.bytes(EVENT_SIZE));
    expect_events("its event", &event, added)?;
    let answer = low.ioctl(&bench.device, COUNTERS);
    expect("COUNTERS", answer, Some(Ok(())))?;
    let counters = bench.device.counters()?;
    let first = [counters.rings, counters.list_bound].map(u32::to_ne_bytes);
    let last = counters.came_about.map(u64::to_ne_bytes);
    let bytes = low.bytes(size_of::<Counters>());
    expect(
        "first fields",
        bytes.starts_with(first.as_flattened()),
        true,
    )?;
    expect("last fields", bytes.ends_with(last.as_flattened()), true)?;
    Ok(Outcome::Good)
}
