// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One round of each kind.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::device::{Device, DeviceError, Mode};
use evgen_stress::module;
use evgen_stress::slot::Slot;
use fastrand::Rng;
use rustix::io::Errno;

use crate::load::{Back, Load};
use crate::trouble::Trouble;
use crate::works;

/// How long a device, or the module, may take to be there again, or to let itself be unloaded. A device
/// may be gone once more just when it is found.
const LIMIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(5);
/// Longest time in milliseconds that a load lasts before the device goes.
const LOAD_MILLISECONDS: u64 = 60;
/// How long sleepers sleep at a time where they must come back by themselves.
const PATIENCE: Duration = Duration::from_millis(100);

/// The driver is unbound from a device under load, and bound again.
pub fn unbind(slot: &Slot, rng: &mut Rng, limit: Duration) -> Result<Back, Trouble> {
    let load = Load::start(slot, None)?;
    thread::sleep(Duration::from_millis(rng.u64(..LOAD_MILLISECONDS)));
    let gone = Instant::now();
    slot.unbind()?;
    let back = load.come_back(gone, limit)?;
    let deadline = Instant::now() + LIMIT;
    // The device may be gone from the bus just now.
    while let Err(refused) = slot.bind() {
        if Instant::now() > deadline {
            return Err(refused.into());
        }
        thread::sleep(PAUSE * 10);
    }
    works::check(slot)?;
    Ok(back)
}

/// The module must not go while a file of it is open, and goes when none is: with injections that wait
/// for their time, events on their way, and somebody who opens files all the time.
pub fn reload(slots: &[Slot], path: &Path, rng: &mut Rng, limit: Duration) -> Result<(), Trouble> {
    let start = |slot: &Slot| Load::start(slot, Some(PATIENCE));
    let loads = slots.iter().map(start).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(rng.u64(..LOAD_MILLISECONDS / 3)));
        let users = module::users()?;
        if module::unload()? {
            let what = format!("went while {users} files were open");
            return Err(Trouble::wrong("rmmod", what));
        }
        if users == 0 {
            return Err(Trouble::wrong(
                "rmmod",
                "files are open, and nobody uses the module",
            ));
        }
    }
    for load in loads {
        load.end(limit)?;
    }
    let opener = thread::spawn(open_until_gone);
    let deadline = Instant::now() + LIMIT;
    while !module::unload()? {
        if Instant::now() > deadline {
            return Err(Trouble::Late {
                what: "the module did not go, though no file was open for long",
                limit: LIMIT,
            });
        }
    }
    match opener.join() {
        Ok(ended) => ended?,
        Err(_) => return Err(Trouble::wrong("open", "panicked")),
    }
    module::load(path)?;
    while let Some(slot) = slots.iter().find(|slot| !slot.is_bound()) {
        if Instant::now() > deadline {
            return Err(Trouble::Late {
                what: "a device was not bound when the module had been loaded",
                limit: LIMIT,
            });
        }
        // It was gone from the bus when the module was loaded.
        let _ = slot.bind();
        thread::sleep(PAUSE);
    }
    slots.iter().try_for_each(works::check)
}

/// Opens and closes the file of the first device until there is none.
fn open_until_gone() -> Result<(), Trouble> {
    loop {
        match Device::open(0, Mode::Nonblocking) {
            Ok(device) => drop(device),
            Err(DeviceError::Missing { .. }) => return Ok(()),
            Err(error) if matches!(error.errno(), Some(Errno::NODEV | Errno::NXIO)) => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        thread::yield_now();
    }
}
