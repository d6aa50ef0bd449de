// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Takes devices away from under programs that use them, and checks that nothing is left behind.

mod actors;
mod gone;
mod hot_plug;
mod load;
mod options;
mod rounds;
mod series;
mod trouble;
mod works;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use evgen_stress::exit_device::ExitDevice;
use evgen_stress::kmemleak;
use evgen_stress::leaks::{Figures, Growth, Unit};
use evgen_stress::slot::Slot;
use evgen_stress::status;
use evgen_stress::thousands::thousands;

use options::{Kind, Options};
use trouble::Trouble;

/// Rounds of each kind, for each device, after which lists and caches are as large as they get.
const WARM_UP: u64 = 2;
/// How often the figures are taken once more before what has grown may be a leak.
const LOOKS: usize = 2;
/// How often all rounds are done once more to see whether what has grown too much does so each time: the
/// rest of the kernel grows too, but not for ever.
const REPETITIONS: u64 = 2;
/// Most lines that are shown of what the kernel says of leaks.
const KMEMLEAK_LINES: usize = 100;

fn main() -> ExitCode {
    let options = Options::parse();
    ExitCode::from(test(&options).unwrap_or_else(|trouble| {
        say(format_args!("Bail out! {trouble}"));
        trouble.status()
    }))
}

/// Does all kinds, with a result each, and one for what is left of it all.
fn test(options: &Options) -> Result<u8, Trouble> {
    let seed = options.seed.unwrap_or_else(new_seed);
    let kinds = options.kinds();
    let places = Places::for_kinds(&kinds)?;
    say(format_args!("KTAP version 1\n1..{}", kinds.len() + 1));
    say(format_args!("# test-removal: seed {seed}"));
    let mut plugged = 0;
    for &kind in &kinds {
        let slots = places.of(kind);
        let devices = match kind {
            Kind::Unbind | Kind::Unplug | Kind::Surprise => slots.len() as u64,
            Kind::Module => 1,
        };
        plugged += series::play(kind, slots, WARM_UP * devices, !seed, options)?.plugged;
    }
    let mut figures = places.without_devices(|| Ok(Figures::now()?))?;
    if kmemleak::is_there() {
        kmemleak::forget()?;
    }
    for (number, &kind) in (1..).zip(&kinds) {
        tell_the_machine();
        let start = Instant::now();
        let back = series::play(kind, places.of(kind), options.rounds, seed, options)?;
        plugged += back.plugged;
        say(format_args!(
            "ok {number} - {kind}: {} rounds, {} devices, {} s, {} sleepers came back, the slowest after {} ms, {} calls on old files gave ENODEV",
            thousands(options.rounds.cast_signed()),
            places.of(kind).len(),
            start.elapsed().as_secs(),
            thousands(back.sleepers.cast_signed()),
            back.slowest.as_millis(),
            thousands(back.calls.cast_signed()),
        ));
    }
    let mut look = || places.without_devices(|| look_for_leaks(&mut figures, options.rounds));
    let mut leaks = look()?;
    for repetition in 1..=REPETITIONS {
        if leaks.certain || leaks.likely.is_empty() {
            break;
        }
        say("# the same rounds once more: a leak grows each time");
        let seed = seed.wrapping_add(repetition);
        for &kind in &kinds {
            plugged += series::play(kind, places.of(kind), options.rounds, seed, options)?.plugged;
        }
        let more = look()?;
        leaks.certain = more.certain;
        leaks.likely.retain(|leak| more.likely.contains(leak));
    }
    let good = !leaks.certain && leaks.likely.is_empty();
    let result = if good { "ok" } else { "not ok" };
    say(format_args!("{result} {} - nothing leaks", kinds.len() + 1));
    plugged += hot_plug::fill(&places.hot_plug)?;
    if plugged > 0 {
        say(format_args!("# host: seen {plugged}"));
    }
    Ok(if good { status::OK } else { status::FINDING })
}

/// Where the devices are.
struct Places {
    /// Hot-plug slots, if a kind is about them.
    hot_plug: Vec<Slot>,
    /// All other places with a device.
    fixed: Vec<Slot>,
}

impl Places {
    fn for_kinds(kinds: &[Kind]) -> Result<Self, Trouble> {
        let hot_plug = if kinds.iter().any(|kind| kind.is_hot_plug()) {
            Slot::hot_pluggable()?
        } else {
            Vec::new()
        };
        let mut fixed = Slot::all()?;
        fixed.retain(|slot| !hot_plug.contains(slot));
        let places = Self { hot_plug, fixed };
        if kinds.iter().any(|&kind| places.of(kind).is_empty()) {
            return Err(Trouble::NoDevice);
        }
        Ok(places)
    }

    fn of(&self, kind: Kind) -> &[Slot] {
        if kind.is_hot_plug() {
            &self.hot_plug
        } else {
            &self.fixed
        }
    }

    /// Does `action` while no device has its driver, and no slot a device: those that are in use take
    /// memory, and more with each event that nobody reads.
    fn without_devices<T>(
        &self,
        action: impl FnOnce() -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        hot_plug::empty(&self.hot_plug)?;
        self.fixed.iter().try_for_each(Slot::unbind)?;
        let result = action();
        self.fixed.iter().try_for_each(Slot::bind)?;
        result
    }
}

/// What has leaked, or may have.
struct Leaks {
    /// Something of which not even one more is right, or of which the kernel says itself that it leaked.
    certain: bool,
    /// Names of what has grown too much.
    likely: BTreeSet<String>,
}

/// What has leaked since the figures were `figures`, which become those of now; says what has grown at
/// all, and what the kernel says itself.
fn look_for_leaks(figures: &mut Figures, rounds: u64) -> Result<Leaks, Trouble> {
    let before = figures.clone();
    *figures = Figures::now()?;
    // A busy kernel frees late what it frees later; a leak stays.
    for _ in 0..LOOKS {
        if !figures
            .growth_since(&before, rounds)
            .iter()
            .any(Growth::is_leak)
        {
            break;
        }
        *figures = Figures::now()?;
    }
    let mut leaks = Leaks {
        certain: false,
        likely: BTreeSet::new(),
    };
    for growth in figures.growth_since(&before, rounds) {
        let word = if growth.is_leak() {
            "too much of"
        } else {
            "grown"
        };
        say(format_args!("# {word} {growth}"));
        if growth.is_leak() {
            leaks.certain |= growth.unit == Unit::Exact;
            leaks.likely.insert(growth.name);
        }
    }
    if kmemleak::is_there() {
        let report = kmemleak::leaks()?;
        leaks.certain |= !report.is_empty();
        for line in report.lines().take(KMEMLEAK_LINES) {
            say(format_args!("# {line}"));
        }
    }
    Ok(leaks)
}

/// Puts the mark on the machine's timeline upon which it starts the next storm that it was asked for.
fn tell_the_machine() {
    match ExitDevice::of_this_machine() {
        Ok(Some(machine)) => machine.mark("ready"),
        Ok(None) => {}
        Err(error) => eprintln!("test-removal: no storm will come from the host: {error}"),
    }
}

fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| u64::from(now.subsec_nanos()) ^ now.as_secs())
}

/// Prints a line. Whoever reads the output may go away; the verdict is in the exit status too.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
