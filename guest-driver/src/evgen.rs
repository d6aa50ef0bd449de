// SPDX-License-Identifier: GPL-2.0

//! evgen: the reference driver of the event-generating PCI device.
//!
//! `README.md` beside this folder shows the parts and the lock order; `uapi` says what programs
//! see of it.

use kernel::{driver, pci, prelude::*};

mod abi;
mod debugfs;
mod deferred;
mod device;
mod device_list;
mod event_list;
mod file;
mod interrupts;
mod kernel_additions;
mod measured_lock;
mod node;
mod pci_driver;
mod quarantine;
mod refill;
mod registers;
mod reset;
mod ring;
mod rings;
mod service;
mod trace;
mod trouble;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with programs, which use all of it and see it as a crate"
)]
#[path = "../uapi/src/interface.rs"]
mod uapi;
mod watchdog;

module! {
    type: Evgen,
    name: "evgen",
    authors: ["The lockstorm authors"],
    description: "Driver for evgen, a PCI device that generates events",
    license: "GPL",
    params: {
        list_bound: u32 {
            default: 8192,
            description: "Most events that a device's list holds, 1 to 1048576; then the oldest go",
        },
        ring_size: u32 {
            default: 256,
            description: "Events that can wait in a ring: a power of two, 2 to 256",
        },
        threaded_handlers: u32 {
            default: 0,
            description: "Interrupts are handled 0: in hard-IRQ context, 1: in a thread for each",
        },
    },
}

/// Largest `list_bound`: 128 MiB of events for each device.
const LIST_BOUND_MAX: u32 = 1 << 20;

#[pin_data]
struct Evgen {
    /// Dropped before the driver, which then lets go of its devices for good.
    _quarantine: quarantine::EndOnDrop,
    #[pin]
    _driver: driver::Registration<pci::Adapter<pci_driver::EvgenDriver>>,
    /// Dropped after the driver, whose devices have folders in it.
    _debugfs: debugfs::Root,
}

impl kernel::InPlaceModule for Evgen {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            check_parameters()?;
            // SAFETY: This runs once, and nothing can reach either before the driver is registered
            // below.
            unsafe {
                device_list::DEVICES.init();
                quarantine::QUARANTINE.init();
            }
            // SAFETY: This runs once.
            let debugfs = unsafe { debugfs::Root::new()? };
            Ok(try_pin_init!(Self {
                _quarantine: quarantine::EndOnDrop,
                _debugfs: debugfs,
                _driver <- driver::Registration::new(
                    <Self as kernel::ModuleMetadata>::NAME,
                    module,
                ),
            }))
        })
    }
}

/// Refuses what cannot be.
fn check_parameters() -> Result {
    let bound = list_bound();
    if !(1..=LIST_BOUND_MAX).contains(&bound) {
        pr_err!("list_bound={bound}: must be 1 to {LIST_BOUND_MAX}\n");
        return Err(EINVAL);
    }
    let size = module_parameters::ring_size.value();
    if !size.is_power_of_two() || !(2..=ring::MAX_SIZE as u32).contains(&size) {
        pr_err!(
            "ring_size={size}: must be a power of two from 2 to {}\n",
            ring::MAX_SIZE
        );
        return Err(EINVAL);
    }
    let threaded = module_parameters::threaded_handlers.value();
    if threaded > 1 {
        pr_err!("threaded_handlers={threaded}: must be 0 or 1\n");
        return Err(EINVAL);
    }
    Ok(())
}

/// Most events that a device's list holds.
fn list_bound() -> u32 {
    module_parameters::list_bound.value()
}

/// How many events can wait in a ring, if the device has rings that large.
fn ring_size() -> u16 {
    // Checked when the module was loaded.
    module_parameters::ring_size.value() as u16
}

/// Whether interrupts are handled in threads.
fn threaded_handlers() -> bool {
    module_parameters::threaded_handlers.value() == 1
}
