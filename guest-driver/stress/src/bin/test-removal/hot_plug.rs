// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Rounds in which the host takes a device out of a hot-plug slot and puts in another.
//!
//! The host is asked by lines on the console, which name the place: `# host: plug 0000:01:00.0`. It is
//! told by one too how many devices were seen to come: `# host: seen 53`.

use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::device::Mode;
use evgen_stress::slot::Slot;
use fastrand::Rng;

use crate::load::{Back, Load};
use crate::say;
use crate::trouble::Trouble;
use crate::works;

/// How long the host and the kernel may take to put a device in, or to take it out. For 5 seconds of
/// them the kernel waits for the button to be pressed again.
const LIMIT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(10);
/// Longest time in milliseconds that a load lasts before the device goes.
const LOAD_MILLISECONDS: u64 = 200;

/// The host asks the kernel to let go of a device under load.
pub fn unplug(slot: &Slot, rng: &mut Rng, limit: Duration) -> Result<Back, Trouble> {
    change("unplug", slot, rng, limit)
}

/// The host takes out a device under load without a word.
pub fn surprise(slot: &Slot, rng: &mut Rng, limit: Duration) -> Result<Back, Trouble> {
    change("pull", slot, rng, limit)
}

fn change(how: &str, slot: &Slot, rng: &mut Rng, limit: Duration) -> Result<Back, Trouble> {
    let plugged = fill(slice::from_ref(slot))? + 1;
    let load = Load::start(slot, None)?;
    thread::sleep(Duration::from_millis(rng.u64(..LOAD_MILLISECONDS)));
    say(format_args!("# host: {how} {}", slot.address()));
    wait("a device was not taken out", || Ok(!slot.is_bound()))?;
    let mut back = load.come_back(Instant::now(), limit)?;
    let stays = "a device that was taken out stayed listed";
    wait(stays, || Ok(!slot.is_listed()))?;
    put_in(slot)?;
    back.plugged = plugged;
    Ok(back)
}

/// Has the host put a device into each slot that is empty; how many those are.
pub fn fill(slots: &[Slot]) -> Result<u64, Trouble> {
    let mut plugged = 0;
    for slot in slots.iter().filter(|slot| !slot.is_listed()) {
        put_in(slot)?;
        plugged += 1;
    }
    Ok(plugged)
}

/// Has the host take out what is in the slots.
pub fn empty(slots: &[Slot]) -> Result<(), Trouble> {
    for slot in slots.iter().filter(|slot| slot.is_listed()) {
        say(format_args!("# host: pull {}", slot.address()));
    }
    let gone = || Ok(!slots.iter().any(Slot::is_listed));
    wait("the slots were not emptied", gone)
}

/// Has the host put in a device, and checks that it works.
fn put_in(slot: &Slot) -> Result<(), Trouble> {
    say(format_args!("# host: plug {}", slot.address()));
    // It counts as bound as soon as the driver begins to look at it.
    let missing = "no device was put in, or its driver made no file for it";
    wait(missing, || Ok(slot.open(Mode::Nonblocking)?.is_some()))?;
    works::check(slot)
}

fn wait(what: &'static str, come: impl Fn() -> Result<bool, Trouble>) -> Result<(), Trouble> {
    let deadline = Instant::now() + LIMIT;
    while !come()? {
        if Instant::now() > deadline {
            return Err(Trouble::Late { what, limit: LIMIT });
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
