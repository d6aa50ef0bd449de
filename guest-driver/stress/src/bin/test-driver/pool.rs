// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Room for events, which grows in the background up to the bound.

use std::fs;

use evgen_stress::ktap::Outcome;

use crate::bench::{Bench, Failure, cannot, expect, sum, wait_until};

const BOUND: u64 = 4096;
const PARAMETERS: &str = "list_bound=4096";
/// As many events as the driver always has room for at once, if it was left in peace before.
const PORTION: u64 = 256;

/// Waits until the driver has made as much room as it will.
fn wait_for_room(bench: &Bench) -> Result<(), Failure> {
    wait_until("room for more events", || {
        let counters = bench.files.counters()?;
        Ok(counters["nodes"] == counters["list_bound"] || counters["nodes_free"] >= 2 * PORTION)
    })
}

pub fn grows_to_the_bound(bench: &mut Bench) -> Result<(), Failure> {
    bench.load(PARAMETERS)?;
    let at_first = bench.files.counter("nodes")?;
    expect("not all room is made at first", at_first < BOUND, true)?;
    for _ in 0..BOUND / PORTION {
        wait_for_room(bench)?;
        bench.inject(PORTION)?;
    }
    let full = bench.counters()?;
    expect("pending", full.pending, BOUND)?;
    expect("evicted", sum(&full, |ring| ring.evicted), 0)?;
    expect("evicted early", full.evicted_early, 0)?;
    expect("nodes", bench.files.counter("nodes")?, BOUND)?;

    bench.inject(10)?;
    let over = bench.counters()?;
    expect("pending, of a full list", over.pending, BOUND)?;
    expect(
        "evicted, from a full list",
        sum(&over, |ring| ring.evicted),
        10,
    )?;
    expect("evicted early, from a full list", over.evicted_early, 0)?;
    let numbers: Vec<_> = bench
        .take_all()?
        .iter()
        .map(|event| event.sequence)
        .collect();
    let first = numbers.first().copied().unwrap_or_default();
    let wanted: Vec<_> = (first..).take(BOUND as usize).collect();
    expect("the newest events, in order", numbers, wanted)
}

/// A program's event brings its own room along.
pub fn grows_with_added_events(bench: &mut Bench) -> Result<(), Failure> {
    bench.load(PARAMETERS)?;
    for number in 0..BOUND {
        expect("memory for an event", bench.device()?.add(number)?, true)?;
    }
    let full = bench.counters()?;
    expect("pending", full.pending, BOUND)?;
    expect("evicted", full.added_evicted, 0)?;
    expect("room for one more", bench.device()?.add(BOUND)?, true)?;
    let over = bench.counters()?;
    expect("pending, of a full list", over.pending, BOUND)?;
    expect("evicted, from a full list", over.added_evicted, 1)?;
    expect("evicted early", over.evicted_early, 0)
}

/// The smallest list there can be.
pub fn of_one_event(bench: &mut Bench) -> Result<(), Failure> {
    bench.load("list_bound=1")?;
    bench.inject(3)?;
    let counters = bench.counters()?;
    expect("pending", counters.pending, 1)?;
    expect("evicted", sum(&counters, |ring| ring.evicted), 2)?;
    expect("evicted early", counters.evicted_early, 0)
}

/// Memory that is short is no more than a nuisance: events leave early, and when there is memory
/// again, there is room again.
pub fn survives_without_memory(bench: &mut Bench) -> Result<Outcome, Failure> {
    let Some(failures) = SlabFailures::of_the_module()? else {
        return Ok(Outcome::Skipped(
            "this kernel cannot make a module's allocations fail",
        ));
    };
    bench.load(PARAMETERS)?;
    // Where the module's code is has changed with that.
    let failures = failures.begin()?;
    let rounds = BOUND / 2 / PORTION;
    for _ in 0..rounds {
        bench.inject(PORTION)?;
    }
    let short = bench.counters()?;
    let received = sum(&short, |ring| ring.received);
    let evicted = sum(&short, |ring| ring.evicted);
    expect("events that left early", evicted > 0, true)?;
    expect(
        "evicted early, of those evicted",
        short.evicted_early,
        evicted,
    )?;
    expect(
        "received, and pending or evicted",
        short.pending + evicted,
        received,
    )?;
    drop(failures);
    wait_for_room(bench)?;
    bench.inject(PORTION)?;
    let evicted_later = sum(&bench.counters()?, |ring| ring.evicted);
    expect(
        "evicted, when there is memory again",
        evicted_later,
        evicted,
    )?;
    Ok(Outcome::Good)
}

const FAILSLAB: &str = "/sys/kernel/debug/failslab";

/// The kernel's way to make allocations fail: here, those that the module's code asks for.
struct SlabFailures;

impl SlabFailures {
    /// `None` if the kernel cannot do that.
    fn of_the_module() -> Result<Option<Self>, Failure> {
        let able = fs::exists(format!("{FAILSLAB}/require-start"));
        Ok(able.map_err(cannot("look for failslab"))?.then_some(Self))
    }

    /// From now on they fail, until what this gives is dropped.
    fn begin(self) -> Result<BegunFailures, Failure> {
        let text = "/sys/module/evgen/sections/.text";
        let start = fs::read_to_string(text).map_err(cannot("find the module's code"))?;
        let start = u64::from_str_radix(start.trim().trim_start_matches("0x"), 16).unwrap_or(0);
        for (name, value) in [
            ("require-start", format!("{start:#x}")),
            ("require-end", format!("{:#x}", start + 0x10_0000)),
            ("stacktrace-depth", "32".to_owned()),
            ("ignore-gfp-wait", "N".to_owned()),
            ("verbose", "0".to_owned()),
            ("times", "-1".to_owned()),
            ("probability", "100".to_owned()),
        ] {
            set(name, &value)?;
        }
        Ok(BegunFailures)
    }
}

struct BegunFailures;

impl Drop for BegunFailures {
    fn drop(&mut self) {
        for (name, value) in [("probability", "0"), ("require-start", "0x0")] {
            if let Err(failure) = set(name, value) {
                eprintln!("test-driver: {failure}");
            }
        }
    }
}

fn set(name: &str, value: &str) -> Result<(), Failure> {
    let path = format!("{FAILSLAB}/{name}");
    fs::write(&path, value).map_err(cannot(format!("write {value} to {path}")))
}
