// SPDX-License-Identifier: GPL-2.0

//! evgen: the reference driver of the event-generating PCI device.
//!
//! `README.md` beside this folder shows the parts and the lock order; `uapi` says what programs
//! see of it.

use kernel::{driver, pci, prelude::*};

mod abi;
mod device;
mod device_list;
mod event_list;
mod file;
mod interrupts;
mod kernel_additions;
mod pci_driver;
mod registers;
mod reset;
mod ring;
mod rings;
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
    },
}

/// Largest `list_bound`: 128 MiB of events for each device.
const LIST_BOUND_MAX: u32 = 1 << 20;

#[pin_data]
struct Evgen {
    #[pin]
    _driver: driver::Registration<pci::Adapter<pci_driver::EvgenDriver>>,
}

impl kernel::InPlaceModule for Evgen {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let bound = list_bound();
            if !(1..=LIST_BOUND_MAX).contains(&bound) {
                pr_err!("list_bound={bound}: must be 1 to {LIST_BOUND_MAX}\n");
                return Err(EINVAL);
            }
            // SAFETY: This runs once, and nothing can reach the list before the driver is
            // registered below.
            unsafe { device_list::DEVICES.init() };
            Ok(try_pin_init!(Self {
                _driver <- driver::Registration::new(
                    <Self as kernel::ModuleMetadata>::NAME,
                    module,
                ),
            }))
        })
    }
}

/// Most events that a device's list holds.
fn list_bound() -> u32 {
    module_parameters::list_bound.value()
}
