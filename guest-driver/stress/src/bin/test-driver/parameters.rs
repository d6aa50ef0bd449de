// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The module's parameters.

use evgen_stress::module::ModuleError;
use evgen_uapi::Counters;
use rustix::io::Errno;

use crate::bench::{Bench, Failure, expect, load, sum, wait_until};
use crate::kernel_files::{Log, handler_threads, is_realtime};

pub fn bad_ones_are_refused(bench: &mut Bench) -> Result<(), Failure> {
    bench.unload()?;
    for (parameter, range) in [
        ("list_bound=0", "must be 1 to 1048576"),
        ("list_bound=1048577", "must be 1 to 1048576"),
        ("ring_size=1", "must be a power of two from 2 to 256"),
        ("ring_size=100", "must be a power of two from 2 to 256"),
        ("ring_size=512", "must be a power of two from 2 to 256"),
        ("threaded_handlers=2", "must be 0 or 1"),
    ] {
        let mut log = Log::from_now_on()?;
        let refused = match load(parameter) {
            Err(ModuleError::Load { source, .. }) => Errno::from_io_error(&source),
            _ => None,
        };
        expect(parameter, refused, Some(Errno::INVAL))?;
        let (said, told) = (log.text()?, format!("evgen: {parameter}: {range}"));
        expect(
            &format!("{told:?} in the log, which says {said:?}"),
            said.contains(&told),
            true,
        )?;
    }
    Ok(())
}

/// Events come through, each with an interrupt.
fn expect_interrupts(bench: &Bench) -> Result<(), Failure> {
    let before = bench.counters()?;
    for _ in 0..20 {
        bench.inject(1)?;
    }
    let after = bench.counters()?;
    expect("interrupts", after.interrupts - before.interrupts, 20)?;
    expect("lost interrupts", after.faults.lost_interrupts, 0)?;
    expect("events to read", bench.take_all()?.len(), 20)
}

pub fn hard_handlers(bench: &mut Bench) -> Result<(), Failure> {
    if !is_realtime() {
        expect("handlers in threads", handler_threads()?, 0)?;
    }
    expect_interrupts(bench)
}

pub fn threaded_handlers(bench: &mut Bench) -> Result<(), Failure> {
    bench.load("threaded_handlers=1")?;
    let vectors = bench.rings()? + 1;
    expect("handlers in threads", handler_threads()? >= vectors, true)?;
    expect_interrupts(bench)
}

pub fn smallest_rings(bench: &mut Bench) -> Result<(), Failure> {
    bench.load("ring_size=2")?;
    let text = bench.files.read("rings")?;
    let sizes: Vec<_> = text
        .lines()
        .filter(|line| line.contains(" size "))
        .collect();
    expect("sizes", sizes, vec!["  size 2"; bench.rings()?])?;
    expect_interrupts(bench)?;
    // More at a time than there is room for: the device says what it dropped.
    let before = bench.counters()?;
    for _ in 0..100 {
        bench.device()?.inject(1)?;
    }
    wait_until("100 events, received or dropped", || {
        let counters = bench.counters()?;
        let settled = |counters: &Counters| sum(counters, |ring| ring.received + ring.dropped);
        Ok(settled(&counters) == settled(&before) + 100)
    })
}
