// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What a developer can look at: debugfs and tracepoints.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use evgen_stress::ktap::{Outcome, Wrong};
use evgen_stress::module;
use evgen_uapi::FaultCounters;
use rustix::io::Errno;

use crate::bench::{Bench, Failure, cannot, expect, wait_until};
use crate::kernel_files::FILES;

pub fn counters(bench: &mut Bench) -> Result<(), Failure> {
    bench.inject(7)?;
    expect("added", bench.device()?.add(0)?, true)?;
    let (told, shown) = (bench.counters()?, bench.files.counters()?);
    for (name, value) in [
        ("ring0_received", told.ring[0].received),
        ("ring0_evicted", told.ring[0].evicted),
        ("added", told.added),
        ("read", told.read),
        ("pending", told.pending),
        ("interrupts", told.interrupts),
        ("device_restarts", told.faults.device_restarts),
        ("list_bound", told.list_bound.into()),
    ] {
        expect(name, shown.get(name), Some(&value))?;
    }
    expect("room", shown["nodes"] - shown["nodes_free"], told.pending)
}

pub fn rings(bench: &mut Bench) -> Result<(), Failure> {
    bench.inject(3)?;
    let text = bench.files.read("rings")?;
    let ring: Vec<_> = text
        .lines()
        .take_while(|line| !line.starts_with("ring 1"))
        .map(str::trim)
        .collect();
    // Since the reset that comes before every check; numbers go on over that.
    let wanted = [
        "ring 0: in use",
        "size 256",
        "taken 3",
        "offered 259",
        "used 3",
        "waiting 0",
    ];
    expect("ring 0", &ring[..wanted.len().min(ring.len())], &wanted[..])?;
    let highest = bench.counters()?.ring[0].generated - 1;
    let highest = format!("highest_of_source_1 {highest}");
    expect(
        &format!("{highest} in {ring:?}"),
        ring.contains(&&*highest),
        true,
    )
}

pub fn locks(bench: &mut Bench) -> Result<(), Failure> {
    bench.inject(3)?;
    let text = bench.files.read("locks")?;
    let mut names = Vec::new();
    for line in text.lines().skip(1) {
        let mut words = line.split_ascii_whitespace();
        names.extend(words.next());
        let taken = words.next().and_then(|word| word.parse().ok());
        expect(
            &format!("taken at all: {line:?}"),
            taken > Some(0_u64),
            true,
        )?;
        let contended = words.next().unwrap_or_default();
        let counted = contended.parse::<u64>().is_ok() || line.ends_with("in /proc/lock_stat");
        expect(&format!("contended: {line:?}"), counted, true)?;
    }
    let rings = (0..bench.rings()?).map(|ring| format!("ring{ring}"));
    let wanted: Vec<_> = ["process".into(), "events".into()]
        .into_iter()
        .chain(rings)
        .collect();
    expect("locks", names, wanted.iter().map(String::as_str).collect())
}

/// A function level reset behind the driver's back looks like a device that is gone for a while, or like
/// one that resets itself, if the driver looks only then.
fn spoil(bench: &Bench) -> Result<(), Failure> {
    let before = bench.counters()?.faults;
    let noticed = |faults: &FaultCounters| faults.unreachable + faults.self_resets;
    bench.function.reset()?;
    wait_until("recovery from a reset", || {
        let faults = bench.counters()?.faults;
        Ok(noticed(&faults) > noticed(&before) && faults.device_restarts > before.device_restarts)
    })
}

pub fn troubles(bench: &mut Bench) -> Result<(), Failure> {
    bench.rebind()?;
    expect(
        "troubles of a new device",
        bench.files.read("faults")?.as_str(),
        "",
    )?;
    for count in 1..=34 {
        spoil(bench)?;
        let text = bench.files.read("faults")?;
        let good = |line: &str| {
            line.split_once(' ').is_some_and(|(time, trouble)| {
                time.parse::<f64>().is_ok() && ["unreachable", "self reset"].contains(&trouble)
            })
        };
        expect(
            &format!("all of them: {text:?}"),
            text.lines().all(good),
            true,
        )?;
        expect("how many", text.lines().count(), 32.min(count))?;
    }
    bench.inject(1)
}

pub fn gone_after_unbind(bench: &mut Bench) -> Result<(), Failure> {
    let open = FILES.map(|name| bench.files.open(name));
    bench.close();
    let unbound = bench.function.unbind()?;
    expect("the folder is there", bench.files.exist(), false)?;
    for (name, file) in FILES.into_iter().zip(open) {
        let mut file = file.map_err(cannot(format!("open {name}")))?;
        let mut text = String::new();
        let found = file.read_to_string(&mut text);
        let found = found.map_err(|error| Errno::from_io_error(&error));
        expect(name, found, Err(Some(Errno::IO)))?;
    }
    unbound.bind()?;
    bench.open()?;
    expect("the folder is there again", bench.files.exist(), true)
}

pub fn read_while_unbinding(bench: &mut Bench) -> Result<(), Failure> {
    let over = AtomicBool::new(false);
    let files = bench.files.clone();
    thread::scope(|scope| {
        let readers: Vec<_> = FILES
            .iter()
            .map(|name| {
                scope.spawn(|| {
                    let mut read = 0_u64;
                    while !over.load(Ordering::Relaxed) {
                        read += u64::from(files.read(name).is_ok());
                        thread::sleep(Duration::from_millis(1));
                    }
                    read
                })
            })
            .collect();
        let result = (0..10).try_for_each(|_| bench.rebind());
        over.store(true, Ordering::Relaxed);
        for (name, reader) in FILES.iter().zip(readers) {
            let read = reader
                .join()
                .map_err(|_| Wrong("a reader died".to_owned()))?;
            expect(&format!("{name} was read at all"), read > 0, true)?;
        }
        result
    })?;
    bench.inject(1)
}

/// A file that is open keeps the module, but not the device.
pub fn open_files_keep_the_module(bench: &mut Bench) -> Result<(), Failure> {
    let file = bench.files.open("counters");
    let file = file.map_err(cannot("open a file"))?;
    bench.close();
    expect("rmmod", module::unload()?, false)?;
    bench.rebind()?;
    drop(file);
    bench.load("")?;
    bench.inject(1)
}

const TRACING: &str = "/sys/kernel/tracing";

pub fn tracepoints(bench: &mut Bench) -> Result<Outcome, Failure> {
    if !Path::new(TRACING).join("events").exists() {
        return Ok(Outcome::Skipped("this kernel has no tracefs"));
    }
    let write = |name: &str, what: &str| {
        fs::write(format!("{TRACING}/{name}"), what).map_err(cannot(format!("write to {name}")))
    };
    bench.load("list_bound=1")?;
    write("trace", "")?;
    write("events/evgen/enable", "1")?;
    let result = (|| {
        bench.inject(2)?;
        spoil(bench)
    })();
    write("events/evgen/enable", "0")?;
    result?;
    bench.inject(1)?;
    let trace = fs::read_to_string(format!("{TRACING}/trace"));
    let trace = trace.map_err(cannot("read the trace"))?;
    for line in [
        "evgen_interrupt: 0000:",
        " ring=0 events=",
        "evgen_evicted: 0000:",
        " events=1 early=0",
        "evgen_trouble: 0000:",
        " ring=-1 ",
        "evgen_restart: 0000:",
        " ring=-1\n",
    ] {
        expect(
            &format!("{line:?} in the trace: {trace}"),
            trace.contains(line),
            true,
        )?;
    }
    Ok(Outcome::Good)
}
