// SPDX-License-Identifier: Apache-2.0 OR MIT

//! lockstorm: a small KVM virtual machine monitor that hosts evgen devices.
//!
//! A library only so that fuzz targets and benchmarks reach what the program is made of; nothing
//! here is an interface for others.

pub mod cli;
pub mod completion;
pub mod console;
pub mod control;
pub mod ctl;
pub mod devices;
pub mod live_storm;
pub mod machine;
pub mod open_files;
pub mod other_vmm;
pub mod pci;
pub mod qmp;
pub mod rate_limit;
pub mod run;
pub mod run_loop;
pub mod serve;
pub mod signals;
pub mod socket_file;
pub mod storms;
pub mod supervisor;
pub mod timeline;
pub mod top;
pub mod vfio_user;
