// SPDX-License-Identifier: GPL-2.0

//! All devices that there are, by name: `/dev/evgenN` is the device in slot N.

use kernel::{
    prelude::*,
    sync::{global_lock, Arc},
};

use crate::{device::Device, uapi::MAX_DEVICES};

global_lock! {
    /// Slot N holds the device that `/dev/evgenN` stands for.
    ///
    /// Taken in process context only. Lock order: outermost of the driver's own, but inside the
    /// `misc_mtx` of `drivers/char/misc.c`, which is held around `open`. So it must never be held
    /// while a file is registered or deregistered.
    // SAFETY: The module initialises it before it registers the driver, and nothing else gets here.
    pub(crate) unsafe(uninit) static DEVICES: Mutex<[Option<Arc<Device>>; MAX_DEVICES]> =
        [const { None }; MAX_DEVICES];
}

macro_rules! names {
    ($($number:literal)*) => {
        [$(kernel::c_str!(concat!("evgen", $number))),*]
    };
}

/// The names of the files, by slot. A table because a file's name must live forever.
const NAMES: [&CStr; MAX_DEVICES] = names!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
);

/// Finds the device with the file `name`.
pub(crate) fn find(name: &CStr) -> Option<Arc<Device>> {
    let slot = NAMES.iter().position(|candidate| *candidate == name)?;
    DEVICES.lock()[slot].clone()
}

/// A device's place in the list; dropping it frees the place.
///
/// That must wait until the file is deregistered: the next device here registers the same name.
pub(crate) struct Listed {
    slot: usize,
}

impl Listed {
    /// Puts a device into the first free slot.
    pub(crate) fn new(device: Arc<Device>) -> Result<Self> {
        let mut devices = DEVICES.lock();
        let slot = devices.iter().position(Option::is_none).ok_or(ENOSPC)?;
        devices[slot] = Some(device);
        Ok(Self { slot })
    }

    /// The name of the device's file.
    pub(crate) fn name(&self) -> &'static CStr {
        NAMES[self.slot]
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // Two statements, so that a device that nobody else holds is freed without the lock.
        let device = DEVICES.lock()[self.slot].take();
        drop(device);
    }
}
