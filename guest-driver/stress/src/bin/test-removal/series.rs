// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Many rounds: on all devices in parallel, or of all devices at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::slot::Slot;
use evgen_stress::thousands::thousands;
use fastrand::Rng;

use crate::hot_plug;
use crate::load::Back;
use crate::options::{Kind, Options};
use crate::rounds;
use crate::say;
use crate::trouble::Trouble;

/// Time from one line of progress to the next.
const PROGRESS: Duration = Duration::from_secs(10);

type Round = fn(&Slot, &mut Rng, Duration) -> Result<Back, Trouble>;

/// Does so many rounds of one kind, and gives what came back in all of them.
pub fn play(
    kind: Kind,
    slots: &[Slot],
    rounds: u64,
    seed: u64,
    options: &Options,
) -> Result<Back, Trouble> {
    let limit = Duration::from_secs(options.limit);
    let round = match kind {
        Kind::Unbind => rounds::unbind,
        Kind::Unplug => hot_plug::unplug,
        Kind::Surprise => hot_plug::surprise,
        Kind::Module => {
            let mut rng = Rng::with_seed(seed);
            let mut progress = Progress::new(rounds);
            for _ in 0..rounds {
                rounds::reload(slots, &options.module, &mut rng, limit)?;
                progress.step(&Back::default());
            }
            return Ok(progress.back);
        }
    };
    in_parallel(round, slots, rounds, seed, limit)
}

fn in_parallel(
    round: Round,
    slots: &[Slot],
    rounds: u64,
    seed: u64,
    limit: Duration,
) -> Result<Back, Trouble> {
    let left = Arc::new(AtomicU64::new(rounds));
    let (sender, results) = mpsc::channel();
    for (number, slot) in (0..).zip(slots) {
        let (slot, left, sender) = (slot.clone(), Arc::clone(&left), sender.clone());
        let mut rng = Rng::with_seed(seed.wrapping_add(number));
        thread::spawn(move || {
            let take_one = |left: u64| left.checked_sub(1);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one)
                .is_ok()
            {
                let result = round(&slot, &mut rng, limit);
                if result.is_err() {
                    left.store(0, Ordering::Relaxed);
                }
                if sender.send((slot.clone(), result)).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let mut progress = Progress::new(rounds);
    let mut first = None;
    for (slot, result) in results {
        match result {
            Ok(back) => progress.step(&back),
            Err(trouble) => {
                say(format_args!("# {}: {trouble}", slot.address()));
                // Who is stuck may keep others from ending.
                if trouble.is_final() {
                    return Err(trouble);
                }
                first.get_or_insert(trouble);
            }
        }
    }
    match first {
        None => Ok(progress.back),
        Some(trouble) => Err(trouble),
    }
}

struct Progress {
    rounds: u64,
    done: u64,
    start: Instant,
    told: Instant,
    back: Back,
}

impl Progress {
    fn new(rounds: u64) -> Self {
        let now = Instant::now();
        Self {
            rounds,
            done: 0,
            start: now,
            told: now,
            back: Back::default(),
        }
    }

    fn step(&mut self, back: &Back) {
        self.done += 1;
        self.back.absorb(back);
        if self.told.elapsed() < PROGRESS {
            return;
        }
        self.told = Instant::now();
        say(format_args!(
            "# {} of {} rounds in {} s; slowest sleeper {} ms",
            thousands(self.done.cast_signed()),
            thousands(self.rounds.cast_signed()),
            self.start.elapsed().as_secs(),
            self.back.slowest.as_millis()
        ));
    }
}
