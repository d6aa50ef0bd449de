// SPDX-License-Identifier: GPL-2.0

//! The rings of devices that could not be silenced when the driver let go of them.
//!
//! A device can be gone from the bus just then, and come back as it went: with its rings on. Until it is
//! known to have been reset it may write to their memory, so nobody else can have that. It is freed when
//! the driver is bound to the device again, which resets it first.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Atomic, Relaxed},
        global_lock, Arc,
    },
};

use crate::{rings::Rings, uapi::MAX_DEVICES};

global_lock! {
    /// The rings of devices that may still write to them; at most one entry for each address, and as
    /// many as there can be devices at a time.
    ///
    /// Taken in process context only: probe and remove.
    ///
    /// Lock order: taken with no other lock held, and none is taken inside.
    // SAFETY: The module initialises it before it registers the driver, and nothing else gets here.
    pub(crate) unsafe(uninit) static QUARANTINE: Mutex<[Option<Arc<Rings>>; MAX_DEVICES]> =
        [const { None }; MAX_DEVICES];
}

/// The module is being unloaded.
static ENDING: Atomic<bool> = Atomic::new(false);

/// Keeps the rings of a device that may still write to them.
pub(crate) fn keep(rings: Arc<Rings>) {
    let mut quarantine = QUARANTINE.lock();
    match quarantine.iter_mut().find(|place| place.is_none()) {
        Some(place) => *place = Some(rings),
        // For good. It takes devices at ever other addresses, none of which comes back.
        None => core::mem::forget(rings),
    }
}

/// Frees what is kept for the device at address `name`, which was reset.
pub(crate) fn release(name: &CStr) {
    let find = |place: &mut Option<Arc<Rings>>| {
        place.take_if(|rings| rings.device().registers().device().name() == name)
    };
    // Two statements, so that memory is freed without the lock.
    let rings = QUARANTINE.lock().iter_mut().find_map(find);
    drop(rings);
}

/// Whether nobody will ever release what is kept from now on.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Relaxed)
}

/// Dropped before the driver lets go of its devices because the module is unloaded.
pub(crate) struct EndOnDrop;

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        ENDING.store(true, Relaxed);
    }
}
