// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What must be there before anything can run: file systems, the console, the driver.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use evgen_stress::device::Device;
use evgen_stress::kernel_arguments::{ArgumentError, KernelArguments};
use evgen_stress::status;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::system::finit_module;
use thiserror::Error;

use crate::say;

const MODULE: &str = "/lib/modules/evgen.ko";

/// How long the devices may take to appear once the module is loaded.
const DEVICES_LIMIT: Duration = Duration::from_secs(10);

/// The guest is not fit for use.
#[derive(Debug, Error)]
pub enum BootError {
    /// A file system is missing.
    #[error("cannot mount {file_system} on {target}: {source}")]
    Mount {
        /// Its type.
        file_system: &'static str,
        /// Where.
        target: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The module is not loaded.
    #[error("cannot load {MODULE}: {source}; the kernel log says more (dmesg)")]
    Module {
        /// Why not.
        source: io::Error,
    },
    /// The command line is wrong.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The driver took fewer devices than there are.
    #[error(
        "{path} did not appear within {} s, and the machine should have {devices} devices; the kernel log says more (dmesg)",
        DEVICES_LIMIT.as_secs()
    )]
    Device {
        /// What is missing.
        path: String,
        /// How many devices there should be.
        devices: u16,
    },
}

impl BootError {
    /// The exit status that tells of this.
    pub fn status(&self) -> u8 {
        match self {
            Self::Argument(_) => status::USAGE,
            Self::Mount { .. } | Self::Module { .. } | Self::Device { .. } => status::UNAVAILABLE,
        }
    }
}

/// Mounts what every program expects, and what developers like to look at.
pub fn file_systems() -> Result<(), BootError> {
    for (file_system, target, flags) in [
        (
            "proc",
            "/proc",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        ),
        (
            "sysfs",
            "/sys",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        ),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC),
        ("tmpfs", "/tmp", MountFlags::NOSUID | MountFlags::NODEV),
    ] {
        let mounted = fs::create_dir_all(target)
            .and_then(|()| Ok(mount(file_system, target, file_system, flags, None)?));
        match mounted {
            // Some kernels mount /dev themselves.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {}
            mounted => mounted.map_err(|source| BootError::Mount {
                file_system,
                target,
                source,
            })?,
        }
    }
    for (file_system, target) in [
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        // Not every kernel has them, and nothing that must run needs them.
        let _ = mount(file_system, target, file_system, MountFlags::empty(), None);
    }
    Ok(())
}

/// Makes the console the controlling terminal, so that Ctrl-C and job control work.
///
/// Nothing here is fatal: what the kernel opened for process 1 goes on serving as it is.
pub fn console() {
    if let Err(error) = take_console() {
        say(format_args!(
            "no controlling terminal, so Ctrl-C will not work: {error}"
        ));
    }
}

fn take_console() -> io::Result<()> {
    // /dev/console itself can never be a controlling terminal; the one behind it can.
    let active = fs::read_to_string("/sys/class/tty/console/active")?;
    let name = active.split_ascii_whitespace().last().unwrap_or("console");
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/dev/{name}"))?;
    setsid()?;
    ioctl_tiocsctty(&terminal)?;
    dup2_stdin(&terminal)?;
    dup2_stdout(&terminal)?;
    dup2_stderr(&terminal)?;
    Ok(())
}

/// Loads the module and waits for the devices that the machine is said to have.
pub fn driver(arguments: &KernelArguments) -> Result<(), BootError> {
    let load = || Ok(finit_module(File::open(MODULE)?, c"", 0)?);
    load().map_err(|source| BootError::Module { source })?;

    let devices = arguments.devices()?;
    let deadline = Instant::now() + DEVICES_LIMIT;
    for device in 0..devices {
        let path = Device::path(device.into());
        while !path.exists() {
            if Instant::now() > deadline {
                let path = path.display().to_string();
                return Err(BootError::Device { path, devices });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}
