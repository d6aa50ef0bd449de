// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What somebody hostile could try, as functions of some bytes: a guest, the author of a storm or
//! kernel file, a client of the control socket or of a vfio-user one.
//!
//! Each function here is a fuzz target: it reads a plan out of the bytes, carries it out, and
//! panics if what came of it breaks a rule that must hold whatever the plan. `scripts/fuzz.sh`
//! looks for such bytes with `cargo fuzz`; `cargo test` replays those in `corpus/`, for which it
//! needs no more than a stable toolchain.
//!
//! What a plan cannot do is bounded by what the one who makes it could: a guest may choose any
//! address and value, but not a time that runs backwards for years.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "to panic is how a target says that it found something"
)]

mod bar_access;
mod bus;
mod chip;
mod config_space;
mod control_request;
mod descriptor_chains;
mod device;
mod driver;
mod kernel_image;
mod msix;
mod root_ports;
mod storm_file;
mod storm_run;
mod vfio_user;

pub use bar_access::bar_access;
pub use config_space::config_space;
pub use control_request::control_request;
pub use descriptor_chains::descriptor_chains;
pub use kernel_image::kernel_image;
pub use msix::msix;
pub use root_ports::root_ports;
pub use storm_file::storm_file;
pub use storm_run::storm_run;
pub use vfio_user::vfio_user;

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target, by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("config_space", config_space),
    ("root_ports", root_ports),
    ("bar_access", bar_access),
    ("msix", msix),
    ("descriptor_chains", descriptor_chains),
    ("storm_file", storm_file),
    ("storm_run", storm_run),
    ("control_request", control_request),
    ("kernel_image", kernel_image),
    ("vfio_user", vfio_user),
];
